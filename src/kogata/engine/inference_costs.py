"""What reading text and writing on will take: seconds and bytes, from the shape alone. Imports no torch."""

from __future__ import annotations

from typing import Any

from kogata.core.receipt import Machine
from kogata.core.stage import Facts
from kogata.engine.costs import TORCH_BYTES, USUAL_FLOPS
from kogata.nn.spec import ModelSpec

GEMM_EFFICIENCY = 0.80
"""Rate of a forward pass's products over the rate of large ones."""
SCORING_BYTES = 84 * 2**20
"""What scoring holds beside torch, weights and activations."""
READ_TOUCH_SECONDS = 7e-10
"""Core-seconds per float that norms, rotations and gates touch in a forward pass without fused kernels.

Calibrated in CPU seconds of one Zen 3 core on shapes of 1 to 12 million weights (read within 20 %)."""
READ_LOGIT_SECONDS = 1.2e-9
"""Core-seconds per logit for softmax and choice."""
STEP_SECONDS = 3.0e-4
"""Of one new token, per layer: operations on single rows are all dispatch."""
LOAD_BYTES_PER_SECOND = 1e9
WRITE_BYTES_PER_SECOND = 120e6
"""Of an export: read, convert, write, and hash when sealed."""
LLAMA_WRITE_SECONDS = 1.0
"""Of writing 100,000 tokens of a vocabulary into a GGUF file."""
LLAMA_START_SECONDS = 0.4
LLAMA_FLOPS = 45e9
"""Of llama.cpp on one core, as its wheel is built; the same in f32, f16 and q8_0 within a third."""
TRANSFORMERS_START_SECONDS = 1.3
TRANSFORMERS_SLOWER = 1.5
"""Its forward pass, beside ours."""


def bytes_per_token(vocab_size: int | None, language: str | None) -> float:
    """Guesses the bytes of a token where no tokenizer is at hand."""
    if vocab_size is None or vocab_size > 30_000:
        return 3.5
    if vocab_size < 600:
        return 1.0
    from kogata.engine.vocabulary import bpe

    return bpe.expected({"language_hint": language or "en"}, vocab_size)[1]


def spec_of(model: Facts) -> ModelSpec | None:
    """Gives a model's shape from its facts; None where our decoder cannot express it."""
    return ModelSpec.from_dict(model["spec"]) if model.get("spec") else None


def forward_flops(model: Facts, context: int) -> float:
    """Counts one token's forward pass: from the shape, or two per weight."""
    spec = spec_of(model)
    if spec is not None:
        return float(spec.forward_flops_per_token(context))
    return 2.0 * (model.get("parameters") or 100e6)


def read_seconds(model: Facts, tokens: float, context: int, machine: Machine) -> float:
    """Forecasts computing the probabilities of so many tokens."""
    flops = tokens * forward_flops(model, context)
    spec = spec_of(model)
    if spec is None:
        return flops / (0.5 * (machine.gemm_flops or USUAL_FLOPS * machine.cores))
    gated = 2 if spec.ffn == "relu2" else 3
    floats = tokens * spec.layers * (8 * spec.width + 4 * spec.q_width + gated * 2 * spec.ffn_width)
    touched = floats * READ_TOUCH_SECONDS + tokens * spec.vocab_size * READ_LOGIT_SECONDS
    # Memory-bound work gains less from a second core than products do.
    return flops / _rate(spec, machine) + machine.paced(touched) / (1 + 0.85 * (machine.cores - 1))


def _rate(spec: ModelSpec, machine: Machine) -> float:
    large = machine.gemm_flops or USUAL_FLOPS * machine.cores
    small = machine.gemm_small_flops or 0.85 * large
    share = 0.5 * min(1.0, 256 / spec.width)
    return GEMM_EFFICIENCY * (share * small + (1 - share) * large)


def write_seconds(model: Facts, tokens: int, machine: Machine) -> float:
    """Forecasts writing so many tokens, one by one."""
    weights = 4.0 * (model.get("parameters") or 100e6)
    layers = int((model.get("spec") or {}).get("layers", 24))
    return tokens * (machine.paced(layers * STEP_SECONDS) + weights / (0.5 * (machine.stream_bytes or 10e9)))


def load_seconds(model: Facts) -> float:
    """Forecasts reading the weights into memory."""
    return 0.2 + 4.0 * (model.get("parameters") or 100e6) / LOAD_BYTES_PER_SECOND


def read_bytes(model: Facts, tokens: int) -> int:
    """Forecasts the peak resident bytes of reading batches of so many tokens."""
    spec: Any = spec_of(model)
    weights = 4 * int(model.get("parameters") or 100e6)
    held = 0
    if spec is not None:
        gated = 2 if spec.ffn == "relu2" else 3
        held = 8 * tokens * (6 * spec.width + 3 * spec.q_width + gated * spec.ffn_width)
    return TORCH_BYTES + SCORING_BYTES + weights + held


def runtime_seconds(runtime: str, model: Facts, tokens: float, window: int, machine: Machine) -> float:
    """Forecasts scoring a file in its own runtime, start included."""
    if runtime == "transformers":
        started = machine.paced(TRANSFORMERS_START_SECONDS + load_seconds(model))
        return started + TRANSFORMERS_SLOWER * read_seconds(model, tokens, window, machine)
    spread = machine.cores if 4 * (model.get("parameters") or 0) > 60e6 else 1
    # Its wheel is built for any chip: it follows a core's plain speed, not what wide products reach.
    products = tokens * forward_flops(model, window) / LLAMA_FLOPS / spread
    return machine.paced(LLAMA_START_SECONDS + load_seconds(model) + products)
