"""From pages to text: how much of the article is found, which languages are told, how fast beside datatrove.

- quality, always: F1 of both extractors on the article extraction benchmark, by its own measure (4-grams of
  words, precision and recall averaged over pages); languages told on the Universal Declaration.
- speed, with `--speed` (a quiet machine, please): documents per second on one core beside datatrove in an
  environment of its own. Pages to deduplicated text, each by its defaults: datatrove reads with warcio,
  extracts with trafilatura, filters as FineWeb does and finds near-duplicates by MinHash. Then the same
  rules and MinHash on texts, extraction left out. What is left out on both sides: languages (datatrove's
  model is a download; ours are told all the same) and its lists of addresses. Thresholds are the same; a
  word is not: datatrove's tokenizer makes words of marks, so it finds fewer words with letters and keeps
  about a twelfth less. How many each side keeps stands beside its time.

    python benchmarks/bench_extract.py --full [--web FOLDER] [--speed]
"""

from __future__ import annotations

import os
import random
import re
import statistics
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import common
import web_data

F1_BARS = {"fast": 0.91, "careful": 0.95}
LANGUAGE_BAR = 0.95
SPEED_BARS = {"pages": 5.0, "texts": 3.0}
PEER = ["datatrove[io,processing]==0.10.1", "lxml_html_clean", "spacy", "orjson"]
RULES = {"gopher_repetition": {}, "gopher_quality": {}, "c4": {}, "fineweb": {}}
OWN = (
    "min_characters max_symbols max_replacement max_repeated_lines max_repeated_paragraphs max_top_ngram "
    "max_repeated_ngrams min_word_length max_word_length"
).split()
"""The filter's own rules, switched off where both sides are to have the same."""
DEDUP = {"methods": [{"minhash": {}}]}
_PAIRS = (
    "afr:af amh:am arb:ar bel:be ben:bn bul:bg cat:ca ces:cs cmn:zh cym:cy dan:da deu:de ell:el eng:en "
    "epo:eo est:et eus:eu fin:fi fra:fr gle:ga glg:gl guj:gu heb:he hin:hi hrv:hr hun:hu hye:hy ibo:ig "
    "ind:id isl:is ita:it jav:jv jpn:ja kan:kn kat:ka kaz:kk khk:mn khm:km kir:ky kor:ko lao:lo lat:la "
    "lav:lv lit:lt mal:ml mar:mr mlt:mt mya:my nep:ne nld:nl nno:nn nob:no pan:pa pes:fa pol:pl por:pt "
    "ron:ro rus:ru slk:sk slv:sl som:so spa:es srp:sr swe:sv swh:sw tam:ta tgk:tg tgl:tl tha:th tur:tr "
    "ukr:uk urd:ur uzn:uz vie:vi xho:xh yor:yo zul:zu"
)
TWO_LETTERS = {pair[:3]: pair[4:] for pair in _PAIRS.split()}
"""Of the declaration's languages: ISO 639-3 → 639-1."""


def main() -> None:
    """Measures what is asked for and writes extract.json, and extract-speed.json."""
    options = common.arguments(
        __doc__ or "",
        web_data.OPTION,
        ("--speed", {"action": "store_true", "help": "time it beside datatrove too, on one core"}),
    )
    web = web_data.web_folder(options.web)
    parts: dict[str, Any] = {}
    if web_data.found(web and web / "article-extraction-benchmark", "extraction"):
        assert web is not None
        parts["articles"] = extraction(web, step=1 if options.full else 6)
    if web_data.found(web and web / "langid" / "udhr.jsonl.gz", "languages"):
        assert web is not None
        parts["languages"] = languages(web)
    if parts:
        common.write_result("extract" if options.full else "extract-quick", parts)
    if options.speed and web is not None and web_data.all_pages(web):
        common.write_result(
            "extract-speed" if options.full else "extract-speed-quick", speed(web, options.full)
        )


# Quality


