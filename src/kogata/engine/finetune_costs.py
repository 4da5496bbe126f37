"""What fine-tuning will take: tokens, seconds and bytes, from shapes and counts alone. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from kogata.core.receipt import Machine
from kogata.core.stage import Facts
from kogata.engine.costs import TORCH_BYTES, gemm_rate
from kogata.engine.finetune._common import Work
from kogata.engine.pieces import guess_tokens
from kogata.nn.mixers import attention_slowness
from kogata.nn.shapes import KEPT_SHAPES
from kogata.nn.spec import ModelSpec

Hold = Literal["fp32", "bf16", "int8", "disk"]
"""How the frozen matrices of the blocks lie in memory, widest first; `disk`: in 16 bits in a file."""
HELD_BYTES: dict[Hold, float] = {"fp32": 4.0, "bf16": 2.0, "int8": 1.02, "disk": 0.0}
"""Of a weight, scales included."""
WIDEN_SECONDS: dict[Hold, float] = {"fp32": 0.0, "bf16": 5.0e-10, "int8": 9.0e-10, "disk": 5.0e-10}
"""Core-seconds per weight that is widened for one product."""


READ_BYTES_PER_SECOND = 1e9
"""Of a file of weights, while the layer before is computed."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """What a run does to need less memory."""

    hold: Hold = "fp32"
    recompute: bool = False
    """Whether the backward pass computes again what the forward pass would keep within a layer."""


PLAIN = Form()
HALF = Form(hold="bf16")
"""What costs nothing where products round their factors to the same 16 bits."""
SMALLEST = Form(hold="int8", recompute=True)
"""The last resort: weights in 8 bits are rounded more than most checkpoints can bear unseen."""

STREAMED = Form(hold="disk", recompute=True)
"""Where even that does not fit: weights from disk, exact where the checkpoint has 16 bits."""

SLOW_DENSE = 0.6
"""How much longer than others the products for gradients of whole matrices take, and what adds them up: every
weight of SmolLM2-135M, in float32 and in 16 bits, was forecast 15 % short without it."""
PRODUCTS = 1.0
"""Time of the products per FLOP, over that of the machine's mean rate."""
TOUCH_SECONDS = 3.0e-10
"""Core-seconds per float that norms, rotations, gates and sums touch, forward and backward."""
TOUCH_NARROW = 2.0
"""How many times that where factors are rounded and products widened."""
TOUCH_PLAIN = 4.0
"""How many times that plain torch takes."""
CALL_SECONDS = 3.0e-4
"""Core-seconds per layer and pass for what does not grow with the tokens."""
READY_SECONDS = {"fp32": 1.0e-9, "bf16": 2.0e-10}
"""Core-seconds per weight and product until it can be multiplied, by the format of products: what a pass of
few tokens costs (58 to 1,024 tokens, matrices of SmolLM2-135M, two Zen 5 cores)."""
NARROW_ATTENTION = 0.4
"""Share of the time of attention by row that is left where factors are rounded to 16 bits."""
DOCUMENT_SECONDS = 4.0e-5
"""Core-seconds per layer and document for attention by document."""
ADAM_SECONDS = 4.9e-9
MICRO = 1024
"""Tokens of one forward pass where memory does not bind: more are no faster, and take more memory."""
AHEAD_TOKENS = 512
"""Of several steps that go through frozen layers together: more are hardly quicker."""
LEAST_TOKENS = 64
"""Of a pass, and of a row that is trained on, however small the room."""
ROOM = 0.93
"""Share of the memory that is planned with: a forecast may be wrong by the rest."""
TURN_TOKENS = 14
"""Tokens that a chat template adds to an example."""
STAGE_SECONDS = 3.5
"""Importing torch and transformers' tokenizers, rendering, reading and writing."""
ENDS = 2
"""Tokens that end an answer and are trained."""
USUAL_VOCABULARY = 16_000
"""From which on words are mostly one token."""
LOGIT_ROWS = 192
"""Held at once by the loss, at least."""
EXTRA_BYTES = 60 * 2**20
"""Of transformers' tokenizer, the rows, and what the allocator keeps, beyond what `TORCH_BYTES` has."""
FOREIGN_BYTES = 100 * 2**20
"""Of transformers' modules and what they load."""
NARROW_BYTES = round(0.64 * 2**20)
"""Of the code that products of 16-bit factors are computed with, which is made for each shape and kept."""
MOMENT = 3.3
"""What a token needs while one layer is computed, over the largest tensors of it: peaks of SmolLM2-135M with
LoRA at 252, 508 and 996 tokens a pass, with and without activations computed again."""
LOOKS = 10
"""Looks at held-out rows over a run, the first and the last included."""
LEAST_LOOK, MOST_LOOK = 1024, 8192
"""Tokens of held-out rows that one look reads."""
GENERAL_TOKENS = 1500
"""Of the general text that is read before training and after it."""
LOOK_SHARE = 0.02
"""Of the tokens trained on, that one look reads: all looks together then take about a tenth of a run."""


