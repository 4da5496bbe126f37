"""Windows of one length after another."""

from __future__ import annotations

from collections.abc import Sequence

from kogata.engine.sampler import RampSampler
from kogata.engine.supply import Supply


def by_length(supply: Supply, contexts: Sequence[int], shares: Sequence[float], *, told: bool) -> RampSampler:
    """Makes a sampler of shuffled windows of one length after another; `told`: metrics say which."""
    samplers = [supply.window_sampler(context, number) for number, context in enumerate(contexts)]
    columns = [{"context": context} for context in contexts] if told else None
    return RampSampler(samplers, shares, columns)
