"""What training will take: FLOPs, bytes and seconds of a step, from the shape alone. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from kogata.core.receipt import Machine
from kogata.nn.ffns import GATED, ffn_matrices
from kogata.nn.shapes import WEIGHTS_KEPT
from kogata.nn.spec import ModelSpec

USUAL_FLOPS = 60e9
"""Taken per core where the machine was not measured."""
BLOCK, HEAD = 0.906, 0.691
"""Time of the products of blocks and head, per FLOP, over that of large products; of what mixers do beside
these, their own files say it (`Sizes.slowness`; 4.83 for full attention of up to 256 tokens)."""
BLOCK_NARROW, HEAD_NARROW = 0.683, 0.596
"""What a width of 64 adds to it; half as much at 128, and so on: norms, gates and softmax are in it.
These constants: least squares over 14 shapes (widths 64 to 768, 65 to 8,192 ids, 512 to 4,096 tokens a step),
core time of one thread on Zen 3 with large products at 91 GFLOP/s; every shape within 5.3 %."""
NARROW_BLOCK, NARROW_HEAD, NARROW_MUON = 0.91, 1.34, 0.96
"""The same of products of 16-bit factors, over the measured rate of such; logits are computed in float32."""
BESIDE_HEAD = 0.23
"""What a width of 64 adds to the head's, over the rate of float32: softmax and rounding.
Least squares over 14 shapes (widths 64 to 512, 65 to 8,192 ids, windows of 64 to 4,096 tokens, 1,024 to 4,096
tokens a step), two threads on Zen 5 at 224 and 828 GFLOP/s; every shape within 5.6 %."""
CALL_SECONDS = 0.35e-3
"""Core-seconds per layer and pass for what does not grow with the batch."""
ADAM_SECONDS = 4.9e-9
"""Core-seconds per weight that AdamW trains, gradients cleared and checked."""
MUON = 1.22
"""Time of Muon's products per FLOP, over that of large products (widths 192 and 256)."""
SHARED = 1.12
"""What several threads lose in a step beside products alone: 1.06 to 1.18 in five settings, two cores."""
PLAIN_SECONDS = 2.2e-9
"""Core-seconds that plain torch adds per float that norms, rotations and gates touch."""
TORCH_BYTES = 390 * 2**20
"""Resident bytes of a worker that has imported torch, before the first tensor, and of its parent."""
SAVE_BYTES_PER_SECOND = 250e6
STAGE_SECONDS = 2.2
"""Opening tokens, building the model, writing the folder, and what is left of importing torch; kernels are
compiled ahead."""


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """One optimiser step of all processes together."""

    seconds: float
    flops: float
    gemm_share: float
    """Rate over the machine's measured one."""


def fuses(spec: ModelSpec) -> bool:
    """Says whether `nn/fused.py` computes the blocks of such a shape, or plain torch does."""
    norms = spec.centred_norms or spec.sandwich_norms
    return spec.ffn in ("swiglu", "relu2") and not (norms or spec.qkv_bias or spec.shared().rank)


