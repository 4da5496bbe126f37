"""A model made ready to be fine-tuned by a method: read, changed, its trained tensors at hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from kogata.core.stage import Bench
from kogata.engine.base_model import load_base
from kogata.engine.finetune._common import Tuning, Work
from kogata.engine.finetune_costs import Form
from kogata.engine.foreign import ForeignPacked
from kogata.engine.heap import give_back
from kogata.engine.layered import Layers
from kogata.engine.load import Foreign
from kogata.engine.objectives import TrainedTokens
from kogata.engine.rows import RowSampler
from kogata.nn.kernels import Kernels
from kogata.nn.packed import PackedHidden
from kogata.nn.spec import ModelSpec


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A model, and what of it is trained."""

    decoder: Any
    """Ours, or a `Foreign`."""
    tuning: Tuning
    work: Work
    packed: Any
    """A `PackedHidden` or a `ForeignPacked`."""
    mark: str
    """The fingerprint of the base's weights."""

    def objective(self) -> TrainedTokens:
        """Gives the loss on trained tokens, everything below the lowest trained layer computed anew."""
        return TrainedTokens(self.packed, self.tuning.first)


def make_ready(
    model: Path,
    module: Any,
    settings: Any,
    form: Form,
    sampler: RowSampler,
    bench: Bench,
    spec: ModelSpec | None = None,
) -> Ready:
    """Reads a model and applies a method; what a method chooses by gradients is chosen.

    Args:
        model: the folder.
        module: the method.
        settings: the method's.
        form: how frozen weights are held, and whether activations are computed again.
        sampler: of the rows; it is left where it was.
        bench: of the stage.
        spec: stands for the shape of a model that only transformers can build.
    """
    give_back()
    streamed = bench.checkpoints / f"weights-{bench.rank}.bin"
    loaded, mark = load_base(model, form.hold, streamed, form.recompute)
    decoder: Any = loaded.to(bench.device)
    layers = getattr(module, "LAYERS", False) or getattr(settings, "top", "all") != "all"
    if isinstance(decoder, Foreign) and decoder.layers is None and layers:
        decoder.layers = Layers(decoder.model).check()
    more = {"encode": _encoder(model)} if getattr(module, "ENCODES", False) else {}
    tuning: Tuning = module.apply(decoder, settings, bench.seed, **more)
    kernels = Kernels.build() if bench.device == "cpu" and bench.machine.compiler else None
    packed: Any = ForeignPacked(decoder) if isinstance(decoder, Foreign) else None
    packed = packed or PackedHidden(cast(Any, decoder), kernels, recompute=form.recompute)
    work = module.work(decoder.spec or spec, settings)
    ready = Ready(decoder=decoder, tuning=tuning, work=work, packed=packed, mark=mark)
    if tuning.begin is not None:
        objective, top = ready.objective(), getattr(settings, "top", "all")
        chosen = bench.checkpoints / f"chosen-{top}.npy"
        tuning.begin(lambda steps: _gradients(objective, sampler, steps), chosen)
    return ready


def _encoder(model: Path) -> Callable[[str], list[int]]:
    """Gives what turns a text into ids."""
    from kogata.engine.load import load_tokenizer

    return lambda text: load_tokenizer(model).encode(text, add_special_tokens=False).ids


def _gradients(objective: TrainedTokens, sampler: RowSampler, steps: int) -> None:
    """Computes gradients of the first steps' rows, which are trained on all the same."""
    state = sampler.state()
    for _ in range(steps):
        step = sampler.take()
        for part in step.parts:
            objective(part, 1 / step.count).backward()
    sampler.load(state)
