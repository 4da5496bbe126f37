"""Compare: variants of a recipe over paired seeds, interleaved, matched on time, tokens or steps."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kogata.core.errors import RecipeError
from kogata.core.recipe import Recipe
from kogata.core.statistics import mean_interval, paired
from kogata.runtime.load import with_settings
from kogata.runtime.load import without as leave_out
from kogata.runtime.machine import machine_profile
from kogata.runtime.system import write_beside

BASELINE = "as it stands"
MEASURES: dict[str, tuple[str, bool | None]] = {
    "bits_per_byte": ("bits per byte", True),
    "answer_loss": ("nats a token of answers", True),
    "accuracy": ("rows right", False),
    "f1": ("F1 of spans", False),
    "hidden_tokens": ("hidden tokens told right", False),
    "minimal_pairs": ("grammar pairs", False),
    "training_seconds": ("training", None),
    "total_seconds": ("all stages", None),
    "joules_low": ("energy, low end", None),
    "joules_high": ("energy, high end", None),
    "peak_bytes": ("peak memory", None),
    "model_bytes": ("model", None),
    "file_bytes": ("largest file", None),
}
"""Measure → its name and whether lower is better (None: no judgement, it is the cost).

The first measure of quality that the recipe as it stands was scored by is the one variants are judged by.
"""

NAME = "comparison.json"
LENGTHS = ("steps", "tokens", "epochs", "time")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What a comparison found: each variant's values per seed, and paired differences to the baseline."""

    name: str
    match: str
    seeds: list[int]
    values: dict[str, dict[str, list[float]]]
    """Variant → measure → one value a seed."""
    folders: dict[str, list[str]]
    """Variant → the folder of each seed's run, from the comparison's folder on."""
    path: Path
    machine: dict[str, Any]
    recipe: dict[str, Any] = field(default_factory=dict)
    """The recipe as it stands, without its seed."""
    energy_source: str | None = None

    def rows(self) -> list[dict[str, Any]]:
        """Gives one row per variant: means, intervals, differences, verdicts."""
        base = self.values[BASELINE]
        found = []
        for variant, measures in self.values.items():
            row: dict[str, Any] = {"variant": variant, "measures": {}}
            for measure, values in measures.items():
                mean, half = mean_interval(values)
                entry: dict[str, Any] = {"mean": mean, "half_width": half, "values": values}
                if variant != BASELINE and len(base.get(measure, [])) == len(values):
                    gap = paired(values, base[measure])
                    entry["difference"] = gap.to_dict()
                    lower = MEASURES[measure][1]
                    if lower is not None:
                        entry["verdict"] = gap.verdict(lower_is_better=lower)
                row["measures"][measure] = entry
            found.append(row)
        return found

    def to_dict(self) -> dict[str, Any]:
        """Gives plain values for JSON."""
        return {
            "name": self.name,
            "match": self.match,
            "seeds": self.seeds,
            "judged_by": judged_by(self.values[BASELINE]),
            "recipe": self.recipe,
            "rows": self.rows(),
            "folders": self.folders,
            "energy_source": self.energy_source,
            "machine": self.machine,
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
        }


