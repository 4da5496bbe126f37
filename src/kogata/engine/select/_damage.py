"""Damage that a pool of examples itself teaches to see: answers of other questions, answers cut off.

Most of a pool is sound. So its rows are damaged on purpose: each question gets the answer of another row,
each answer is cut at a place by chance. A logistic regression for each kind learns on some folds of the pool
to tell these from the rows as they are, and judges the other. No model of language and no list of words is
needed: what is looked at is how an answer looks beside its question, what it shares with it, and its end.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from zlib import crc32

import numpy as np

from kogata.engine.ngrams import mix, normalised, units_of
from kogata.engine.select._pool import chance

WORD = re.compile(r"\w+")
LAST_CHARACTERS = 40
"""Of an answer, among which its last word is looked for."""
LOOKS = 8
"""Places, or longer words, that are looked at."""
BUCKETS = 2**15
STYLE = 12
"""Units of a question's beginning, and as many of its end, that may say what is asked for."""
COMMON = 0.004
"""Share of the questions that a unit stands in which says what is asked for."""
SHORT = 12
"""Characters of an answer that is known as a whole; longer ones are cut on purpose."""
FOLDS = 3
STRENGTH = 0.3


@dataclass(frozen=True)
class Row:
    """A question and an answer, as they are compared."""

    question: str
    answer: str
    asked: list[int]
    told: list[int]