def gemm_rate(machine: Machine, precision: str = "fp32") -> float:
    """Gives the FLOP/s of matrix products on all cores: small ones share cores less well than large ones."""
    if precision == "bf16" and machine.bf16_flops:
        return machine.bf16_flops
    large = machine.gemm_flops or USUAL_FLOPS * machine.cores
    return 0.5 * (large + (machine.gemm_small_flops or large))


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
    updates: float = 1.0,
    precision: str = "fp32",
    recompute: bool = False,
) -> StepCost:
    """Forecasts one optimiser step, the mean of all.

    Args:
        spec: the model.
        machine: its rates.
        batch: tokens of a step, over all processes.
        context: tokens of a window.
        micro: tokens of a forward pass.
        muon: whether Muon trains the matrices.
        iterations: of its orthogonalisation.
        fused: whether compiled kernels are used, where they can compute the shape.
        processes: that share the cores.
        updates: share of the steps that move the head; the others make no gradient of its rows.
        precision: of the products.
        recompute: whether the backward pass computes each block again.
    """
    rate = gemm_rate(machine)
    narrow = 64 / spec.width
    passes_over = 4.0 if recompute else 3.0
    blocks = passes_over * (spec.product_flops() - spec.head_flops()) * batch
    spared = head_gradient_flops(spec) * batch * (1 - updates)
    head = 3.0 * spec.head_flops() * batch - spared
    turns = muon_flops(spec, iterations) * processes if muon else 0.0
    sizes = spec.layer_sizes(context)
    mixed = [(one, passes_over * one.flops * one.slowness * batch) for one in sizes]
    half = machine.bf16_flops if precision == "bf16" else None
    if half:
        products = blocks * NARROW_BLOCK + head * NARROW_HEAD + NARROW_MUON * turns
        products = products * rate / half + head * BESIDE_HEAD * narrow
        products += sum(time * one.narrow for one, time in mixed)
    else:
        products = blocks * (BLOCK + BLOCK_NARROW * narrow) + head * (HEAD + HEAD_NARROW * narrow)
        products += sum(time for _, time in mixed) + MUON * turns
    passes = max(1, -(-batch // (micro or batch)))
    other = passes * (spec.layers + 2) * CALL_SECONDS
    adam = spec.parameters() - (spec.matrix_parameters() if muon else 0)
    adam -= (1 - updates) * head_gradient_flops(spec) / 2  # The head's weights.
    other += adam * ADAM_SECONDS * processes / machine.cores
    if not (fused and fuses(spec)):
        gated = 2 if spec.ffn == "relu2" else 3
        floats = batch * spec.layers * (8 * spec.width + 4 * spec.q_width + gated * 2 * spec.ffn_width)
        other += floats * PLAIN_SECONDS / machine.cores
    seconds = (products / rate + other) * (SHARED if machine.cores > 1 else 1.0)
    flops = batch * spec.flops_per_token(context) - spared
    share = flops / seconds / (machine.product_flops(precision) or rate)
    return StepCost(seconds=seconds, flops=flops, gemm_share=share)


def head_gradient_flops(spec: ModelSpec) -> int:
    """Counts one token's products for the gradient of the head's rows, the narrow ones where it has such."""
    return 2 * spec.vocab_size * (spec.embed_width or spec.width)


def head_updates(every: int, steps: int | None) -> float:
    """Gives the share of the steps that move the head, the first step and then each `every`-th."""
    return 1 / every if steps is None else -(-steps // every) / steps


def muon_flops(spec: ModelSpec, iterations: int = 4) -> float:
    """Counts the products of one Muon step over all matrices of the blocks."""
    total = 0.0
    sizes = spec.layer_sizes()
    for layer in spec.stored_layers():
        for rows, columns in (*sizes[layer].matrices, *ffn_matrices(spec)):
            low, high = min(rows, columns), max(rows, columns)
            total += iterations * (4.0 * low * low * high + 2.0 * low**3)
    return total


def micro_tokens(spec: ModelSpec, batch: int, context: int, room: int | None, recompute: bool = False) -> int:
    """Chooses the tokens of one forward pass: the whole batch, unless its activations outgrow the room."""
    if room is None:
        return batch
    per_token = activation_bytes(spec, context, recompute) / context
    most = max(context, int(room // max(1, per_token)) // context * context)
    return min(batch, most)


def activation_bytes(
    spec: ModelSpec, tokens: int, recompute: bool = False, *, context: int | None = None, narrow: bool = False
) -> int:
    """Counts what one forward pass keeps for its backward pass, and what both hold for a moment.

    Args:
        spec: the model.
        tokens: of the pass.
        recompute: whether a block's own are computed again.
        context: of a window; by default there is one.
        narrow: whether numbers between products are kept in 16 bits (`nn/fused_narrow.py`).
    """
    window = context or tokens
    gates = 2 if spec.ffn == "relu2" else 3
    more = 0 if fuses(spec) else _kept_by_autograd(spec)
    by_layer = []
    for one in spec.layer_sizes(tokens):
        if narrow and fuses(spec) and one.narrow < 1:
            weights = spec.heads * window if window <= WEIGHTS_KEPT else 0
            heads = 3 * spec.q_width + 4 * spec.kv_width
            by_layer.append((2 * spec.width + heads + weights + gates * spec.ffn_width) / 2)
        else:
            by_layer.append(5 * spec.width + one.kept + gates * spec.ffn_width + more)
    kept = spec.layers * spec.width + max(by_layer) if recompute else sum(by_layer)
    moment = 4 * spec.width + 2 * gates * spec.ffn_width + 2 * spec.q_width
    return round(4 * tokens * (kept + moment))


def _kept_by_autograd(spec: ModelSpec) -> int:
    """Counts the floats of a token and layer that plain torch keeps beside the kernels, by width 128."""
    experts = 0 if spec.ffn in (*GATED, "relu2") else len(ffn_matrices(spec, active=True)) // 3
    return spec.ffn_width + (8 if spec.sandwich_norms else 4) * spec.width + 3 * experts * spec.width


def state_bytes(spec: ModelSpec, muon: bool = True) -> int:
    """Counts weights, gradients and the optimiser's averages."""
    matrices, rest = spec.matrix_parameters(), spec.parameters() - spec.matrix_parameters()
    # Muon keeps one average and, for a moment, three copies of the largest stack.
    return 4 * (matrices * (3 + 2 if muon else 4) + rest * 4)


def corpus_start_bytes(vocab_size: int) -> int:
    """Counts what starting from the corpus's statistics holds at its peak: three tables of pairs."""
    rows = min(vocab_size, 8192)
    return 3 * 4 * rows * rows


def corpus_start_seconds(
    vocab_size: int, width: int, tokens: int, machine: Machine, rounds: int = 32
) -> float:
    """Forecasts starting from the corpus's statistics."""
    rows = min(vocab_size, 8192)
    rate = gemm_rate(machine)
    products = rounds * 6.0 * rows * rows * width + 7 * 2.0 * rows * rows * (width + 16)
    touched = (rounds * 4.5e-9 + 12e-9) * rows * rows / machine.cores
    return 1.1 * products / rate + machine.paced(touched) + min(tokens, 24_000_000) * 1.6e-8 + 0.1


def look_back_seconds(spec: ModelSpec, tokens: int, machine: Machine, heads: int) -> float:
    """Forecasts heads that begin by looking back: counts of pairs, their products, and windows tried."""
    rows, width = min(spec.vocab_size, 8192), spec.width
    products = 2.0 * rows * rows * width * (2 + 3 * heads)
    tried = 6 * 32 * 256 * spec.forward_flops_per_token(256)
    touched = (heads + 1) * (min(tokens, 24_000_000) * 1.6e-8 + rows * rows * 4e-9)
    return 1.2 * (products + 1.3 * tried) / gemm_rate(machine) + touched


def rounds_for(vocab_size: int, width: int, tokens: int, machine: Machine, seconds: float | None) -> int:
    """Chooses the rounds of refinement: 32, fewer where they would take over a sixteenth of the time."""
    if seconds is None:
        return 32
    none = corpus_start_seconds(vocab_size, width, tokens, machine, 0)
    each = (corpus_start_seconds(vocab_size, width, tokens, machine, 32) - none) / 32
    return max(8, min(64, int((seconds / 16 - none) / each)))


def peak_bytes(
    spec: ModelSpec,
    *,
    micro: int,
    muon: bool = True,
    processes: int = 1,
    corpus_start: bool = True,
    recompute: bool = False,
    shard: bool = False,
    context: int | None = None,
    precision: str = "fp32",
) -> int:
    """Forecasts the peak resident bytes of all processes together."""
    chunk = 3 * 8 * 2**20 + 2 * 4 * micro * spec.width + 4 * spec.embedding_parameters()
    held = state_bytes(spec, muon)
    if shard:
        # A process holds its part of the blocks' weights, gradients and averages, and one block whole, twice.
        block = spec.matrix_parameters() // max(1, len(spec.stored_layers()))
        held -= 16 * spec.matrix_parameters() * (processes - 1) // processes - 8 * block
    narrow = precision == "bf16"
    training = held + activation_bytes(spec, micro, recompute, context=context, narrow=narrow) + chunk
    starting = 4 * spec.parameters() + (corpus_start_bytes(spec.vocab_size) if corpus_start else 0)
    return processes * (TORCH_BYTES + max(training, starting))
