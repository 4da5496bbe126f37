"""Instruction-following difficulty: how much a question helps a model to its answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice

import numpy as np
from pydantic import Field

from kogata.core.errors import DataError
from kogata.core.variants import VariantSettings
from kogata.engine.examples import Example
from kogata.engine.select._pool import Item, Pool
from kogata.engine.select._steps import Arrays, joined

NEEDS = frozenset({"model", "examples"})
BYTES_PER_SECOND = 4_000.0
"""Under a model of 100 million weights; the forecast reckons with the model's own size."""
GROUP = 256


class Settings(VariantSettings):
    """Keeps examples whose question helps the model to the answer, the hardest of them first.

    The ratio of the answer's perplexity after its question to that without it. Where it is `most` or more
    the question does not help: the answer is wrong, cut off or another's, and the example goes. (Li et al.
    2024, Superfiltering.)
    """

    most: float = Field(default=1.0, gt=0, description="ratio from which an example goes")
    least: float = Field(default=0.0, ge=0, description="ratio up to which an example goes, as already known")
    prefer: str = Field(
        default="hard",
        pattern="^(hard|easy)$",
        description="which stay first: `hard` (ratio near 1: the model has most to learn) or `easy`",
    )
    context: int = Field(default=512, ge=32, description="tokens of an example that are looked at, at most")


def scores(settings: Settings, pool: Pool) -> np.ndarray:
    """Gives the ratio (hard) or its negative (easy); −inf outside its bounds or where nothing is trained."""
    ratios = ratios_of(settings, pool)
    fits = np.isfinite(ratios) & (ratios < settings.most) & (ratios > settings.least)
    return np.where(fits, ratios if settings.prefer == "hard" else -ratios, -np.inf)


def ratios_of(settings: Settings, pool: Pool) -> np.ndarray:
    """Computes the ratio of every example; NaN where it cannot be rendered within the context."""
    from kogata.engine.chat import Renderer, Unfit
    from kogata.engine.chat_template import Template
    from kogata.engine.evaluate import token_losses
    from kogata.engine.load import load_model

    assert pool.model is not None
    loaded = load_model(pool.model)
    if loaded.source.role != "decoder":
        raise DataError(
            "the model gives no losses", where="data.select, slot model", expected="a causal language model"
        )
    context = min(settings.context, loaded.context or settings.context)
    renderer = Renderer(loaded.tokenizer, Template.load(loaded.folder), turns="last", context=context)

    def of_group(items: Sequence[Item]) -> Arrays:
        pieces: list[tuple[list[int], list[int]]] = []
        answers: list[list[bool] | None] = []
        for item in items:
            assert isinstance(item.source, Example)
            try:
                found = renderer.render(item.source)
            except Unfit:
                answers.append(None)
                continue
            mask = [weight > 0 for weight in found.weights[1:]]
            answer = [number for number, counts in zip(found.ids[1:], mask, strict=True) if counts]
            pieces.append((found.ids[:-1], found.ids[1:]))
            pieces.append(([renderer.start_id, *answer[:-1]], answer))
            answers.append(mask)
        losses = iter(token_losses(loaded.decoder, pieces))
        ratios = [math.nan if mask is None else _ratio(next(losses), next(losses), mask) for mask in answers]
        pool.count(tokens=sum(len(targets) for _, targets in pieces))
        pool.tick()
        return (np.array(ratios),)

    items = pool.items()
    groups = iter(lambda: list(islice(items, GROUP)), [])
    (ratios,) = joined(pool.mapped(of_group, groups, here=True), 1)
    return ratios


def _ratio(told: Sequence[float], alone: Sequence[float], mask: Sequence[bool]) -> float:
    with_question = np.array(told)[np.array(mask)]
    return float(np.exp(with_question.mean() - np.mean(alone)))