class Looks:
    """What is looked at in a question and an answer, and how common it is in the pool."""

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        questions = [normalised(question) for question, _ in pairs]
        answers = [answer.strip() for _, answer in pairs]
        asked, told = _units(questions), _units(answers)
        self.rows = [Row(*row) for row in zip(questions, answers, asked, told, strict=True)]
        self.spread: Counter[int] = Counter()
        """In how many rows a unit stands."""
        self.inside: Counter[int] = Counter()
        """How often a unit, or two in a row, stands in answers before their end."""
        self.ends: Counter[int] = Counter()
        for row in self.rows:
            self.spread.update({*row.asked, *row.told})
            self.inside.update(row.told[:-1])
            self.inside.update(_two(*two) for two in pairwise(row.told[:-1]))
            self.ends.update(_last(row.told))
        in_questions = Counter(unit for row in self.rows for unit in set(row.asked))
        least = max(3, COMMON * len(self.rows))
        self.common = {unit for unit, count in in_questions.items() if count >= least}
        self._words = [set(WORD.findall(row.question)) for row in self.rows]
        """Words of each row's question."""
        answered = [set(WORD.findall(normalised(row.answer))) for row in self.rows]
        self._own = [asked | told for asked, told in zip(self._words, answered, strict=True)]
        self.known: Counter[str] = Counter(word for words in self._own for word in words)
        self._vocabulary = sorted(self.known)
        folded = sorted((normalised(row.answer), at) for at, row in enumerate(self.rows))
        self._sorted = [answer for answer, _ in folded]
        self._whose = [at for _, at in folded]

    def style(self, row: Row) -> np.ndarray:
        """Gives what says what is asked for: common units of a question's beginning and end."""
        around = [*row.asked[:STYLE], *row.asked[-STYLE:]]
        found = {unit for unit in around if unit in self.common}
        found |= {_two(*two) for two in pairwise(around) if two[0] in self.common and two[1] in self.common}
        return np.array([7, *sorted(found)], dtype=np.uint64)

    def fit(self, at: int, row: Row) -> np.ndarray:
        """Lists how an answer suits its question; `at` is the row the question is of."""
        asked = set(row.asked)
        shared = sum(unit in asked for unit in row.told) / max(1, len(row.told))
        count = len(self.rows)
        rare = [unit for unit in set(row.told) if self.spread[unit] <= 2 + 0.01 * count]
        known = sum(unit in asked for unit in rare)
        inside = bool(row.answer) and normalised(row.answer) in row.question
        size = _size(len(row.answer))
        shape = (_class(row.answer[:1]), _class(row.answer[-1:]))
        found = [
            ("shared", round(4 * shared), inside),
            ("rare", min(3, len(rare)), min(2, known)),
            ("size", size, inside),
            ("shape", shape),
        ]
        crossed = [("size", size), ("inside", inside), ("shape", shape), ("shared", round(3 * shared))]
        crossed += [("known", min(2, len(rare)), min(1, known))]
        if len(row.answer) <= SHORT:
            crossed.append(("whole", row.answer))
            found.append(("whole", row.answer))
        elif row.told:
            crossed.append(("first", row.told[0]))
        return _hashed(found, self.style(row), crossed)

    def end(self, at: int, row: Row) -> np.ndarray:
        """Lists how an answer ends; `at` is the row it is of, whose own use of its words does not count."""
        own = self.rows[at]
        last = row.told[-1] if row.told else 0
        seen = self.spread[last] - (last in own.told or last in own.asked)
        two = _last(row.told)[-1] if row.told else 0
        states = []
        ends_of_one = self.ends[last] - (last in _last(own.told))
        for unit in (last, two):
            ends = self.ends[unit] - (unit in _last(own.told))
            inside = self.inside[unit] - _count(own.told[:-1], unit)
            states.append((_size(ends), _size(max(0, inside))))
        after, word = self._after(row), self._word(at, row)
        shape = _class(row.answer[-1:])
        opened = sum(row.answer.count(sign) for sign in "([{「『（") - sum(
            row.answer.count(sign) for sign in ")]}」』）"
        )
        size = _size(len(row.answer))
        found = [
            ("seen", _size(seen)),
            ("ends", states[0]),
            ("ends of two", states[1]),
            ("after", after),
            ("shape", shape),
            ("open", opened > 0, row.answer.count('"') % 2),
            ("begins", self._begins(at, row), min(4, size)),
            ("last", last),
            ("sign", row.answer[-1:] if not row.answer[-1:].isascii() or shape == "sign" else ""),
            ("ends, seen", states[0][0] > 0, _size(seen)),
            word,
            ("word", *word, _size(ends_of_one)),
            ("word", word[:3], states[0][0] > 0),
        ]
        crossed = [("shape", shape), ("after", after), ("size", size), ("both", shape, after)]
        return _hashed(found, self.style(row), crossed)

    def _word(self, at: int, row: Row) -> tuple:
        """Says whether the last word is one: the question has it, others have it, or only longer ones."""
        found = WORD.search(normalised(row.answer[-LAST_CHARACTERS:])[::-1])
        if found is None or found.start() > 0:
            return ("no word",)
        word = found.group()[::-1]
        here = self._words[at]
        longer = any(one.startswith(word) and one != word for one in here)
        others = self.known[word] - (word in self._own[at])
        place = bisect_right(self._vocabulary, word)
        next_words = self._vocabulary[place : place + LOOKS]
        begun = any(one.startswith(word) and self.known[one] > (one in self._own[at]) for one in next_words)
        return ("word", word in here, longer, min(3, _size(others)), begun, min(4, len(word)))

    def _after(self, row: Row) -> str:
        """Says what follows the answer where its question has it; the best of all places."""
        answer = normalised(row.answer)
        if not answer:
            return "empty"
        found, place, looks = "absent", row.question.find(answer), 0
        while place >= 0 and looks < LOOKS:
            following = row.question[place + len(answer) : place + len(answer) + 1]
            here = _class(following)
            if here in ("", "sign") or following == "\n":
                return "boundary"
            found = "space" if following.isspace() or found == "space" else "within"
            place, looks = row.question.find(answer, place + 1), looks + 1
        return found

    def _begins(self, at: int, row: Row) -> bool:
        """Says whether another row's answer begins with this one and goes on."""
        answer = normalised(row.answer)
        if not answer:
            return False
        place = bisect_right(self._sorted, answer)
        for other in range(place, min(len(self._sorted), place + 3)):
            if not self._sorted[other].startswith(answer):
                return False
            if self._whose[other] != at:
                return True
        return False


def judged(pairs: Sequence[tuple[str, str]], seed: int, tick: Callable[[], None]) -> dict[str, Any]:
    """Judges every row by what was learned of others.

    Returns:
        for `fit` and `end`: the log odds of each row, and of each damaged one, that it is damaged; NaN for a
        row that was not damaged.
    """
    looks = Looks(pairs)
    draw = chance(seed, 12)
    fold = draw.permutation(len(pairs)) % FOLDS
    other = _others(looks.rows, draw)
    cuts = [_cut(row.answer, draw) for row in looks.rows]
    cut_units = _units([answer or "" for answer in cuts])
    found: dict[str, Any] = {}
    for kind in ("fit", "end"):
        look = getattr(looks, kind)
        plain, damaged = [], []
        for at, row in enumerate(looks.rows):
            if not at % 1024:
                tick()
            plain.append(look(at, row))
            if kind == "fit":
                its = looks.rows[other[at]]
                made = Row(row.question, its.answer, row.asked, its.told)
                damaged.append(look(at, made) if its.answer != row.answer else None)
            else:
                answer = cuts[at]
                made = None if answer is None else Row(row.question, answer, row.asked, cut_units[at])
                damaged.append(None if made is None else look(at, made))
        found[kind] = _crosswise(plain, damaged, fold)
    return found


