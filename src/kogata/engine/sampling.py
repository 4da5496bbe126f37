"""The sampler of a training run, from what is seen when and what is sampled."""

from __future__ import annotations

from kogata.core.variants import Choice
from kogata.engine.sampler import Sampler
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
    curriculum = curriculum or Curriculum.of("half_length")
    sampling = sampling or Sampling.of("proportional")
    return sampling.variant.make(supply, curriculum, sampling.settings)
