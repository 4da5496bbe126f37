"""The sampler of a training run, from what is seen when and what is sampled."""

from __future__ import annotations

from kogata.core.variants import Choice
from kogata.engine.sampler import Sampler
from kogata.engine.samplers import check_pair
from kogata.engine.supply import Supply


class Curriculum(Choice, folder="engine.curriculum"):
    """What training sees when."""


class Sampling(Choice, folder="engine.samplers"):
    """Which text is sampled and how much it counts."""


def make_sampler(supply: Supply, curriculum: Choice | None = None, sampling: Choice | None = None) -> Sampler:
    """Makes a run's sampler; by default of shuffled windows, at half the context for half of training.

    Raises:
        RecipeError: the two do not go together, or ask for what the tokens do not have.
        DataError: a source fills no window, or text has no difficulty.
    """
    sampling = sampling or Sampling.of("proportional")
    curriculum = curriculum or Curriculum.of(getattr(sampling.variant, "CURRICULUM", "half_length"))
    check_pair(curriculum, sampling, supply.label)
    return sampling.variant.make(supply, curriculum, sampling.settings)
