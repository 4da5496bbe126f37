"""Minimal pairs: how often a model finds the grammatical one of two sentences likelier (as BLiMP asks)."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from kogata.core.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two sentences that differ in one point of grammar."""

    paradigm: str
    good: str
    bad: str


def bundled_pairs() -> list[Pair]:
    """Gives the pairs that come with Kogata: 25 of each of 34 paradigms of BLiMP (English)."""
    content = (files("kogata") / "data" / "minimal_pairs_en.jsonl.gz").read_bytes()
    return _parse(gzip.decompress(content).decode("utf-8"), "minimal_pairs_en.jsonl.gz")


def read_pairs(path: Path) -> list[Pair]:
    """Reads pairs of a user's own: JSON lines with `good` and `bad` (or BLiMP's names) and maybe `paradigm`.

    Raises:
        DataError: the file is missing, or a line is no pair.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            "the minimal pairs cannot be read",
            where=str(path),
            found=str(error.strerror),
            expected="a .jsonl file",
        ) from None
    try:
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(
            "the minimal pairs cannot be read",
            where=str(path),
            found=str(error),
            expected="JSON lines in UTF-8",
        ) from None
    return _parse(text, str(path))


def _parse(text: str, where: str) -> list[Pair]:
    pairs: list[Pair] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            good, bad = (row.get(name, row.get(f"sentence_{name}")) for name in ("good", "bad"))
            assert isinstance(good, str) and isinstance(bad, str) and good and bad
        except (ValueError, AttributeError, AssertionError):
            raise DataError(
                "a line is no minimal pair",
                where=f"{where}, line {number}",
                found=line[:120],
                expected='{"good": "The cats sleep.", "bad": "The cats sleeps."}',
            ) from None
        pairs.append(Pair(paradigm=str(row.get("paradigm", row.get("UID", "all"))), good=good, bad=bad))
    if not pairs:
        raise DataError("no minimal pairs", where=where, found="an empty file", expected="one pair a line")
    return pairs


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """A share of right choices with its standard error."""

    accuracy: float
    standard_error: float
    n: int
    by_paradigm: dict[str, dict[str, float]]

    def to_dict(self) -> dict[str, Any]:
        """Gives plain values for JSON."""
        return {
            "accuracy": self.accuracy,
            "standard_error": self.standard_error,
            "n": self.n,
            "by_paradigm": self.by_paradigm,
        }


def judge(
    model: Any,
    encode: Callable[[list[str]], list[list[int]]],
    pairs: Iterable[Pair],
    *,
    end_id: int,
    progress: Callable[[int], None] | None = None,
) -> Accuracy:
    """Compares the summed log-probabilities of each pair, the end token before each sentence.

    A tie is wrong. The standard error is that of a share of independent answers.
    """
    from kogata.engine.evaluate import token_losses

    chosen = list(pairs)
    sentences = [sentence for pair in chosen for sentence in (pair.good, pair.bad)]
    pieces = [([end_id, *ids][:-1], ids) for ids in encode(sentences)]
    losses = [math.fsum(row) for row in token_losses(model, pieces, progress=progress)]
    right: dict[str, list[bool]] = {}
    for pair, good, bad in zip(chosen, losses[::2], losses[1::2], strict=True):
        right.setdefault(pair.paradigm, []).append(good < bad)
    answers = [answer for found in right.values() for answer in found]
    return Accuracy(
        **_share(answers),
        n=len(answers),
        by_paradigm={name: {**_share(found), "n": len(found)} for name, found in sorted(right.items())},
    )


def _share(answers: list[bool]) -> dict[str, float]:
    p = sum(answers) / len(answers)
    return {"accuracy": p, "standard_error": math.sqrt(p * (1 - p) / len(answers))}