def compare(
    recipe: Recipe,
    *,
    run: Callable[..., Any],
    report: Callable[[Path], Any],
    without: Sequence[str] = (),
    settings: Mapping[str, Sequence[Any]] | None = None,
    seeds: int | Sequence[int] = 3,
    match: str = "time",
    out: Path | None = None,
    processes: int = 1,
    screen: Any = None,
) -> Comparison:
    """Runs a recipe as it stands and its variants, seed by seed in turn, and states paired differences.

    Stages before the first random one are shared through the store. `time` gives each variant the
    recipe's time budget less what its own other stages are forecast to need, so a slow selection pays for
    itself; `tokens` and `steps` give every variant what the baseline took at the first seed.

    Args:
        run: `kogata.api.run`.
        report: `kogata.api.report`, which writes the comparison's page.
        without: labels of stages to leave out, one variant each.
        settings: address → values, one variant for each value.
        seeds: how many, or which.

    Raises:
        RecipeError: nothing to compare, an unknown match, or nothing to match on.
    """
    if match not in ("time", "tokens", "steps"):
        raise RecipeError("unknown match", found=match, expected="time, tokens or steps")
    variants = _variants(recipe, without, settings or {})
    chosen = list(range(recipe.seed, recipe.seed + seeds)) if isinstance(seeds, int) else list(seeds)
    if not chosen:
        raise RecipeError("a comparison needs at least one seed", remedy="--seeds 3")
    if match == "time" and recipe.budget.time is None and not _fixed(recipe):
        raise RecipeError(
            "nothing to match on",
            expected="a time budget, or steps in the training stage",
            remedy="--budget time=5min, or --match steps with steps set",
        )
    asked = _question(recipe, variants, match)
    wanted = out if out is not None else Path("runs") / f"{recipe.name}-compare"
    folder = _free_folder(wanted, asked)
    if screen is not None and folder != wanted:
        screen.event("note", text=f"{wanted} holds something else; this comparison goes to {folder}")
    values: dict[str, dict[str, list[float]]] = {variant: {} for variant in variants}
    folders: dict[str, list[str]] = {variant: [] for variant in variants}
    source: str | None = None
    names = list(variants)
    measured: dict[str, Any] | None = None
    for number, seed in enumerate(chosen):
        turn = number % len(names) if measured is not None or match == "time" else 0
        for variant in names[turn:] + names[:turn]:
            made = variants[variant]
            if match != "time" and measured is not None:
                made = _matched(made, match, measured)
            made = replace(made, seed=seed, name=f"{recipe.name}-{_slug(variant)}-{seed}")
            place = folder / _slug(variant) / f"seed-{seed}"
            if screen is not None:
                screen.event("note", text=f"seed {seed}: {variant}")
            finished = run(made, out=place, screen=screen, processes=processes, hold_shares=match == "time")
            if match != "time" and measured is None:
                measured = _training(finished)
            for measure, value in measures_of(finished).items():
                values[variant].setdefault(measure, []).append(value)
            folders[variant].append(Path(os.path.relpath(finished.path, folder)).as_posix())
            joules = finished.cost(first=True).joules
            source = joules.source if joules else source
    found = Comparison(
        name=recipe.name,
        match=match,
        seeds=chosen,
        values=values,
        folders=folders,
        path=folder,
        machine=machine_profile().to_dict(),
        energy_source=source,
        recipe=asked["recipe"],
    )
    text = json.dumps(found.to_dict(), ensure_ascii=False, indent=1)
    write_beside(folder / NAME, text.encode())
    report(folder)
    return found


def _question(recipe: Recipe, variants: Mapping[str, Recipe], match: str) -> dict[str, Any]:
    """Gives what a comparison asks, whichever seeds answer it."""
    parts = {name: value for name, value in recipe.to_dict().items() if name != "seed"}
    return json.loads(json.dumps({"recipe": parts, "match": match, "variants": list(variants)}))


def _free_folder(wanted: Path, asked: Mapping[str, Any]) -> Path:
    """Chooses the folder of a comparison: the same again, or the next name when another thing has it."""
    number = 1
    while True:
        path = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        number += 1
        if (path / "receipts.jsonl").exists() or (path.exists() and not path.is_dir()):
            continue
        try:
            found = json.loads((path / NAME).read_text(encoding="utf-8"))
            held = {"recipe": found["recipe"], "match": found["match"]}
            held["variants"] = [row["variant"] for row in found["rows"]]
        except FileNotFoundError:
            return path  # never begun, or stopped before its end: what was made is taken up
        except (ValueError, KeyError, TypeError):
            continue
        if held == asked:
            return path


def judged_by(measures: Mapping[str, Any]) -> str | None:
    """Names the measure of quality that variants are judged by; None where nothing was scored."""
    return next((name for name in MEASURES if MEASURES[name][1] is not None and name in measures), None)