def _crosswise(
    plain: list[np.ndarray], damaged: list[np.ndarray | None], fold: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Learns on all folds but one and judges that one, in turn."""
    import torch

    from kogata.engine.classify._linear import fit

    scores, planted = np.zeros(len(plain)), np.full(len(plain), np.nan)
    for number in range(FOLDS):
        there = np.flatnonzero(fold != number)
        made = [row for at in there if (row := damaged[at]) is not None]
        if not made:
            continue
        # All rows as they are, those too that are too short to be damaged: their answers are not cut off.
        rows = _matrix([*(plain[at] for at in there), *made])
        model = fit(rows, torch.tensor([0] * len(there) + [1] * len(made)), 2, STRENGTH)
        here = np.flatnonzero(fold == number)
        scores[here] = _odds(model, [plain[at] for at in here])
        some = [at for at in here if damaged[at] is not None]
        planted[some] = _odds(model, [row for at in some if (row := damaged[at]) is not None])
    return scores, planted


def _odds(model: Any, rows: list[np.ndarray]) -> np.ndarray:
    if not rows:
        return np.zeros(0)
    logits = model.logits(_matrix(rows)).numpy()
    return logits[:, 1] - logits[:, 0]


def _matrix(rows: list[np.ndarray]) -> Any:
    from kogata.engine.classify._linear import SparseRows

    starts = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    columns = np.concatenate(rows)
    return SparseRows(starts, columns, np.ones(len(columns), dtype=np.float32), BUCKETS)


def _others(rows: Sequence[Row], draw: np.random.Generator) -> np.ndarray:
    """Draws for each row another one, whose answer differs where it can be found."""
    count = len(rows)
    other = draw.integers(count, size=count)
    for _ in range(8):
        same = np.array([rows[at].answer == rows[o].answer for at, o in enumerate(other)], dtype=bool)
        other[same] = draw.integers(count, size=int(same.sum()))
    return other


def _cut(answer: str, draw: np.random.Generator) -> str | None:
    at = int(draw.integers(len(answer) // 5 + 1, max(2, len(answer) * 4 // 5 + 2)))
    return answer[:at].rstrip() if len(answer) > SHORT else None


def _units(texts: Sequence[str]) -> list[list[int]]:
    units, bounds = units_of(texts)
    numbers = units.tolist()
    return [numbers[start:stop] for start, stop in pairwise(bounds.tolist())]


def _two(first: int, second: int) -> int:
    return (first * 0x9E3779B97F4A7C15 + second) % 2**64


def _last(told: list[int]) -> tuple[int, ...]:
    return (told[-1], _two(*told[-2:])) if len(told) > 1 else tuple(told[-1:])


def _count(told: list[int], unit: int) -> int:
    return told.count(unit) + sum(_two(*two) == unit for two in pairwise(told))


def _size(count: float) -> int:
    return int(count).bit_length()


def _class(char: str) -> str:
    if not char:
        return ""
    if char.isdigit():
        return "digit"
    if char.isalpha():
        return "upper" if char.isupper() else "lower" if char.islower() else "letter"
    return "space" if char.isspace() else "sign"


def _hashed(alone: list[tuple], style: np.ndarray, crossed: list[tuple]) -> np.ndarray:
    """Gives the buckets of what was seen, some of it together with each unit of the question's style."""
    numbers = [crc32(repr(one).encode("utf-8", "surrogatepass")) for one in (*alone, *crossed)]
    seen = np.array(numbers, dtype=np.uint64)
    both = mix(style[:, None] ^ (seen[None, len(alone) :] << np.uint64(32)))
    return np.unique(np.concatenate([seen[: len(alone)], both.ravel()]) % np.uint64(BUCKETS)).astype(np.int64)
