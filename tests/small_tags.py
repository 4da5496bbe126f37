"""Small rows with marked spans, of words that the small encoders' tokenizer knows, for tests."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from kogata.core.artifact import Artifact, Kind
from kogata.engine.examples import Example, ExamplesWriter
from kogata.engine.tag_rows import tagged_fields

NAMES = {
    "THING": (["card"], ["new", "card"], ["atm"]),
    "ACT": (["money", "transfer"],),
    "動物": (["猫"], ["犬"]),
}
OTHERS = "the a my is lost when will how do i can help please を が".split()

Tagged = tuple[list[str], list[str]]


def tagged(count: int, seed: int = 0) -> list[Tagged]:
    """Gives rows of tokens and IOB2 tags; what a word is decides its tag, so that it can be learned."""
    chance = random.Random(seed)
    found = []
    for _ in range(count):
        words: list[str] = []
        tags: list[str] = []
        for _ in range(chance.randint(4, 8)):
            if chance.random() < 0.35:
                label = chance.choice(sorted(NAMES))
                name = chance.choice(NAMES[label])
                words += name
                tags += [f"B-{label}", *[f"I-{label}"] * (len(name) - 1)]
            else:
                words.append(chance.choice(OTHERS))
                tags.append("O")
        found.append((words, tags))
    return found


def tags_artifact(folder: Path, *, texts: bool = False, **splits: list[Tagged]) -> Artifact:
    """Writes tagged rows as an examples artifact; `texts`: as texts with spans, their tokens not known."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for split, some in splits.items():
        rows[split] = []
        for words, tags in some:
            made = tagged_fields(words, tags, ("tokens", "tags"))
            assert isinstance(made, tuple), made
            fields = made[0]
            rows[split].append({k: v for k, v in fields.items() if k != "tokens"} if texts else fields)
    return fields_artifact(folder, **rows)


def fields_artifact(folder: Path, **splits: list[dict[str, Any]]) -> Artifact:
    """Writes rows of fields as an examples artifact."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = ExamplesWriter(folder)
    for split, rows in splits.items():
        for number, fields in enumerate(rows):
            source = f"{split}.jsonl:{number + 1}"
            writer.write(Example(id=source, form="tags", source=source, fields=fields), split)
    return Artifact(kind=Kind.EXAMPLES, digest="tags", path=folder, facts=writer.close())
