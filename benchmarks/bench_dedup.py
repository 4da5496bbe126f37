"""Near-duplicates against exact Jaccard similarity, and the memory that a large corpus takes.

- natural variants: what several ways of extraction make of the same pages, English and Japanese;
- planted edits: passages of novels and of Japanese stories with words (characters) replaced, put in and
  taken out, at similarities around the threshold;
- memory: the peak of the stage's processes over 200,000 documents, a fifth of them near-duplicates, at the
  default `memory` and at a small one.

The truth is counted apart from Kogata's code: of every two documents that share a run of five words (or
characters), the exact Jaccard similarity of their sets of runs. Recall: of all pairs at 0.8 or more, how many
lost at least one of the two. Precision: of all documents left out, how many are at 0.8 or more to the one
they are said to duplicate.

    python benchmarks/bench_dedup.py --full [--web FOLDER]
"""

from __future__ import annotations

import gzip
import json
import random
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import common
import numpy as np
import web_data

THRESHOLD, NGRAM = 0.8, 5
BAR = 0.99
MEMORY_BAR = 2**30
BUCKETS = (0.8, 0.85, 0.9, 0.95, 1.0)
WAYS = {
    "fast": ("fast", {}),
    "whole": ("fast", {"main_content": False}),
    "careful": ("careful", {}),
    "second_look": ("careful", {"second_look": True}),
    "no_tables": ("careful", {"tables": False}),
}
ALONE = re.compile(
    "[\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3040-\u30ff\u31f0-\u31ff\u3400-\u9fff\uf900-\ufaff]"
)
Texts = list[tuple[str, str]]


def main() -> None:
    """Measures both and writes dedup.json."""
    options = common.arguments(__doc__ or "", web_data.OPTION)
    web = web_data.web_folder(options.web)
    texts = planted(1500 if options.full else 200)
    if web_data.found(web and web / "docs-html-pages.jsonl.gz", "natural variants"):
        assert web is not None
        texts += variants(web, 1 if options.full else 8)
    random.Random(1).shuffle(texts)
    with common.empty_store() as folder:
        parts = {"threshold": THRESHOLD, "ngram": NGRAM, "near_duplicates": judged(folder, texts)}
        parts["memory"] = memory(folder, 200_000 if options.full else 20_000)
    common.write_result("dedup" if options.full else "dedup-quick", parts)


# Texts


def planted(count: int) -> Texts:
    """Makes passages and edits of them, English and Japanese, at similarities from about 0.6 to 1."""
    chance = random.Random(0)
    data = common.ROOT / "examples" / "data"
    novels = [
        word
        for path in sorted((data / "novels").glob("*.txt.gz"))[:8]
        for word in gzip.decompress(path.read_bytes()).decode().split()
    ]
    rows = web_data.rows(data / "aozora" / "works.jsonl.gz")
    stories = [char for row in rows for char in row["text"] if not char.isspace()]
    made: Texts = []
    for number in range(count):
        language, units, joint = (("en", novels, " "), ("ja", stories, ""))[number % 2]
        length = chance.choice([15, 40, 120, 400, 1200])
        start = chance.randrange(len(units) - length)
        passage = units[start : start + length]
        made.append((f"planted-{language}-{number}-0", joint.join(passage)))
        for turn in range(1, 3):
            # An edit changes up to five runs of both: a share e of the runs edited leaves (1 - e) / (1 + e).
            wanted = chance.uniform(0.6, 1.0)
            edits = round(length * (1 - wanted) / (1 + wanted) / NGRAM)
            text = joint.join(edited(passage, units, edits, chance))
            made.append((f"planted-{language}-{number}-{turn}", text))
    return made


def edited(passage: list[str], units: list[str], edits: int, chance: random.Random) -> list[str]:
    """Replaces, puts in or takes out some units."""
    found = list(passage)
    for _ in range(edits):
        at = chance.randrange(len(found))
        kind = chance.randrange(3)
        found[at : at + (kind != 1)] = [] if kind == 2 else [chance.choice(units)]
    return found


def variants(web: Path, step: int) -> Texts:
    """Extracts every so many pages in several ways; the text that people marked is one more variant."""
    from kogata.core.registry import registry
    from kogata.engine.web.charset import decode_page

    pages: list[tuple[str, str, str]] = []
    if (web / "article-extraction-benchmark").is_dir():
        pages += [(f"en-{name}", decode_page(raw)[0], text) for name, raw, text in web_data.articles(web)]
    for row in web_data.rows(web / "docs-html-pages.jsonl.gz"):
        pages.append((f"{row['lang']}-{row['id']}", row["html"], row["main_text"]))
    made: Texts = []
    extractors = {}
    for way, (name, settings) in WAYS.items():
        variant = registry.variant("engine.extract", name)
        extractors[way] = variant.extractor(variant.Settings(**settings))
    for name, html, marked in pages[::step]:
        made.append((f"variant-{name}-marked", marked))
        made += [(f"variant-{name}-{way}", extract(html, "")) for way, extract in extractors.items()]
    return [(name, text) for name, text in made if text.strip()]