PROBE_FACTORS = (1 / 3, 1.0, 3.0)
"""Learning rates that `lr: auto` tries, over the method's usual one."""
LEAST_TRIAL, MOST_TRIAL = 12, 32
"""Steps that each way is tried for."""
TRIAL_SHARE = 0.2
"""Of a run's steps that all trials of one kind may take together."""


@dataclass(frozen=True, kw_only=True)
class Rowful:
    """Sizes of the rows: measured, or guessed from bytes before they are tokenised."""

    rows: int
    tokens: float
    """Of one row, on average."""
    trained: float
    """Of one row, tokens with a loss."""
    longest: int
    below: float = 1.0
    """Share of the tokens that frozen lower layers compute: what rows begin with counts once a block."""


def guess_rows(examples: Facts, split: str, vocab_size: int | None, context: int) -> Rowful:
    """Guesses the tokens of a split of examples from what was counted of its text."""
    from kogata.engine.inference_costs import bytes_per_token

    facts = (examples.get("splits") or {}).get(split) or {}
    rows, size = int(facts.get("examples") or 0), float(facts.get("bytes") or 0)
    if facts.get("pieces") is not None and (vocab_size is None or vocab_size >= USUAL_VOCABULARY):
        whole = guess_tokens(facts["pieces"], facts.get("wide_letters") or 0, vocab_size)
    else:
        language = examples.get("language_hint")
        whole = size / bytes_per_token(vocab_size, language) / (0.7 if language == "ja" else 1.0)
    turns = 0 if examples.get("form") == "text" else TURN_TOKENS
    tokens = min(float(context), whole / max(1, rows) + turns)
    answers = (facts.get("answer_bytes") or 0.5 * size) / max(1.0, size)
    longest = round((facts.get("longest_bytes") or 0) * whole / max(1.0, size)) + turns
    if longest <= turns:
        longest = round(3 * tokens)
    return Rowful(
        rows=rows,
        tokens=tokens,
        trained=min(1.0, answers) * (tokens - turns) + (ENDS if turns else 0),
        longest=min(context, max(longest, round(tokens))),
    )


def token_flops(
    spec: ModelSpec, work: Work, rows: Rowful, *, again: bool = False, form: Form = PLAIN
) -> float:
    """Counts one token's training; `again`: the frozen layers' outputs are at hand."""
    above = _above(spec, work)
    forward = (above if again else above + (1 - above) * rows.below) + (above if form.recompute else 0.0)
    blocks = 2.0 * spec.matrix_parameters() * (forward + above)
    attention = _attention_flops(spec, work, rows, again=again, form=form)
    share = rows.trained / max(1.0, rows.tokens)
    head = 2.0 * spec.vocab_size * spec.width * share
    return blocks + attention + 2 * head + _dense_flops(spec, work, head) + 6.0 * work.added


def _dense_flops(spec: ModelSpec, work: Work, head: float) -> float:
    """Counts the products of one token for the gradients of whole matrices."""
    dense = 2.0 * min(work.dense, spec.matrix_parameters())
    return dense + (head if work.dense > spec.matrix_parameters() else 0.0)


def _attention_flops(spec: ModelSpec, work: Work, rows: Rowful, *, again: bool, form: Form) -> float:
    above = _above(spec, work)
    forward = (above if again else 1.0) + (above if form.recompute else 0.0)
    return 2.0 * spec.layers * spec.q_width * rows.tokens * (forward + 2.5 * above)


