"""What training will take: FLOPs, bytes and seconds of a step, from the shape alone. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from kogata.core.receipt import Machine
from kogata.nn.spec import ModelSpec

USUAL_FLOPS = 60e9
"""Taken per core where the machine was not measured."""
GEMM_EFFICIENCY = 0.80
"""Rate of a step's matrix products over the rate of large ones, all shapes of training together."""
SMALL_SHARE = 0.5
"""How far that rate follows `gemm_small_flops` (the rest follows `gemm_flops`)."""
TOUCH_SECONDS = 2.2e-10
"""Core-seconds per float that norms, rotations, gates and residual sums touch, forward and backward."""
LOGIT_SECONDS = 4.5e-10
"""Core-seconds per logit for softmax and its gradient."""
CALL_SECONDS = 12e-6
"""Core-seconds per operation dispatched."""
CALLS_PER_LAYER = 60
ADAM_SECONDS = 1.5e-9
"""Core-seconds per weight that AdamW trains."""
EAGER_FACTOR = 2.4
"""How much more the touched floats cost without the fused kernels."""
TORCH_BYTES = 330 * 2**20
"""Resident bytes of a worker that has imported torch, before the first tensor."""
SAVE_BYTES_PER_SECOND = 250e6
STAGE_SECONDS = 2.2
"""Importing torch, opening tokens, building the model, writing the folder."""


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """One optimiser step of all processes together."""

    seconds: float
    flops: float
    gemm_share: float
    """Rate over the machine's measured one."""


def cores_seconds(seconds: float, cores: int) -> float:
    """Spreads core-seconds over cores: memory-bound work gains less from the second core."""
    return seconds / (1 + 0.85 * (cores - 1))


def gemm_rate(spec: ModelSpec, machine: Machine) -> float:
    """Gives the FLOP/s of this shape's matrix products on all cores."""
    large = machine.gemm_flops or USUAL_FLOPS * machine.cores
    small = machine.gemm_small_flops or 0.85 * large
    share = SMALL_SHARE * min(1.0, 256 / spec.width)
    return GEMM_EFFICIENCY * (share * small + (1 - share) * large)


def step_cost(
    spec: ModelSpec,
    machine: Machine,
    *,
    batch: int,
    context: int,
    micro: int | None = None,
    muon: bool = True,
    iterations: int = 4,
    fused: bool = True,
    processes: int = 1,
) -> StepCost:
    """Forecasts one optimiser step.

    Args:
        spec: the model.
        machine: its rates.
        batch: tokens of a step, over all processes.
        context: tokens of a window.
        micro: tokens of a forward pass.
        muon: whether Muon trains the matrices.
        iterations: of its orthogonalisation.
        fused: whether the compiled kernels are used.
        processes: that share the cores.
    """
    flops = float(batch * spec.flops_per_token(context))
    rate = gemm_rate(spec, machine)
    optimiser = muon_flops(spec, iterations) * processes if muon else 0.0
    gated = 3 if spec.ffn == "swiglu" else 2
    floats = batch * spec.layers * (8 * spec.width + 4 * spec.q_width + gated * 2 * spec.ffn_width)
    touched = floats * TOUCH_SECONDS * (1.0 if fused else EAGER_FACTOR)
    touched += batch * spec.vocab_size * LOGIT_SECONDS
    adam = spec.embedding_parameters() + (0 if muon else spec.matrix_parameters())
    touched += adam * ADAM_SECONDS * processes
    passes = max(1, -(-batch // (micro or batch)))
    calls = passes * (CALLS_PER_LAYER * spec.layers + 60) * CALL_SECONDS
    seconds = (flops + optimiser) / rate + cores_seconds(touched, machine.cores) + calls
    return StepCost(seconds=seconds, flops=flops, gemm_share=flops / seconds / (rate / GEMM_EFFICIENCY))


def muon_flops(spec: ModelSpec, iterations: int = 4) -> float:
    """Counts the products of one Muon step over all matrices of the blocks."""
    shapes = [(spec.width, spec.q_width)] * 2 + [(spec.width, spec.kv_width)] * 2
    shapes += [(spec.width, spec.ffn_width)] * (3 if spec.ffn == "swiglu" else 2)
    total = 0.0
    for rows, columns in shapes:
        low, high = min(rows, columns), max(rows, columns)
        total += iterations * (4.0 * low * low * high + 2.0 * low**3)
    return spec.layers * total


def micro_tokens(spec: ModelSpec, batch: int, context: int, room: int | None) -> int:
    """Chooses the tokens of one forward pass: the whole batch, unless its activations outgrow the room."""
    if room is None:
        return batch
    per_token = activation_bytes(spec, 1)
    most = max(context, int(room // max(1, per_token)) // context * context)
    return min(batch, most)


def activation_bytes(spec: ModelSpec, tokens: int) -> int:
    """Counts what one forward pass keeps for its backward pass, and what both hold for a moment."""
    gates = 3 if spec.ffn == "swiglu" else 2
    kept = 5 * spec.width + 2 * spec.q_width + 2 * spec.kv_width + gates * spec.ffn_width
    moment = 4 * spec.width + 2 * gates * spec.ffn_width + 2 * spec.q_width
    return 4 * tokens * (spec.layers * kept + moment)


def state_bytes(spec: ModelSpec, muon: bool = True) -> int:
    """Counts weights, gradients and the optimiser's averages."""
    matrices, rest = spec.matrix_parameters(), spec.parameters() - spec.matrix_parameters()
    # Muon keeps one average and, for a moment, three copies of the largest stack.
    return 4 * (matrices * (3 + 2 if muon else 4) + rest * 4)


def corpus_start_bytes(vocab_size: int) -> int:
    """Counts what starting from the corpus's statistics holds at its peak: three tables of pairs."""
    rows = min(vocab_size, 8192)
    return 3 * 4 * rows * rows


def corpus_start_seconds(vocab_size: int, width: int, tokens: int, machine: Machine) -> float:
    """Forecasts starting from the corpus's statistics."""
    rows = min(vocab_size, 8192)
    rate = 0.7 * (machine.gemm_flops or USUAL_FLOPS * machine.cores)
    products = 12 * 6.0 * rows * rows * width + 7 * 2.0 * rows * rows * (width + 16)
    return products / rate + 12 * rows * rows * 3e-9 + min(tokens, 24_000_000) * 1.6e-8 + 0.1


def peak_bytes(
    spec: ModelSpec, *, micro: int, muon: bool = True, processes: int = 1, corpus_start: bool = True
) -> int:
    """Forecasts the peak resident bytes of all processes together."""
    chunk = 3 * 8 * 2**20 + 2 * 4 * micro * spec.width + 4 * spec.embedding_parameters()
    training = state_bytes(spec, muon) + activation_bytes(spec, micro) + chunk
    starting = 4 * spec.parameters() + (corpus_start_bytes(spec.vocab_size) if corpus_start else 0)
    return processes * (TORCH_BYTES + max(training, starting))
