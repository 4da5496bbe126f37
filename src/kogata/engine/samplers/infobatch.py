"""Leaves out, for an epoch, a part of the windows already learned; those that stay for them count more.

From the second epoch on, windows whose loss is below the mean are left out with the chance `prune`, each
epoch anew; the others of them count 1 / (1 - prune), so that the sum of gradients stays what it was. Over
the last part of training nothing is left out. The windows stay the same from epoch to epoch.

Pays when: there are several epochs (three and more).
Hurts when: the text is seen once or twice: then nothing is known of any window. Its gain is a part of the
    later epochs' steps.
Cost: 5 bytes a window; nothing worth measuring in time.
Source: InfoBatch, Qin et al. 2023 (arXiv 2303.04947).
Measured here: little text seen several times, 18 s of training, five seeds, beside full_length: +0.009
[curriculum.json:table.epochs.infobatch.difference.mean:+.3f] bits per byte (95%: +0.000
[curriculum.json:table.epochs.infobatch.difference.low:+.3f] to +0.019
[curriculum.json:table.epochs.infobatch.difference.high:+.3f]), worse.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from kogata.core.variants import Choice, VariantSettings

if TYPE_CHECKING:
    import numpy as np

    from kogata.engine.sampler import Sampler, StepBatch
    from kogata.engine.supply import FixedWindows, Supply


CURRICULUM = "full_length"
"""Its windows must stay the same."""


class Settings(VariantSettings):
    """Settings of `infobatch`."""

    prune: float = Field(
        default=0.5,
        gt=0,
        lt=1,
        description="chance of a window of low loss to be left out for an epoch",
    )
    last: float = Field(
        default=0.125, ge=0, lt=1, description="share of training at the end over which nothing is left out"
    )


class InfoBatch:
    """Windows with the loss each had when it was last seen.

    Args:
        windows: that stay the same.
        rows: of a step.
        seed: decides orders and what is left out.
        settings: as given.
    """

    def __init__(self, windows: FixedWindows, rows: int, seed: int, settings: Settings) -> None:
        import numpy as np

        self.windows, self.rows, self.seed, self.settings = windows, rows, seed, settings
        self.usual = rows
        self.context = windows.context
        self.losses = np.full(len(windows), np.nan, dtype=np.float32)
        self.taken, self.epoch, self.at = 0, -1, 0
        self.kept = np.zeros(0, dtype=np.int64)
        self.weights = np.zeros(0, dtype=np.float32)
        self.whole = False
        """This epoch leaves nothing out."""
        self._now = np.zeros(0, dtype=np.int64)

    @property
    def epochs(self) -> float:
        """How many windows were seen so far, by all there are."""
        return self.taken / len(self.windows)

    def take(self, rank: int = 0, world: int = 1, progress: float = 0.0) -> StepBatch:
        """Gives the next step's batch, this process's part of it."""
        import numpy as np

        from kogata.engine.sampler import StepBatch

        ending = progress >= 1 - self.settings.last
        if self.epoch < 0 or (ending and not self.whole):
            self._begin(self.epoch + 1, ending)
        numbers: list[np.ndarray] = []
        weights: list[np.ndarray] = []
        need = self.rows
        while need:
            if self.at == len(self.kept):
                self._begin(self.epoch + 1, ending)
            stop = min(self.at + need, len(self.kept))
            numbers.append(self.kept[self.at : stop])
            weights.append(self.weights[self.at : stop])
            need -= stop - self.at
            self.at = stop
        self.taken += self.rows
        self._now, share = np.concatenate(numbers), np.concatenate(weights)
        count = self.rows * self.context
        return StepBatch(
            parts=self.windows.parts(self._now, rank, world, weights=share, losses=True),
            count=float(count),
            tokens=count,
            rows=self.rows,
            first=self.rows * rank // world,
        )

    def resize(self, times: float) -> None:
        """Makes the steps from now on this many times as large as they were made."""
        from kogata.engine.sampler import resized

        self.rows = resized(self.usual, times)

    def _begin(self, epoch: int, ending: bool) -> None:
        """Chooses what the epoch leaves out, and its order."""
        import numpy as np

        from kogata.engine.sampler import mix, shuffled

        self.epoch, self.at = epoch, 0
        every = np.arange(len(self.windows))
        known = ~np.isnan(self.losses)
        self.weights = np.ones(len(every), dtype=np.float32)
        stays = np.ones(len(every), dtype=bool)
        if not ending and known.any():
            low = known & (self.losses < float(self.losses[known].mean(dtype=np.float64)))
            chance = mix(every.astype(np.uint64), self.seed * 65_537 + epoch) / np.float64(2**64)
            stays = ~(low & (chance < self.settings.prune))
            self.weights[low] = 1 / (1 - self.settings.prune)
        chosen, self.whole = every[stays], bool(stays.all())
        self.kept = chosen[shuffled(np.arange(len(chosen)), len(chosen), self.seed * 31 + epoch)]
        self.weights = self.weights[self.kept]

    def learn(self, losses: Sequence[float]) -> None:
        """Notes the losses of the windows just seen."""
        self.losses[self._now] = losses

    def row(self) -> dict[str, Any]:
        """Gives the share of windows that this epoch leaves out."""
        return {"pruned": round(1 - len(self.kept) / len(self.windows), 4)}

    def record(self) -> dict[str, Any]:
        """Gives the epochs begun, those in which windows were left out being shorter."""
        return {"epochs_begun": self.epoch + 1}

    def state(self) -> dict[str, Any]:
        """Gives losses, order and position."""
        import numpy as np

        return {
            "taken": self.taken,
            "epoch": self.epoch,
            "at": self.at,
            "whole": self.whole,
            "losses": _packed(self.losses),
            "kept": _packed(self.kept.astype(np.uint32)),
            "weights": _packed(self.weights),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Puts them back."""
        import numpy as np

        self.taken, self.epoch, self.at = int(state["taken"]), int(state["epoch"]), int(state["at"])
        self.whole = bool(state["whole"])
        self.losses = np.frombuffer(_unpacked(state["losses"]), dtype=np.float32).copy()
        self.kept = np.frombuffer(_unpacked(state["kept"]), dtype=np.uint32).astype(np.int64)
        self.weights = np.frombuffer(_unpacked(state["weights"]), dtype=np.float32).copy()


def _packed(values: np.ndarray) -> str:
    """Writes an array as text, bit for bit."""
    return base64.b85encode(zlib.compress(values.tobytes(), 1)).decode("ascii")


def _unpacked(text: str) -> bytes:
    return zlib.decompress(base64.b85decode(text))


def refuses(curriculum: Choice) -> bool:
    """Says whether a curriculum changes the windows."""
    return curriculum.name != CURRICULUM


def make(supply: Supply, curriculum: Choice, settings: Settings) -> Sampler:
    """Makes a run's sampler."""
    from kogata.engine.supply import FixedWindows

    windows = FixedWindows(supply, supply.context)
    return InfoBatch(windows, supply.rows(supply.context), supply.seed, settings)