def _above(spec: ModelSpec, work: Work) -> float:
    """Gives the share of the layers that have a backward pass."""
    return 1 - max(0, work.first) / spec.layers


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
    form: Form = PLAIN,
    precision: str = "fp32",
) -> float:
    """Forecasts one optimiser step of `batch` rows."""
    tokens = batch * rows.tokens
    above = _above(spec, work)
    flops = token_flops(spec, work, rows, again=again, form=form)
    rate = gemm_rate(machine)
    half = machine.bf16_flops if precision == "bf16" and not work.foreign else None
    attention = tokens * _attention_flops(spec, work, rows, again=again, form=form)
    head = 2.0 * spec.vocab_size * spec.width * rows.trained / max(1.0, rows.tokens)
    dense = SLOW_DENSE * tokens * _dense_flops(spec, work, head)
    products = PRODUCTS * (tokens * flops - attention + dense) / (half or rate)
    # Attention by row is slower than large products.
    attended = attention * attention_slowness(round(rows.tokens) or 1) / rate
    products += attended * (NARROW_ATTENTION if half and fused else 1.0)
    once = (0 if again else 1 - above) + (above if form.recompute else 0)
    floats = tokens * spec.layers * (above + once / 3)
    floats *= 14 * spec.width + 10 * spec.q_width + 10 * spec.ffn_width
    touched = floats * TOUCH_SECONDS * (1.0 if fused else TOUCH_PLAIN) * (TOUCH_NARROW if half else 1.0)
    passes = max(1, -(-int(tokens) // micro))
    # Frozen lower layers take the rows of several small steps together.
    ahead = work.first > 0 and processes == 1 and not work.foreign
    lower = min(1.0, tokens / AHEAD_TOKENS) if ahead else 1.0
    each = above + (1 - above) * lower
    calls = spec.layers * (passes * each * CALL_SECONDS + batch * DOCUMENT_SECONDS)
    widened = (
        passes * spec.matrix_parameters() * (2 * above + (once - (1 - above) * (1 - lower) * (not again)))
    )
    ready = READY_SECONDS["bf16" if half else "fp32"] * (widened + passes * spec.head_flops())
    widening = 0.0 if half and form.hold in ("bf16", "disk") else widened * WIDEN_SECONDS[form.hold]
    apart = touched + calls + ready + widening + work.trained * ADAM_SECONDS * processes
    seconds = products + apart / machine.cores
    if form.hold != "disk":
        return seconds
    # What is read ahead costs time only where it takes longer than what is computed meanwhile.
    return max(seconds, 2 * widened / READ_BYTES_PER_SECOND)


def held_bytes(spec: ModelSpec, work: Work, form: Form = PLAIN) -> int:
    """Counts weights, gradients, averages and the best weights so far."""
    matrices = spec.matrix_parameters()
    streamed = 2 * 2.0 * matrices / spec.layers if form.hold == "disk" else 0.0
    base = streamed + HELD_BYTES[form.hold] * matrices + 4.0 * (spec.parameters() - matrices)
    return round(base + 4 * (work.added + work.floats) + (12 + 4 * work.best) * work.trained)


def token_bytes(spec: ModelSpec, work: Work, form: Form = PLAIN) -> int:
    """Counts what one token keeps for the backward pass."""
    layers = spec.layers - max(0, work.first)
    gates = 1 if spec.ffn == "relu2" else 2
    kept = 2 * spec.width + (spec.q_width + 2 * spec.kv_width) + (spec.q_width + spec.kv_width)
    kept += spec.q_width + gates * spec.ffn_width
    if work.dense or work.added:
        kept += 2 * spec.width + spec.ffn_width + work.rank_floats
    moment = round(MOMENT * (6 * spec.width + 3 * gates * spec.ffn_width + 4 * spec.q_width))
    if form.recompute:
        return 4 * (layers * spec.width + kept + moment)
    return 4 * (layers * kept + moment)


def peak_bytes(
    spec: ModelSpec,
    work: Work,
    *,
    tokens: float,
    form: Form = PLAIN,
    processes: int = 1,
    precision: str = "fp32",
) -> int:
    """Forecasts the peak resident bytes with passes of `tokens` tokens."""
    logits = max(8 * 2**20, 4 * LOGIT_ROWS * spec.vocab_size)
    head = logits + 16 * 2**20
    if work.dense > spec.matrix_parameters():
        head += 8 * spec.vocab_size * spec.width
    own = TORCH_BYTES + EXTRA_BYTES + held_bytes(spec, work, form) + FOREIGN_BYTES * work.foreign
    own += round(tokens * token_bytes(spec, work, form))
    if precision == "bf16":
        # The head's weights lie there rounded as well.
        own += KEPT_SHAPES * NARROW_BYTES + 2 * spec.vocab_size * spec.width
    return processes * (own + head)


def pass_tokens(rows: Rowful, batch: int, micro: int) -> int:
    """Gives the tokens of the largest pass: a step is cut into even passes, by whole rows."""
    step = batch * rows.tokens
    return max(rows.longest, min(micro, round((1.2 if step <= micro else 1.1) * step / -(-step // micro))))


def fitting_tokens(
    spec: ModelSpec, work: Work, room: int, form: Form = PLAIN, precision: str = "fp32"
) -> int:
    """Counts the tokens of a pass that fit into the room of one process; negative where nothing does."""
    left = ROOM * room - peak_bytes(spec, work, tokens=0, form=form, precision=precision)
    return int(left // token_bytes(spec, work, form))


def micro_tokens(
    spec: ModelSpec, work: Work, room: int | None, form: Form = PLAIN, precision: str = "fp32"
) -> int:
    """Chooses the tokens of one forward pass: `MICRO`, fewer where the room is small."""
    if room is None:
        return MICRO
    return max(LEAST_TOKENS, min(MICRO, fitting_tokens(spec, work, room, form, precision)))


def choose_form(
    spec: ModelSpec,
    work: Work,
    rows: Rowful,
    machine: Machine,
    *,
    batch: int,
    room: int,
    may: Sequence[Form],
    precision: str = "fp32",
) -> tuple[Form, float]:
    """Chooses the quickest form in which the longest row can be trained on; else the smallest.

    Args:
        spec: the model.
        work: the method's.
        rows: guessed or measured.
        machine: for the times.
        batch: rows of a step.
        room: bytes of one process.
        may: forms to choose from; `SMALLEST` among them only where no other fits, then `STREAMED`.
        precision: of the products.

    Returns:
        The form, and its time over that of the first one with memory for it.
    """

    def seconds(form: Form, room: int | None) -> float:
        micro = micro_tokens(spec, work, room, form, precision)
        sizes: dict[str, Any] = {"batch": batch, "micro": micro, "fused": machine.compiler}
        sizes["precision"] = precision
        return step_seconds(spec, work, rows, machine, **sizes, form=form)

    fits = [form for form in may if fitting_tokens(spec, work, room, form, precision) >= rows.longest]
    usual = [form for form in fits if form not in (SMALLEST, STREAMED)]
    fits = usual or [form for form in fits if form == SMALLEST] or fits
    if fits:
        chosen = min(fits, key=lambda form: seconds(form, room))
    else:
        chosen = min(may, key=lambda form: peak_bytes(spec, work, tokens=rows.longest, form=form))
    return chosen, seconds(chosen, room) / seconds(HALF if precision == "bf16" else PLAIN, None)


def trial_steps(planned: float, rows: float, batch: int, ways: int) -> int:
    """Chooses the steps that each of some ways is tried for; 0 where a run is too short for it to pay.

    Args:
        planned: steps of the run.
        rows: to train on; no trial sees one twice.
        batch: rows of a step.
        ways: how many there are.
    """
    each = int(min(MOST_TRIAL, TRIAL_SHARE * planned / ways, rows // batch))
    return each if each >= LEAST_TRIAL else 0


def layer_steps(planned: float, rows: float, batch: int) -> int:
    """Chooses the steps that the top third of the layers, and all of them, are tried for; 0: neither is.

    Upper layers alone pay where rows are seen again: what lies below is then at hand.
    """
    return trial_steps(planned, rows, batch, 2) if planned * batch >= 2 * rows else 0


def probe_rates(usual: float) -> list[float]:
    """Lists the learning rates that are tried."""
    return [float(f"{usual * factor:.2g}") for factor in PROBE_FACTORS]


def load_seconds(spec: ModelSpec) -> float:
    """Forecasts reading a model."""
    return 4 * spec.parameters() / 1e9


def look_tokens(planned: float) -> int:
    """Chooses the tokens that a look at held-out rows reads in a run of so many tokens."""
    return int(min(MOST_LOOK, max(LEAST_LOOK, LOOK_SHARE * planned)))


def look_seconds(
    spec: ModelSpec, rows: Rowful, machine: Machine, most: float, precision: str = "fp32"
) -> float:
    """Forecasts one look at held-out rows, of `most` tokens where there are so many."""
    tokens = min(most, rows.rows * rows.tokens)
    return tokens * spec.forward_flops_per_token(round(rows.tokens) or 1) / gemm_rate(machine, precision)


def seconds_around(spec: ModelSpec, machine: Machine, precision: str = "fp32") -> float:
    """Forecasts what stands around training: reading the model and, twice, the general text."""
    return STAGE_SECONDS + load_seconds(spec) + 2 * general_seconds(spec, machine, precision)


def general_seconds(spec: ModelSpec, machine: Machine, precision: str = "fp32") -> float:
    """Forecasts reading the general text once."""
    return GENERAL_TOKENS * spec.forward_flops_per_token(256) / gemm_rate(machine, precision)
