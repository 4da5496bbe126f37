"""What fine-tuning tries before it starts: learning rates, and whether the upper layers alone will do."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from kogata.engine import finetune_costs as costs
from kogata.engine.finetune._common import Tuning, Work
from kogata.engine.finetune_ready import Ready
from kogata.engine.loop import Training
from kogata.engine.rows import RowSampler
from kogata.engine.schedule import StepSchedule
from kogata.engine.trials import Trial, Trials, best_rate, smoothed, suffices
from kogata.nn.optim import AdamW, Group, Optimiser

CLIP = 1.0
BETAS = (0.9, 0.999)


class Trained(nn.Module):
    """The trained tensors alone: what a checkpoint holds of the model."""

    def __init__(self, tuning: Tuning) -> None:
        super().__init__()
        for name, tensor in tuning.named():
            assert isinstance(tensor, nn.Parameter), name
            self.register_parameter(name.replace(".", "-"), tensor)


def build_optimiser(tuning: Tuning, lr: float, weight_decay: float) -> Optimiser:
    """Makes AdamW of what is trained, each group at its own factor on the rate."""
    groups = [
        Group(named=list(named), lr=lr * factor, weight_decay=weight_decay) for named, factor in tuning.groups
    ]
    return Optimiser(parts={"adamw": AdamW(groups=groups, betas=BETAS, eps=1e-8)})


@dataclass(kw_only=True)
class Tries:
    """What is tried, from one start and on the same rows.

    Args:
        trials: where they are done.
        sampler: of the rows.
        weight_decay: of the run.
        planned: steps of the run.
        flops: FLOPs of a token of what a method computes.
    """

    trials: Trials
    sampler: RowSampler
    weight_decay: float
    planned: float
    flops: Callable[[Work], float]
    found: dict[str, Any] = field(default_factory=lambda: {"lr_trials": None, "top_trials": None})
    """What was tried and taken, for `training.json`."""

    def rate(self, ready: Ready, usual: float) -> float:
        """Finds the learning rate: the one of a few whose smoothed loss over the same rows is lowest.

        Args:
            ready: the model.
            usual: the method's usual rate.
        """
        bench = self.trials.bench
        steps = costs.trial_steps(self.planned, self._rows, self._batch, len(costs.PROBE_FACTORS))
        steps = self.trials.settled("lr", steps)
        if not steps:
            bench.log(f"lr {usual:g}, the usual one: the run is too short for trials of others to pay")
            self.found["lr_trials"] = {"taken": usual, "steps": 0, "losses": {}}
            return usual
        tried = {
            rate: self.trials.run(f"lr-{rate:g}", lambda rate=rate: self._trial(ready, rate, steps))["losses"]
            for rate in costs.probe_rates(usual)
        }
        losses = {f"{rate:g}": smoothed(each) for rate, each in tried.items()}
        said = ", ".join(f"{rate}: {_said(loss)}" for rate, loss in losses.items())
        lr = best_rate(tried)
        bench.log(f"lr {lr:g}: lowest loss of {len(losses)} rates tried for {steps} steps each ({said})")
        kept = {rate: None if math.isinf(loss) else round(loss, 6) for rate, loss in losses.items()}
        self.found["lr_trials"] = {"taken": lr, "steps": steps, "losses": kept}
        return lr

    def layers(
        self,
        made: Callable[[Any], Ready],
        settings: Any,
        lr: float,
        look: Callable[[Ready], float] | None,
    ) -> str:
        """Says whether the top third of the layers will do, or `all` are needed.

        Both are trained for some steps from one start on the same rows, at one rate; held-out loss decides.

        Args:
            made: makes the model ready by a method's settings.
            settings: the method's.
            lr: the rate.
            look: measures the held-out loss; None where no rows are held out.
        """
        bench = self.trials.bench
        steps = self.trials.settled("top", costs.layer_steps(self.planned, self._rows, self._batch))
        heldout: dict[str, float | None] = {}
        if look is None or not steps:
            why = "no rows are held out" if look is None else "the run is too short for trials to pay"
            taken = "all"
            bench.log(f"all layers are trained: {why}")
        else:
            for top in ("all", "third"):
                heldout[top] = self.trials.run(
                    f"top-{top}",
                    lambda top=top: self._trial(
                        made(settings.model_copy(update={"top": top})), lr, steps, look
                    ),
                )["heldout"]
            enough = suffices(heldout["third"], heldout["all"])
            taken = "third" if enough else "all"
            said = "the top third of the layers suffices" if enough else "all layers are needed"
            losses = " and ".join(_said(heldout[top]) for top in ("third", "all"))
            bench.log(f"{said}: held-out loss {losses} with the top third and with all, after {steps} steps")
        kept = {top: None if loss is None else round(loss, 6) for top, loss in heldout.items()}
        self.found["top_trials"] = {"taken": taken, "steps": steps if heldout else 0, "heldout": kept}
        return taken

    @property
    def _rows(self) -> int:
        return len(self.sampler.rows)

    @property
    def _batch(self) -> int:
        return self.sampler.batch

    def _trial(
        self, ready: Ready, lr: float, steps: int, look: Callable[[Ready], float] | None = None
    ) -> Trial:
        """Makes a trial: a short warm-up, then the rate held."""
        training = Training(
            model=Trained(ready.tuning),
            objective=ready.objective(),
            sampler=self.sampler,
            optimiser=build_optimiser(ready.tuning, lr, self.weight_decay),
            schedule=StepSchedule(steps=steps, warmup=steps // 4, decay=0.0),
            group=self.trials.group,
            clip=CLIP,
            flops_per_token=self.flops(ready.work),
        )
        looks = None if look is None else lambda: look(ready)
        return Trial(training=training, named=ready.tuning.named(), look=looks)


def _said(loss: float | None) -> str:
    return "diverged" if loss is None or math.isinf(loss) else f"{loss:.3f}"