def extraction(web: Path, step: int) -> dict[str, Any]:
    """Scores both extractors on every so many pages of the benchmark."""
    from kogata.core.registry import registry
    from kogata.engine.web.charset import decode_page

    pages = [(decode_page(content)[0], truth) for _, content, truth in web_data.articles(web)][::step]
    result: dict[str, Any] = {"pages": len(pages), "extractors": {}}
    for name, bar in F1_BARS.items():
        variant = registry.variant("engine.extract", name)
        extract = variant.extractor(variant.Settings())
        texts = [extract(html, "") for html, _ in pages]
        scores = [score(truth, text) for (_, truth), text in zip(pages, texts, strict=True)]
        precision = statistics.mean(found for found, _ in scores if found is not None)
        recall = statistics.mean(found for _, found in scores if found is not None)
        f1 = 2 * precision * recall / (precision + recall)
        result["extractors"][name] = {
            "f1": f1,
            "precision": precision,
            "recall": recall,
            "bar": bar,
            "reached": f1 >= bar,
            "by_page": [[None if part is None else round(part, 4) for part in row] for row in scores],
        }
        say(f"{name}: F1 {f1:.4f}, precision {precision:.4f}, recall {recall:.4f}")
    return result


def score(truth: str, text: str) -> tuple[float | None, float | None]:
    """Gives precision and recall of one page as the benchmark defines them; None where it counts none."""
    wanted, given = four_grams(truth), four_grams(text)
    both = sum((wanted & given).values())
    more, missing = sum((given - wanted).values()), sum((wanted - given).values())
    return (
        both / (both + more) if both + more else None,
        both / (both + missing) if both + missing else None,
    )


def four_grams(text: str) -> Counter[tuple[str, ...]]:
    """Counts runs of four words; fewer words are one run."""
    words = re.findall(r"\w+", text)
    return Counter(tuple(words[at : at + 4]) for at in range(max(1, len(words) - 3))) if words else Counter()


def languages(web: Path) -> dict[str, Any]:
    """Tells the language of each declaration that the model knows the language of."""
    from kogata.engine.language import CODES, identify

    told = {}
    for row in web_data.rows(web / "langid" / "udhr.jsonl.gz"):
        told[row["lang"]] = identify("\n".join(row["lines"]))[0]
    covered = {name: found for name, found in told.items() if plain(name) in CODES}
    right = [name for name, found in covered.items() if found == plain(name)]
    say(f"languages: {len(right)} of {len(covered)} that the model covers, {len(told)} in all")
    return {
        "right": len(right),
        "covered": len(covered),
        "languages": len(told),
        "share": len(right) / len(covered),
        "bar": LANGUAGE_BAR,
        "reached": len(right) >= LANGUAGE_BAR * len(covered),
        "wrong": {name: found for name, found in covered.items() if name not in right},
        "not_covered": sorted(set(told) - set(covered)),
    }


def plain(name: str) -> str:
    """Gives ISO 639-1 for the declaration's name of a language, ISO 639-3 with a script or region."""
    return TWO_LETTERS[re.split(r"[-_]", name)[0].lower()]


# Speed


