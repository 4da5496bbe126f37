"""What fine-tuning will take: tokens, seconds and bytes, from shapes and counts alone. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from kogata.core.receipt import Machine
from kogata.core.stage import Facts
from kogata.engine.costs import TORCH_BYTES, gemm_rate
from kogata.engine.finetune._common import Work
from kogata.nn.spec import ModelSpec

PRODUCTS = 1.0
"""Time of the products per FLOP, over that of the machine's mean rate."""
TOUCH_SECONDS = 3.0e-10
"""Core-seconds per float that norms, rotations, gates and sums touch, forward and backward."""
TOUCH_PLAIN = 4.0
"""How many times that plain torch takes."""
CALL_SECONDS = 3.0e-4
"""Core-seconds per layer and pass for what does not grow with the tokens."""
DOCUMENT_SECONDS = 4.0e-5
"""Core-seconds per layer and document for attention by document."""
ADAM_SECONDS = 4.9e-9
MICRO = 1024
"""Tokens of one forward pass where memory does not bind: more are no faster, and take more memory."""
TURN_TOKENS = 14
"""Tokens that a chat template adds to an example."""
STAGE_SECONDS = 3.5
"""Importing torch and transformers' tokenizers, rendering, reading and writing."""


@dataclass(frozen=True, kw_only=True)
class Rowful:
    """Sizes of the rows: measured, or guessed from bytes before they are tokenised."""

    rows: int
    tokens: float
    """Of one row, on average."""
    trained: float
    """Of one row, tokens with a loss."""
    longest: int


def guess_rows(examples: Facts, split: str, vocab_size: int | None, context: int) -> Rowful:
    """Guesses the tokens of a split of examples from its bytes."""
    from kogata.engine.inference_costs import bytes_per_token

    facts = (examples.get("splits") or {}).get(split) or {}
    rows = int(facts.get("examples") or 0)
    language = examples.get("language_hint")
    each = bytes_per_token(vocab_size, language) * (0.7 if language == "ja" else 1.0)
    turns = 0 if examples.get("form") in ("text", "completion-raw") else TURN_TOKENS
    tokens = min(float(context), float(facts.get("bytes") or 0) / max(1, rows) / each + turns)
    return Rowful(rows=rows, tokens=tokens, trained=0.5 * tokens, longest=min(context, round(3 * tokens)))


def token_flops(spec: ModelSpec, work: Work, rows: Rowful, *, again: bool = False) -> float:
    """Counts one token's training; `again`: the frozen layers' outputs are at hand."""
    above = 1 - max(0, work.first) / spec.layers
    forward = above if again else 1.0
    blocks = 2.0 * spec.matrix_parameters() * (forward + above)
    attention = 2.0 * spec.layers * spec.q_width * rows.tokens * (forward + 2.5 * above)
    share = rows.trained / max(1.0, rows.tokens)
    head = 2.0 * spec.vocab_size * spec.width * share
    dense = 2.0 * min(work.dense, spec.matrix_parameters())
    dense += head if work.dense > spec.matrix_parameters() else 0.0
    return blocks + attention + 2 * head + dense + 6.0 * work.added


def step_seconds(
    spec: ModelSpec,
    work: Work,
    rows: Rowful,
    machine: Machine,
    *,
    batch: int,
    micro: int,
    again: bool = False,
    fused: bool = True,
    processes: int = 1,
) -> float:
    """Forecasts one optimiser step of `batch` rows."""
    tokens = batch * rows.tokens
    above = 1 - max(0, work.first) / spec.layers
    products = PRODUCTS * tokens * token_flops(spec, work, rows, again=again) / gemm_rate(machine)
    floats = tokens * spec.layers * (above + (0 if again else 1 - above) / 3)
    floats *= 14 * spec.width + 10 * spec.q_width + 10 * spec.ffn_width
    touched = floats * TOUCH_SECONDS * (1.0 if fused else TOUCH_PLAIN)
    passes = max(1, -(-int(tokens) // micro))
    calls = spec.layers * (passes * CALL_SECONDS + batch * DOCUMENT_SECONDS)
    return products + (touched + calls + work.trained * ADAM_SECONDS * processes) / machine.cores


def held_bytes(spec: ModelSpec, work: Work, hold: str = "fp32") -> int:
    """Counts weights, gradients, averages and the best weights so far."""
    each = {"fp32": 4.0, "bf16": 2.0, "int8": 1.02}[hold]
    matrices = spec.matrix_parameters()
    base = each * matrices + 4.0 * (spec.parameters() - matrices)
    added = 4 * work.added
    return round(base + added + 12 * work.trained)


def token_bytes(spec: ModelSpec, work: Work) -> int:
    """Counts what one token keeps for the backward pass."""
    layers = spec.layers - max(0, work.first)
    gates = 2 if spec.ffn == "swiglu" else 1
    kept = 2 * spec.width + (spec.q_width + 2 * spec.kv_width) + (spec.q_width + spec.kv_width)
    kept += spec.q_width + gates * spec.ffn_width
    if work.dense or work.added:
        kept += 2 * spec.width + spec.ffn_width + work.rank_floats
    moment = 6 * spec.width + 3 * gates * spec.ffn_width + 4 * spec.q_width
    return 4 * (layers * kept + moment)


def peak_bytes(spec: ModelSpec, work: Work, *, tokens: float, hold: str = "fp32", processes: int = 1) -> int:
    """Forecasts the peak resident bytes with passes of `tokens` tokens."""
    head = 3 * 8 * 2**20 + (8 * spec.vocab_size * spec.width if work.dense > spec.matrix_parameters() else 0)
    own = TORCH_BYTES + EXTRA_BYTES + held_bytes(spec, work, hold) + round(tokens * token_bytes(spec, work))
    return processes * (own + head)


EXTRA_BYTES = 160 * 2**20
"""Of transformers' tokenizer, the rows, and what the allocator keeps."""


def micro_tokens(spec: ModelSpec, work: Work, room: int | None, hold: str = "fp32") -> int:
    """Chooses the tokens of one forward pass: `MICRO`, fewer where the room is small."""
    if room is None:
        return MICRO
    left = room - peak_bytes(spec, work, tokens=0, hold=hold)
    return int(max(64, min(MICRO, left // token_bytes(spec, work))))


def look_seconds(spec: ModelSpec, rows: Rowful, machine: Machine) -> float:
    """Forecasts one look at held-out rows."""
    tokens = min(8192.0, rows.rows * rows.tokens)
    return tokens * spec.forward_flops_per_token(round(rows.tokens) or 1) / gemm_rate(machine)
