// The numbers under the pointer. The page says the same without scripts.
document.querySelectorAll("[data-plot]").forEach((area) => {
  const data = JSON.parse(area.dataset.plot);
  const hair = area.appendChild(document.createElement("div"));
  const tip = area.appendChild(document.createElement("div"));
  hair.className = "hair"; tip.className = "tip";
  const hide = () => { hair.style.display = tip.style.display = "none"; };
  const show = (event) => {
    const box = area.getBoundingClientRect();
    const at = 100 * (event.clientX - box.left) / box.width;
    if (at < 0 || at > 100) return hide();
    let where = null;
    const lines = [];
    data.series.forEach((series, number) => {
      let near = series.points[0];
      for (const point of series.points) if (Math.abs(point[0] - at) < Math.abs(near[0] - at)) near = point;
      if (number === 0) { where = near; lines.push(data.xname + " " + near[2]); }
      lines.push(data.series.length > 1 ? series.name + " " + near[1] : near[1]);
    });
    tip.replaceChildren(...lines.flatMap((text, i) => i ? [document.createElement("br"), text] : [text]));
    hair.style.display = tip.style.display = "block";
    hair.style.left = where[0] + "%";
    const left = where[0] > 60;
    tip.style.left = left ? "" : "calc(" + where[0] + "% + 10px)";
    tip.style.right = left ? "calc(" + (100 - where[0]) + "% + 10px)" : "";
  };
  hide();
  area.addEventListener("pointermove", show);
  area.addEventListener("pointerdown", show);
  area.addEventListener("pointerleave", hide);
});