# The truth


def units_of(text: str) -> list[str]:
    """Cuts a text into words in small letters, and characters of Japanese and Chinese."""
    found: list[str] = []
    word = ""
    for char in unicodedata.normalize("NFKC", text).lower():
        part = char.isalnum() or unicodedata.category(char)[0] == "M"
        if part and not ALONE.match(char):
            word += char
            continue
        if word:
            found.append(word)
        word = ""
        if part:
            found.append(char)
    return [*found, word] if word else found


def runs_of(text: str) -> np.ndarray:
    """Gives the set of a text's runs, as sorted numbers."""
    units = units_of(text)
    runs = {hash(tuple(units[at : at + NGRAM])) for at in range(max(1, len(units) - NGRAM + 1))}
    return np.array(sorted(runs if units else ()), dtype=np.int64)


def similar_pairs(sets: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Gives every pair at the threshold or more, [pairs, 2], and its exact similarity."""
    sizes = np.array([len(one) for one in sets], dtype=np.int64)
    owner = np.repeat(np.arange(len(sets)), sizes)
    runs = np.concatenate(sets)
    order = np.argsort(runs, kind="stable")
    runs, owner = runs[order], owner[order]
    edges = np.flatnonzero(np.concatenate([[True], runs[1:] != runs[:-1], [True]]))
    lengths = np.diff(edges)
    common_runs: Counter[int] = Counter()
    for length in np.unique(lengths[lengths > 1]).tolist():
        first, second = np.triu_indices(length, 1)
        starts = edges[:-1][lengths == length]
        most = max(1, 4_000_000 // len(first))
        for at in range(0, len(starts), most):
            members = owner[starts[at : at + most, None] + np.arange(length)]
            codes = members[:, first] * len(sets) + members[:, second]
            different, counts = np.unique(codes, return_counts=True)
            common_runs.update(dict(zip(different.tolist(), counts.tolist(), strict=True)))
    codes = np.fromiter(common_runs, dtype=np.int64, count=len(common_runs))
    both = np.fromiter(common_runs.values(), dtype=np.int64, count=len(common_runs))
    pairs = np.stack([codes // len(sets), codes % len(sets)], axis=1)
    similarity = both / (sizes[pairs].sum(axis=1) - both)
    near = similarity >= THRESHOLD
    return pairs[near], similarity[near]


# What Kogata finds


def judged(folder: Path, texts: Texts) -> dict[str, Any]:
    """Compares what data.dedup leaves out with the truth."""
    (folder / "near").mkdir()
    web_data.write_rows(folder / "near" / "texts.jsonl.gz", texts)
    sets = [runs_of(text) for _, text in texts]
    pairs, similarity = similar_pairs(sets)
    names = [name for name, _ in texts]
    place = {name: at for at, name in enumerate(names)}
    artifact, facts = deduplicated(folder, "near", {})
    dropped: dict[int, int] = {}
    for line in clusters(artifact):
        for member in line["dropped"]:
            dropped[place[member["id"]]] = place[member.get("of", line["kept"])]
    left = np.array([a not in dropped and b not in dropped for a, b in pairs.tolist()], dtype=bool)
    together = brought_together([text for _, text in texts], pairs)
    right = [jaccard(sets[one], sets[other]) >= THRESHOLD - 1e-9 for one, other in dropped.items()]
    kinds = np.array([kind_of(names[a]) for a, _ in pairs.tolist()])
    result: dict[str, Any] = {
        "documents": len(texts),
        "pairs": len(pairs),
        "pairs_left_in": int(left.sum()),
        "recall": float(1 - left.mean()),
        "dropped": len(dropped),
        "dropped_wrongly": right.count(False),
        "precision": sum(right) / len(right),
        "brought_together": float(together.mean()),
        "compared": facts["minhash"]["compared"],
        "by_kind": {
            kind: {
                "pairs": int((kinds == kind).sum()),
                "recall": float(1 - left[kinds == kind].mean()),
                "brought_together": float(together[kinds == kind].mean()),
            }
            for kind in sorted(set(kinds.tolist()))
        },
        "by_similarity": [],
        "bar": BAR,
    }
    for low, high in zip(BUCKETS, (*BUCKETS[1:], 2.0), strict=True):
        inside = (similarity >= low) & (similarity < high)
        row = {"from": low, "pairs": int(inside.sum())}
        if inside.any():
            row |= {
                "recall": float(1 - left[inside].mean()),
                "brought_together": float(together[inside].mean()),
            }
        result["by_similarity"].append(row)
    result["reached"] = result["recall"] >= BAR and result["precision"] >= BAR
    say(f"{len(pairs)} pairs: recall {result['recall']:.4f}, precision {result['precision']:.4f}")
    return result


def kind_of(name: str) -> str:
    """Gives `planted-en`, `variant-ja` and so on."""
    return "-".join(name.split("-")[:2])


def jaccard(one: np.ndarray, other: np.ndarray) -> float:
    """Gives the exact similarity of two sets."""
    both = len(np.intersect1d(one, other, assume_unique=True))
    return both / (len(one) + len(other) - both)


def brought_together(texts: list[str], pairs: np.ndarray) -> np.ndarray:
    """Says of each pair whether any band of the sketches brings it together."""
    from kogata.engine.dedup._sketch import band_keys, bands_for, sets_of, sketch

    bands, rows = bands_for(THRESHOLD)
    parts = []
    for at in range(0, len(texts), 200):
        values, starts = sets_of(texts[at : at + 200], NGRAM)
        parts.append(band_keys(sketch(values, starts, bands * rows), bands, rows))
    keys = np.concatenate(parts, axis=1)
    return (keys[:, pairs[:, 0]] == keys[:, pairs[:, 1]]).any(axis=0)


def deduplicated(folder: Path, name: str, settings: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    """Runs the recipe; gives the corpus's folder and what the stage tells, its peak memory among it."""
    from kogata.runtime.ledger import read_receipts

    columns = {"text": "text", "id": "id"}
    read = {"path": str(folder / name), "kind": "corpus", "columns": columns, "heldout": 0}
    dedup = {"methods": [{"minhash": {"threshold": THRESHOLD, "ngram": NGRAM}}], **settings}
    path = common.recipe(folder, name, {"stages": [{"data.read": read}, {"data.dedup": dedup}]})
    common.kogata("run", str(path), cwd=folder)
    made = [item for item in read_receipts(folder / "runs" / name) if item.stage == "data.dedup"][-1]
    assert made.path is not None and made.cost is not None
    account = made.facts["account"]
    return Path(made.path), {**account["extra"], "peak_bytes": made.cost.peak_bytes, "account": account}


def clusters(artifact: Path) -> Iterator[dict[str, Any]]:
    """Yields the lines that say what duplicated what."""
    import zstandard

    with (artifact / "clusters.jsonl.zst").open("rb") as file:
        text = zstandard.ZstdDecompressor().stream_reader(file).read().decode()
    yield from map(json.loads, text.splitlines())


# Memory


def memory(folder: Path, count: int) -> dict[str, Any]:
    """Deduplicates a large corpus with the default memory and with little; gives the peaks."""
    (folder / "large").mkdir()
    size = write_large(folder / "large" / "texts.jsonl.gz", count)
    result: dict[str, Any] = {"documents": count, "bytes": size, "bar": MEMORY_BAR, "peak_bytes": {}}
    for name, settings in (("default", {}), ("16MiB", {"memory": "16MiB"})):
        _, facts = deduplicated(folder, "large", settings)
        result["peak_bytes"][name] = facts["peak_bytes"]
        result["dropped"] = sum(facts["account"]["reasons"].values())
        say(f"{count} documents, memory {name}: peak {facts['peak_bytes'] / 2**20:.0f} MiB")
    result["reached"] = max(result["peak_bytes"].values()) < MEMORY_BAR
    return result


def write_large(path: Path, count: int) -> int:
    """Writes documents of sentences of novels, each fifth a former one with a few words changed."""
    chance = random.Random(2)
    novels = sorted((common.ROOT / "examples" / "data" / "novels").glob("*.txt.gz"))
    sentences = [
        sentence
        for novel in novels
        for sentence in re.split(r"(?<=[.!?]) +|\n+", gzip.decompress(novel.read_bytes()).decode())
        if 20 < len(sentence) < 400
    ]
    recent: list[str] = []
    size = 0

    def texts() -> Iterator[tuple[str, str]]:
        nonlocal size
        for number in range(count):
            if number % 5 == 4:
                words = chance.choice(recent).split(" ")
                for _ in range(2):
                    words[chance.randrange(len(words))] = "changed"
                text = " ".join(words)
            else:
                text = " ".join(chance.choices(sentences, k=chance.randrange(8, 25)))
                recent.append(text)
                if len(recent) > 5000:
                    recent[chance.randrange(len(recent))] = recent.pop()
            size += len(text.encode())
            yield str(number), text

    web_data.write_rows(path, texts())
    return size


def say(text: str) -> None:
    """Says how it goes."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