def speed(web: Path, full: bool) -> dict[str, Any]:
    """Times both sides in turn on one core, from a cold start to the text on disk."""
    core = min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    repeats = 5 if full else 2
    python = common.environment("datatrove", PEER)
    with common.empty_store() as folder:
        inputs = {
            "pages": make_pages(web, folder / "pages", 3200 if full else 320),
            "texts": make_texts(web, folder / "texts", 6000 if full else 1000),
        }
        result: dict[str, Any] = {"core": core, "repeats": repeats, "peer": PEER, "parts": {}}
        for part, documents in inputs.items():
            arms: dict[str, list[dict[str, Any]]] = {"datatrove": [], "kogata": []}
            for turn in range(repeats + 1):
                order = ("datatrove", "kogata") if turn % 2 else ("kogata", "datatrove")
                for side in order:
                    row = peer(python, folder, part) if side == "datatrove" else ours(folder, part)
                    say(f"{part}, {side}: {documents / row['seconds']:.1f} documents/s, kept {row['kept']}")
                    if turn:  # the first round warms up what the disk and the machine's profile give
                        arms[side].append({**row, "documents_per_second": documents / row["seconds"]})
            ratios = [
                theirs["seconds"] / mine["seconds"]
                for theirs, mine in zip(arms["datatrove"], arms["kogata"], strict=True)
            ]
            bar = SPEED_BARS[part]
            result["parts"][part] = {
                "documents": documents,
                "arms": arms,
                "ratios": ratios,
                "median_ratio": statistics.median(ratios),
                "bar": bar,
                "reached": statistics.median(ratios) >= bar,
            }
            say(f"{part}: {statistics.median(ratios):.2f} times as fast, bar {bar}")
        return result


def make_pages(web: Path, folder: Path, count: int) -> int:
    """Writes an archive of so many pages: those there are, again under other addresses as need be."""
    folder.mkdir()
    pages = web_data.all_pages(web)
    chosen = [(f"{pages[at % len(pages)][0]}?{at}", pages[at % len(pages)][1]) for at in range(count)]
    random.Random(0).shuffle(chosen)
    return web_data.write_warc(folder / "crawl.warc.gz", chosen)


def make_texts(web: Path, folder: Path, count: int) -> int:
    """Writes so many texts: C4's and the articles', their paragraphs in another order each time around."""
    folder.mkdir()
    texts: list[str] = []
    if (web / "c4-sample.jsonl.gz").is_file():
        texts += [row["text"] for row in web_data.rows(web / "c4-sample.jsonl.gz")]
    if (web / "article-extraction-benchmark").is_dir():
        texts += [text for _, _, text in web_data.articles(web) if text]
    chance = random.Random(0)

    def made(at: int) -> str:
        parts = re.split(r"(?<=[.!?]) +|\n+", texts[at % len(texts)])
        if at >= len(texts):
            chance.shuffle(parts)
        return "\n".join(" ".join(parts[start : start + 4]) for start in range(0, len(parts), 4))

    return web_data.write_rows(folder / "texts.jsonl.gz", ((str(at), made(at)) for at in range(count)))


def ours(folder: Path, part: str) -> dict[str, Any]:
    """Runs Kogata's recipe; the clock is that of the whole command."""
    rules = {"data.filter": {**dict.fromkeys(OWN), "rules": RULES}}
    read: dict[str, Any] = {"data.extract": {"path": str(folder / "pages"), "heldout": 0}}
    if part == "texts":
        columns = {"text": "text", "id": "id"}
        read = {
            "data.read": {
                "path": str(folder / "texts"), "kind": "corpus", "columns": columns, "heldout": 0
            }
        }  # fmt: skip
    name = f"ours-{part}"
    path = common.recipe(folder, name, {"stages": [read, rules, {"data.dedup": DEDUP}]})
    again = [word for stage in (next(iter(read)), "data.filter", "data.dedup") for word in ("--fresh", stage)]
    done = common.kogata("run", str(path), *again, cwd=folder)
    from kogata.runtime.ledger import read_receipts

    made = [item for item in read_receipts(folder / "runs" / name) if item.stage == "data.dedup"][-1]
    return {"seconds": done["wall_seconds"], "kept": made.facts["splits"]["train"]["documents"]}


def peer(python: Path, folder: Path, part: str) -> dict[str, Any]:
    """Runs datatrove's pipeline; the clock is that of the whole process."""
    script = Path(__file__).parent / "peers" / "datatrove_pipeline.py"
    work = folder / f"peer-{part}"
    start = time.perf_counter()
    row = common.run_peer(python, str(script), part, str(folder / part), str(work), cwd=folder)
    return {"seconds": time.perf_counter() - start, **row}


def say(text: str) -> None:
    """Says how it goes."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
