"""Soundness: what is no copy, not cut off and no other question's answer; of that some by chance."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from kogata.core.variants import VariantSettings
from kogata.engine.dedup._sketch import band_keys, bands_for, jaccard, sets_of, sketch
from kogata.engine.examples import Example
from kogata.engine.ngrams import mix, runs_of, units_of
from kogata.engine.select._damage import judged
from kogata.engine.select._pool import Pool, chance
from kogata.engine.select._steps import Arrays

NEEDS = frozenset({"examples"})
SPREADS = True
"""Several processes can judge, where there are more rows than are judged together."""
BYTES_PER_SECOND = 1e6
ITEM_SECONDS, STEP_SECONDS = 0.0007, 0.0023
"""Of a row; the second is of judging, which several processes share."""
TORCH_BYTES = 250 * 2**20
"""Of torch in each further process."""
TEXT_COPIES, HELD_COPIES = 10, 30
"""Memory by the bytes of the text: of the whole pool, and of the rows judged together."""
NAMES = {"fit": "another question's answer", "end": "an answer that is cut off"}
KINDS = tuple(NAMES)
LEAST_ROWS = 60
"""Rows below which there is too little to learn damage from."""
TOGETHER = 10_000
"""Rows that are judged together; a larger pool is dealt out by chance."""
ALIKE, LEAST_ALIKE = 0.9, 0.75
"""Share of the words of two questions that both have, of near copies; of the least alike, the shortest."""
FEW_UNITS = 6
"""Words, or characters, below which only what is the same is a copy."""
COMPARED = 8
"""Rows of one band that are compared, the earliest."""
ROUNDS = (0.75, 0.5, 0.25, 0.0)
"""Share of a row that must be new, round by round."""


class Settings(VariantSettings):
    """Keeps sound examples: rules out copies, cut-off and mistaken answers; of the others some by chance.

    Needs no model: the pool's rows are damaged on purpose, and what tells those from the rows as they are
    judges the rows it did not learn from. How many go follows from how well that works. Of what is sound,
    rows stay by chance, so that their mixture remains.
    """

    copies: bool = Field(default=True, description="whether copies go, and near copies with the same answer")
    damaged: bool = Field(default=True, description="whether answers go that look cut off or mistaken")
    alarm_cost: float = Field(
        default=3.0,
        ge=1,
        le=20,
        description="damaged rows that must be found for one sound row more that goes; larger: fewer go",
    )
    varied: bool = Field(
        default=False, description="whether rows stay first whose words the ones before did not have"
    )


def scores(settings: Settings, pool: Pool) -> np.ndarray:
    """Gives minus the place in the order of choice, from 0 to −1; −inf where a row is ruled out."""
    pairs, texts, names = [], [], []
    for item in pool.items():
        assert isinstance(item.source, Example)
        pairs.append((item.source.question(), item.answer))
        texts.append(item.text)
        names.append(item.id)
    if settings.copies:
        for at, first in _copies(pairs).items():
            pool.reasons[at] = f"a copy: of {names[first]}"
    if settings.damaged:
        _rule_out_damaged(pairs, settings.alarm_cost, pool)
    sound = [at for at in range(len(texts)) if at not in pool.reasons]
    mixed = [sound[at] for at in chance(pool.seed, 13).permutation(len(sound))]
    order = _varied(texts, mixed, pool) if settings.varied else mixed
    result = np.full(len(texts), -np.inf)
    result[order] = -np.arange(len(order)) / max(1, len(order))
    return result


def held_bytes(rows: int, size: int) -> int:
    """Forecasts the memory of a pool of so many rows and bytes."""
    return round(TEXT_COPIES * size + HELD_COPIES * size * min(1.0, TOGETHER / max(1, rows)))


def step_bytes(rows: int, size: int) -> int:
    """Forecasts the memory of a further process: torch, and the rows judged together."""
    return TORCH_BYTES + round(HELD_COPIES * size * min(1.0, TOGETHER / max(1, rows)))


def _rule_out_damaged(pairs: list[tuple[str, str]], alarm_cost: float, pool: Pool) -> None:
    """Gives rows that look damaged their reason: the more telling of two."""
    whole = [at for at in range(len(pairs)) if at not in pool.reasons]
    if len(whole) < LEAST_ROWS:
        return
    dealt = chance(pool.seed, 14).permutation(whole)
    parts = [np.sort(part) for part in np.array_split(dealt, parts_of(len(dealt)))]
    groups: Iterator[list[Said]] = ([Said(*pairs[at]) for at in part] for part in parts)
    judging = Judging(pool.seed, pool.tick if pool.processes == 1 and pool.spread is None else _never)
    for some, made in zip(parts, pool.mapped(judging, groups, shard=1), strict=True):
        found = {kind: made[2 * at : 2 * at + 2] for at, kind in enumerate(KINDS)}
        over = {kind: odds - threshold(odds, planted, alarm_cost) for kind, (odds, planted) in found.items()}
        for place, at in enumerate(some):
            kind = max(over, key=lambda kind: over[kind][place])
            if over[kind][place] >= 0:
                pool.reasons[int(at)] = NAMES[kind]


def parts_of(rows: int) -> int:
    """Says in how many parts so many rows are judged."""
    return max(1, -(-rows // TOGETHER))


@dataclass(frozen=True)
class Said:
    """A question and its answer."""

    question: str
    answer: str

    @property
    def text(self) -> str:
        """Both, for a number that no other row has."""
        return f"{self.question}\0{self.answer}"


def _never() -> None:
    """Stands for the look whether someone asked to stop, in another process."""


@dataclass(frozen=True)
class Judging:
    """Judges rows together: log odds of each kind of damage, of the rows and of those damaged on purpose."""

    seed: int
    tick: Callable[[], None]

    def __call__(self, group: Sequence[Said]) -> Arrays:
        """Works on the rows."""
        import torch

        # Sums over many rows depend on how many threads add them.
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            found = judged([(one.question, one.answer) for one in group], self.seed, self.tick)
        finally:
            torch.set_num_threads(threads)
        return tuple(array for kind in KINDS for array in found[kind])


def threshold(odds: np.ndarray, planted: np.ndarray, alarm_cost: float) -> float:
    """Finds the log odds from which rows go: most planted damage found for the fewest rows; may be inf.

    Rows that are damaged already count as alarms too, by their share, wherever the threshold lies; so the
    best place does not depend on how many they are, as long as most are sound.
    """
    planted = np.sort(planted[~np.isnan(planted)])
    if not len(planted):
        return float("inf")
    places = np.unique(odds)
    caught = 1 - np.searchsorted(planted, places) / len(planted)
    alarms = 1 - np.searchsorted(np.sort(odds), places) / len(odds)
    gain = caught - alarm_cost * alarms
    best = int(np.argmax(gain)) if len(gain) else 0
    return float(places[best]) if len(gain) and gain[best] > 0 else float("inf")


def _copies(pairs: list[tuple[str, str]]) -> dict[int, int]:
    """Finds rows that say the same as an earlier one: the same answer to nearly the same words."""
    questions, answers = [question for question, _ in pairs], [answer for _, answer in pairs]
    values, starts = sets_of(questions, 1)
    bands, rows = bands_for(ALIKE)
    keys = band_keys(sketch(values, starts, bands * rows), bands, rows)
    said = _whole(answers)
    exact = mix(_whole(questions) ^ mix(said))
    firsts: dict[int, int] = {}
    buckets: dict[tuple[int, int, int], list[int]] = {}
    found: dict[int, int] = {}
    for at in range(len(pairs)):
        first = firsts.setdefault(int(exact[at]), at)
        if first != at:
            found[at] = first
            continue
        mine = values[starts[at] : starts[at + 1]]
        if len(mine) < FEW_UNITS:
            continue
        looked: set[int] = set()
        for band in range(bands):
            bucket = buckets.setdefault((band, int(keys[band, at]), int(said[at])), [])
            for other in bucket[:COMPARED]:
                if at not in found and other not in looked:
                    looked.add(other)
                    if _same(mine, values[starts[other] : starts[other + 1]]):
                        found[at] = other
            bucket.append(at)
    return found


def _same(mine: np.ndarray, other: np.ndarray) -> bool:
    """Says whether two questions differ in no more than two words, or one in a hundred."""
    share = jaccard(mine, other)
    union = (len(mine) + len(other)) / (1 + share)
    return (1 - share) * union <= max(2.0, 0.01 * union) and share >= LEAST_ALIKE


def _whole(texts: list[str]) -> np.ndarray:
    """Numbers each text by all its words in their order; signs where it has no words."""
    units, bounds = units_of(texts)
    found = np.zeros(len(texts), dtype=np.uint64)
    for at, text in enumerate(texts):
        some = units[bounds[at] : bounds[at + 1]]
        if len(some):
            found[at] = runs_of(some, np.array([0, len(some)]), len(some))[0][0]
        else:
            from kogata.engine.copies import fingerprint

            found[at] = int.from_bytes(fingerprint(text)[:8], "little")
    return found


def _varied(texts: list[str], left: list[int], pool: Pool) -> list[int]:
    """Orders rows by what they bring that is new: in rounds, each content with less."""
    values, starts = sets_of(texts, 2)
    seen = np.zeros(2**22, dtype=bool)
    values = values & np.uint32(2**22 - 1)
    order: list[int] = []
    for least in ROUNDS:
        pool.tick()
        later = []
        for at in left:
            mine = values[starts[at] : starts[at + 1]]
            fresh = 1 - seen[mine].mean() if len(mine) else 0.0
            if fresh >= least:
                order.append(at)
                seen[mine] = True
            else:
                later.append(at)
        left = later
    return order
