"""Takes small steps at first and larger ones later: more tokens each, of the same text in the same order.

Early on the gradient of few tokens points well, and many small steps teach most; later its noise is what
keeps the loss up. `times` multiplies `batch` from one phase to the next. By default the learning rate follows
with the root, as it does where `batch` itself is set; `lr: hold` leaves it alone.

Pays when: training is long enough that large steps would pay at its end, and small ones at its beginning.
Hurts when: it is short: each step that is larger means fewer of them, and small steps teach most per token.
Cost: none; a token costs the same, the optimiser less where steps are larger. Activations are those of the
    largest step.
Source: McCandlish et al. 2018 (arXiv 1812.06162); of small language models Merrill et al. 2025
    (arXiv 2505.23971); the root: Malladi et al. 2022 (arXiv 2205.10287).
Measured here: not yet measured.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from kogata.core.errors import RecipeError
from kogata.core.variants import VariantSettings
from kogata.engine.samplers import chooses_windows
from kogata.engine.technique import Moment, Technique

if TYPE_CHECKING:
    from torch import Tensor

    from kogata.engine.sampler import Sampler
    from kogata.engine.supply import Supply
    from kogata.engine.techniques import Course
    from kogata.nn.decoder import Decoder


class Settings(VariantSettings):
    """Settings of `batch_warmup`."""

    times: list[float] = Field(
        default=[0.5, 1.0, 2.0],
        min_length=1,
        description="what `batch` is multiplied by, one phase of training after another",
    )
    ends: list[float] = Field(
        default=[0.25, 0.5], description="share of training at which each phase but the last ends"
    )
    lr: Literal["root", "hold"] = Field(
        default="root",
        description="root: the learning rate is multiplied by the root of what the batch is; hold: it is not",
    )

    @model_validator(mode="after")
    def _grow(self) -> Settings:
        if len(self.ends) != len(self.times) - 1:
            raise ValueError(
                f"`ends` has one entry less than `times`: found {len(self.ends)} beside {len(self.times)}"
            )
        if self.times[0] <= 0 or any(after <= before for before, after in pairwise(self.times)):
            raise ValueError(f"`times` are above 0 and grow; found {self.times}")
        if any(after <= before for before, after in pairwise([0.0, *self.ends, 1.0])):
            raise ValueError(f"`ends` lie between 0 and 1 and grow; found {self.ends}")
        return self


def phases(settings: Settings) -> list[tuple[float, float]]:
    """Lists the share of training and the multiple of `batch` of each phase."""
    bounds = [0.0, *settings.ends, 1.0]
    return [
        (stop - start, times) for (start, stop), times in zip(pairwise(bounds), settings.times, strict=True)
    ]


def refuses_course(settings: Settings, course: Course) -> tuple[str, str] | None:
    """Gives what was found and expected where steps cannot grow so."""
    if chooses_windows(course.curriculum):
        return f"curriculum {course.curriculum.name}", "a curriculum of whole windows in a shuffled order"
    rows = [int(course.batch * times + 1e-9) // course.context for times in settings.times]
    sizes = ", ".join(f"{course.batch * times:,.0f}" for times in settings.times)
    if rows[0] < 1 or any(after <= before for before, after in pairwise(rows)):
        return (
            f"steps of {sizes} tokens, which hold {', '.join(map(str, rows))} windows",
            f"at least one window of {course.context:,} tokens at first, and more from phase to phase",
        )
    return None


def make(settings: Settings, decoder: Decoder) -> Technique:
    """Makes the technique."""
    return BatchWarmup(settings)


class BatchWarmup(Technique):
    """Sets the size of each step before it is drawn."""

    name = "batch_warmup"

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.starts: list[int] = []
        """The step each phase began at."""

    def draw_from(self, sampler: Sampler, supply: Supply) -> Sampler:
        """Makes sure that the sampler's steps can change their size."""
        from kogata.engine.sampler import Resizable

        if not isinstance(sampler, Resizable):
            raise RecipeError(
                "the steps of this sampling cannot grow",
                where=f"{supply.label}.techniques.{self.name}",
                found=type(sampler).__name__,
                expected="a sampler with `resize`",
            )
        return sampler

    def lr_times(self, progress: float) -> float:
        """Gives the root of what the batch is multiplied by, or 1."""
        return self._times(progress) ** 0.5 if self.settings.lr == "root" else 1.0

    def before_forward(self, moment: Moment) -> None:
        """Sets the size of the step."""
        while len(self.starts) <= self._turn(moment.progress):
            self.starts.append(moment.step)
        moment.sampler.resize(self._times(moment.progress))

    def _turn(self, progress: float) -> int:
        return sum(progress >= end for end in self.settings.ends)

    def _times(self, progress: float) -> float:
        return self.settings.times[self._turn(progress)]

    def record(self) -> dict[str, Any]:
        """Gives the step each phase began at: from 0 on."""
        return {"batch_starts": list(self.starts)}

    def state(self) -> dict[str, Tensor]:
        """Gives the steps that phases began at."""
        import torch

        return {"starts": torch.tensor(self.starts, dtype=torch.int64)}

    def load(self, state: dict[str, Tensor]) -> None:
        """Puts them back."""
        self.starts = state["starts"].tolist()


def replayed(settings: Settings, training: dict[str, Any]) -> Settings:
    """Gives the settings that replay a training by its steps: under a clock phases end by time."""
    # A phase that no step fell into is left out: the next one began at the same step.
    begun = dict(zip(training["batch_starts"], settings.times, strict=False))
    ends = [start / training["steps"] for start in list(begun)[1:]]
    return settings.model_copy(update={"times": list(begun.values()), "ends": ends})