def measures_of(run: Any) -> dict[str, float]:
    """Gathers a run's quality and cost by measure; what was not measured is left out."""
    scores = run.scores()
    trained = [item for item in run.receipts if item.parent is None and _learned(item)]
    last = trained[-1].facts or {} if trained else {}
    total = run.cost(first=True)
    found: dict[str, float | None] = {
        "bits_per_byte": _part(scores, "bits_per_byte", "value"),
        "answer_loss": _part(scores, "examples", "loss_nats_per_token"),
        "accuracy": _part(last, "methods", last.get("method"), "accuracy"),
        "f1": _part(last, "methods", last.get("method"), "f1"),
        "hidden_tokens": _part(last, "heldout", "accuracy"),
        "minimal_pairs": _part(scores, "minimal_pairs", "accuracy"),
        "training_seconds": sum(item.first_cost.seconds or 0.0 for item in trained) if trained else None,
        "total_seconds": total.seconds,
        "joules_low": total.joules.low if total.joules else None,
        "joules_high": total.joules.high if total.joules else None,
        "peak_bytes": total.peak_bytes,
        "model_bytes": trained[-1].first_cost.size_bytes if trained else None,
        "file_bytes": _largest_file(run),
    }
    if scores.get("labels"):
        found["accuracy"] = _part(scores, "labels", "accuracy")
    if scores.get("tags"):
        found["f1"] = _part(scores, "tags", "f1")
    return {name: float(value) for name, value in found.items() if value is not None}


def _learned(receipt: Any) -> bool:
    """Says whether a receipt is of weights that were made from something, not of a model that was read."""
    made = receipt.kind in ("model", "adapter") and receipt.first_cost is not None
    return made and any(digest is not None for digest in receipt.inputs.values())


def _part(facts: Mapping[str, Any], *names: Any) -> Any:
    """Reads a fact by its path; None where a part of it is missing."""
    value: Any = facts
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _largest_file(run: Any) -> float | None:
    """Gives the bytes of the largest file to deploy, which is what `budget.size` counts."""
    files = [receipt.facts.get("files") or {} for receipt in run.receipts if receipt.kind == "bundle"]
    sizes = [facts["bytes"] for facts in (files[-1] if files else {}).values() if facts.get("bytes")]
    return max(sizes, default=None)


def _variants(
    recipe: Recipe, without: Sequence[str], settings: Mapping[str, Sequence[Any]]
) -> dict[str, Recipe]:
    variants = {BASELINE: recipe}
    for label in without:
        variants[f"without {label}"] = leave_out(recipe, label)
    for address, values in settings.items():
        for value in values:
            changed = with_settings(recipe, {address: value})
            if changed.to_dict() != recipe.to_dict():
                variants[f"{address}={value}"] = changed
    if len(variants) < 2:
        raise RecipeError(
            "nothing to compare",
            expected="at least one variant that differs from the recipe",
            remedy="--without data.dedup, or --set train.pretrain.lr=0.01,0.02",
        )
    return variants


def _fixed(recipe: Recipe) -> bool:
    return any(
        step.stage.elastic and any(getattr(step.stage, name, None) is not None for name in LENGTHS)
        for step in recipe.stages
    )


def _training(run: Any) -> dict[str, Any]:
    for receipt in reversed(run.receipts):
        training = (receipt.facts or {}).get("training")
        if training:
            return {"label": receipt.label, **training}
    raise RecipeError("the baseline trained nothing to match on", remedy="--match time")


def _matched(recipe: Recipe, match: str, measured: Mapping[str, Any]) -> Recipe:
    """Gives a recipe whose training takes as many steps or tokens as the baseline's did."""
    label = measured["label"]
    fields = next(type(step.stage).model_fields for step in recipe.stages if step.label == label)
    if match not in fields:
        raise RecipeError(f"{label} has no setting {match!r} to match on", remedy="--match time")
    others = {f"{label}.{name}": None for name in LENGTHS if name in fields and name != match}
    return with_settings(recipe, {**others, f"{label}.{match}": measured[match]})


def _slug(text: str) -> str:
    return re.sub(r"[^\w.=-]+", "-", text).strip("-") or "variant"
