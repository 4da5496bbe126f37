"""Mixtures of sources: from weights to how often each is seen, and the documents that make it so."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from kogata.core.artifact import Document
from kogata.core.errors import RecipeError
from kogata.core.registry import registry
from kogata.engine.readers.txt import cut_at
from kogata.engine.splits import content_hash
from kogata.engine.text import GROUP, utf8_length

LEAST_CUT = 200
"""Characters of a document's beginning that are worth keeping on their own."""


@dataclass(frozen=True, kw_only=True)
class Portion:
    """How much of one source a mixture holds."""

    size: int
    """Of the source, in bytes or tokens."""
    weight: float
    """As asked for, all weights adding up to 1."""
    epochs: float
    """How often the source is seen; below 1 a part of it."""
    ran_out: bool
    """The cap on epochs kept it below its weight; the others gave more."""

    def to_dict(self) -> dict[str, Any]:
        """Gives plain values for the facts."""
        return {
            "size": self.size,
            "weight": round(self.weight, 6),
            "epochs": round(self.epochs, 6),
            "ran_out": self.ran_out,
        }


def weights_of(method: str, settings: Any, sizes: Mapping[str, int]) -> dict[str, float]:
    """Gives the weight of every source, adding up to 1.

    Raises:
        RecipeError: the weights do not fit the sources.
    """
    found: dict[str, float] = registry.variant("engine.mix", method).weigh(sizes, settings)
    total = sum(found.values())
    if total <= 0:
        raise RecipeError(
            "the mixture would be empty",
            found="no weight on any source that has text",
            expected="a weight above 0 for at least one source",
        )
    return {name: weight / total for name, weight in found.items()}


def portions(
    weights: Mapping[str, float], sizes: Mapping[str, int], total: float, most_epochs: float
) -> dict[str, Portion]:
    """Splits a total among sources by weight; one that would be repeated too often gives way to the others.

    Args:
        weights: of every source, adding up to 1.
        sizes: of every source.
        total: of the mixture, in the unit of the sizes.
        most_epochs: how often a source is repeated at most.
    """
    taken = {name: 0.0 for name in sizes}
    out: set[str] = set()
    while True:
        rest = total - sum(taken[name] for name in out)
        open_ = {name: weights[name] for name in sizes if name not in out and weights[name] > 0}
        share = sum(open_.values())
        if not open_ or rest <= 0:
            break
        over = {name for name in open_ if rest * open_[name] / share > most_epochs * sizes[name] * (1 + 1e-9)}
        if not over:
            taken |= {name: rest * weight / share for name, weight in open_.items()}
            break
        # Only what runs out first is fixed at a time: what it leaves may exhaust the next.
        first = max(over, key=lambda name: open_[name] / max(sizes[name], 1))
        taken[first] = most_epochs * sizes[first]
        out.add(first)
    return {
        name: Portion(
            size=sizes[name],
            weight=weights[name],
            epochs=taken[name] / sizes[name] if sizes[name] else 0.0,
            ran_out=name in out,
        )
        for name in sizes
    }


def take_portion(
    read: Callable[[], Iterable[Document]], name: str, epochs: float, left_out: Callable[[Document], None]
) -> Iterator[Document]:
    """Yields a source's training documents as often as the mixture wants them, each with its source's name.

    A part of the source is chosen document by document in the order of their content's hash, never by seed;
    the last one is cut where the part ends.

    Args:
        read: reads the source's training documents; called twice, so that none is held.
        name: of the source, put into `meta`.
        epochs: how often; 2.4 is all twice and four tenths once more.
        left_out: is told of every document that is not seen at all.
    """
    whole = int(epochs + 1e-9)
    more, cut, part = _chosen(read(), epochs - whole)
    for number, document in enumerate(read()):
        named = replace(document, id=f"{name}/{document.id}", meta={**document.meta, GROUP: name})
        for copy in range(whole):
            yield named if copy == 0 else replace(named, id=f"{named.id}#{copy + 1}")
        again = named if whole == 0 else replace(named, id=f"{named.id}#{whole + 1}")
        if more[number]:
            yield again
        elif number == cut:
            yield replace(again, text=document.text[: cut_at(document.text, max(1, int(part)))])
        elif whole == 0:
            left_out(document)


def _chosen(documents: Iterable[Document], share: float) -> tuple[bytearray, int, float]:
    """Chooses documents that make up a share: which, and the one to be cut with how many characters."""
    hashes, sizes, lengths = array("Q"), array("Q"), array("Q")
    for document in documents:
        hashes.append(content_hash(document.text))
        sizes.append(utf8_length(document.text))
        lengths.append(len(document.text))
    chosen = bytearray(len(hashes))
    left = share * sum(sizes)
    if left < 1:
        return chosen, -1, 0.0
    for number in sorted(range(len(hashes)), key=lambda at: (hashes[at], at)):
        if sizes[number] <= left:
            chosen[number] = 1
            left -= sizes[number]
            continue
        characters = left / sizes[number] * lengths[number]
        nothing_yet = not any(chosen)
        return chosen, number if characters >= LEAST_CUT or nothing_yet else -1, characters
    return chosen, -1, 0.0
