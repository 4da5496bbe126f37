"""What fine-tuning tries before it starts: learning rates, and whether the upper layers alone will do."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from kogata.core.stage import Bench
from kogata.engine import finetune_costs as costs
from kogata.engine.finetune._common import Tuning
from kogata.engine.loop import Training
from kogata.engine.objectives import TrainedTokens
from kogata.engine.parallel import Group as Processes
from kogata.engine.rows import RowSampler
from kogata.engine.schedule import StepSchedule
from kogata.engine.trials import Trials, best_rate, smoothed
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


@dataclass(frozen=True, kw_only=True)
class Start:
    """Where all trials start, and what they have in common."""

    tuning: Tuning
    objective: TrainedTokens
    sampler: RowSampler
    weight_decay: float
    flops_per_token: float
    group: Processes

    def training(self, lr: float, steps: int) -> Training:
        """Makes a run of some steps: a short warm-up, then the rate held."""
        return Training(
            model=Trained(self.tuning),
            objective=self.objective,
            sampler=self.sampler,
            optimiser=build_optimiser(self.tuning, lr, self.weight_decay),
            schedule=StepSchedule(steps=steps, warmup=steps // 4, decay=0.0),
            group=self.group,
            clip=CLIP,
            flops_per_token=self.flops_per_token,
        )

    def tried(
        self, trials: Trials, name: str, lr: float, steps: int, look: Callable[[], float] | None = None
    ) -> dict[str, Any]:
        """Trains for some steps and comes back; gives the losses."""
        return trials.run(name, lambda: self.training(lr, steps), self.tuning.named(), look)


def tried_rate(trials: Trials, start: Start, usual: float, planned: float, bench: Bench) -> dict[str, Any]:
    """Finds the learning rate: the one of a few whose smoothed loss over the same rows is lowest.

    Args:
        trials: where they are done.
        start: where they start.
        usual: the method's usual rate.
        planned: steps of the run.
        bench: of the stage.

    Returns:
        `taken`, the `steps` of each trial (0: the run is too short for it to pay) and the smoothed `losses`
        by rate; null where training diverged.
    """
    steps = costs.probe_steps(planned, len(start.sampler.rows), start.sampler.batch)
    if not steps:
        bench.log(f"lr {usual:g}, the usual one: the run is too short for trials of others to pay")
        return {"taken": usual, "steps": 0, "losses": {}}
    found = {
        rate: start.tried(trials, f"lr-{rate:g}", rate, steps)["losses"] for rate in costs.probe_rates(usual)
    }
    losses = {rate: smoothed(tried) for rate, tried in found.items()}
    lr = best_rate(found)
    said = ", ".join(
        f"{rate:g}: {'diverged' if math.isinf(loss) else f'{loss:.3f}'}" for rate, loss in losses.items()
    )
    bench.log(f"lr {lr:g}: lowest loss of {len(losses)} rates tried for {steps} steps each ({said})")
    kept = {f"{rate:g}": None if math.isinf(loss) else round(loss, 6) for rate, loss in losses.items()}
    return {"taken": lr, "steps": steps, "losses": kept}
