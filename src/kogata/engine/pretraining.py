"""Puts a pretraining run together: tokens, decoder, objective, optimiser, schedule; then runs the loop."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kogata.core.amounts import format_count
from kogata.core.errors import DataError, RecipeError
from kogata.core.recipe import Clock
from kogata.core.stage import Bench
from kogata.core.variants import Choice
from kogata.engine import techniques
from kogata.engine.autoshape import model_facts
from kogata.engine.convert import load_decoder, save_decoder
from kogata.engine.costs import head_gradient_flops
from kogata.engine.heap import give_back, kept
from kogata.engine.initialise import initialise_from_corpus
from kogata.engine.look_back import look_back
from kogata.engine.loop import Outcome, Training, train
from kogata.engine.objectives import LanguageModelling
from kogata.engine.optimisers import build_optimiser, hold_gains
from kogata.engine.parallel import Group, local_rank, local_world
from kogata.engine.precision import products_in
from kogata.engine.sampler import Learner
from kogata.engine.sampling import make_sampler
from kogata.engine.schedule import StepSchedule, TimeSchedule
from kogata.engine.sharded import ShardedGroup, shard, whole
from kogata.engine.supply import Supply
from kogata.engine.tokens import TokenStore
from kogata.nn import fused
from kogata.nn.decoder import Decoder
from kogata.nn.kernels import Kernels
from kogata.nn.spec import ModelSpec

SAVE_BYTES_PER_SECOND = 200e6
SAVE_SECONDS = 0.2
"""Kept of a time budget for writing the model: so many seconds, and its bytes at this rate."""
CLIP = 1.0
"""Gradients longer than this are shortened to it: without it single steps at a high rate undid minutes."""
HELDOUT_TOKENS = 4096
START_SHARE = 0.1
"""Of the time left, that the start from the corpus may take on a computer that is busier than planned."""
LEAST_STEPS_FOR_HELDOUT = 100


@dataclass(frozen=True, kw_only=True)
class Length:
    """How long to train: steps, or by the clock."""

    steps: int | None = None
    limit: float | None = None
    """Seconds, where the stage has a time of its own."""
    began: float | None = None
    """When that time began, by the bench's clock; None: with the training."""
    warmup: int | None = 10
    decay: float = 0.6

    def seconds_left(self, bench: Bench) -> float | None:
        """Gives the seconds until training must end; None where steps end it."""
        ends = [end for end in (bench.clock.left(), self.limit) if end is not None]
        return min(ends) if ends and self.steps is None else None

    def schedule(self, bench: Bench, spec: ModelSpec, began: float) -> StepSchedule | TimeSchedule:
        """Makes the schedule; what was done since the stage began counts."""
        assert self.warmup is not None, "whoever knows the steps chooses the warm-up"
        if self.steps is not None:
            return StepSchedule(steps=self.steps, warmup=min(self.warmup, self.steps // 5), decay=self.decay)
        reserve = SAVE_SECONDS + 4 * spec.parameters() / SAVE_BYTES_PER_SECOND
        return TimeSchedule(
            clock=bench.clock,
            reserve=reserve,
            limit=self.limit,
            began=began,
            warmup=self.warmup,
            decay=self.decay,
        )


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """Everything the settings decide."""

    tokens: Path
    """The folder of tokens."""
    facts: dict[str, Any]
    """Its facts."""
    spec: ModelSpec
    length: Length
    model: Path | None = None
    """A model to train on."""
    optimizer: str = "muon"
    lr: float | None = None
    weight_decay: float = 0.0
    batch: int = 2048
    micro: int = 2048
    context: int = 256
    curriculum: Choice | None = None
    """What is seen when; None: `half_length`."""
    sampling: Choice | None = None
    """Which text is sampled and how much it counts; None: `proportional`."""
    apart: bool = False
    """Whether no token may see another document than its own."""
    corpus_start: bool = True
    rounds: int = 32
    """Of the corpus start's refinement."""
    look_back: int = 0
    """Heads of the first layer that begin by looking one, two … tokens back."""
    compile: bool | str = "auto"
    recompute: bool = False
    """Whether the backward pass computes each block again."""
    precision: str = "fp32"
    """Of the products in training steps (engine/precision.py)."""
    shard: bool = False
    """Whether the blocks' weights are divided over the processes."""
    tables_every: int = 1
    """Steps from one update of the head to the next."""
    checkpoint_steps: int | None = None
    techniques: Mapping[str, Any] = field(default_factory=dict)
    """By name, with their settings."""


def pretrain(job: Pretraining, bench: Bench) -> dict[str, Any]:
    """Trains and writes a model folder into `bench.out`; gives its facts."""
    prepare_torch(bench)
    give_back()
    group = Group.join(bench.rank, bench.world)
    try:
        return _pretrain(job, bench, group)
    finally:
        group.leave()


def prepare_torch(bench: Bench) -> None:
    """Gives this process its part of the cores or a card of its own; numbers too small to matter are zero."""
    if bench.device == "cuda":
        torch.cuda.set_device(local_rank(bench.rank) % max(1, torch.cuda.device_count()))
    torch.set_num_threads(max(1, bench.machine.cores // bench.world))
    torch.set_flush_denormal(True)


def _pretrain(job: Pretraining, bench: Bench, group: Group) -> dict[str, Any]:
    began = bench.clock.now() if job.length.began is None else job.length.began
    store = TokenStore.open(job.tokens, "train")
    supply = _supply(job, bench, store)
    sampler = make_sampler(supply, job.curriculum, job.sampling)
    if job.shard:
        group = ShardedGroup(group.rank, group.world)
    fresh = group.newest(bench.checkpoints) is None
    decoder, corpus_start = _decoder(job, bench, store, group, fresh)
    if job.shard:
        shard(decoder, group, bench.device)
    decoder.recompute = job.recompute
    objective, kernels = _objective(job, bench, decoder)
    objective.narrow = job.precision == "bf16" and bench.device != "cpu"
    acting = techniques.make(job.techniques, decoder)
    for technique in acting:
        sampler = technique.draw_from(sampler, supply)
    optimiser = build_optimiser(
        decoder,
        job.optimizer,
        lr=job.lr,
        weight_decay=job.weight_decay,
        corpus_start=corpus_start,
        continued=job.model is not None,
        tables_every=job.tables_every,
    )
    schedule = job.length.schedule(bench, decoder.spec, began)
    run = Training(
        model=decoder,
        objective=objective,
        sampler=sampler,
        optimiser=optimiser,
        schedule=schedule,
        techniques=acting,
        group=group,
        heldout=_heldout(job, decoder),
        precision=job.precision,
        flops_per_token=float(decoder.spec.flops_per_token(job.context)),
        resting_flops=float(head_gradient_flops(decoder.spec)),
        checkpoint_steps=job.checkpoint_steps,
        clip=CLIP,
    )
    # What techniques draw follows from the seed; a resumed run goes on from the state it saved.
    torch.manual_seed(bench.seed * 64 + group.rank)
    with kept(), products_in(job.precision):
        outcome = train(run, bench)
    record = schedule.record(outcome.steps)
    clocked = job.length.steps is None
    training = {
        **record,
        "decay": round((outcome.steps - record["decay_start"]) / max(1, outcome.steps), 4),
        "tokens": outcome.tokens,
        "epochs": round(outcome.epochs, 4),
        "loss": None if outcome.loss is None else round(outcome.loss, 6),
        "batch": job.batch,
        "context": job.context,
        "optimizer": job.optimizer,
        "lr": optimiser.lr,
        "tables_every": job.tables_every,
        "precision": job.precision,
        "corpus_start": corpus_start,
        "kernels": kernels,
        "techniques": {name: settings.model_dump() for name, settings in job.techniques.items()},
        "processes": bench.world,
    }
    for told in (*acting, *([sampler] if isinstance(sampler, Learner) else [])):
        training |= told.record()
    if job.shard:
        decoder = whole(decoder)
    if group.rank == 0:
        _write(job, bench, decoder, outcome, training, clocked)
    group.wait()
    return {**model_facts(decoder.spec, job.facts), "training": training}


def _supply(job: Pretraining, bench: Bench, store: TokenStore) -> Supply:
    if store.tokens <= job.context:
        raise DataError(
            "the training tokens fill no window",
            where=f"stage {bench.label}",
            found=f"{store.tokens:,} tokens for training",
            expected=f"more than the context of {job.context}",
            remedy="give more text, or a smaller `context`",
        )
    return Supply(
        store=store,
        folder=job.tokens,
        facts=job.facts,
        context=job.context,
        batch=job.batch,
        micro=job.micro,
        seed=bench.seed,
        device=bench.device,
        label=bench.label,
        apart=job.apart,
        say=bench.log,
    )


def _decoder(
    job: Pretraining, bench: Bench, store: TokenStore, group: Group, fresh: bool
) -> tuple[Decoder, bool]:
    """Makes the model: a given one, or a new one that starts from the corpus where that can be."""
    if job.model is not None:
        decoder = load_decoder(job.model)
        if decoder.spec.vocab_size < int(job.facts["vocab_size"]):
            raise RecipeError(
                "the tokens do not belong to the model",
                where=f"stage {bench.label}",
                found=f"token ids up to {int(job.facts['vocab_size']) - 1}",
                expected=f"ids below the model's {decoder.spec.vocab_size}",
                remedy="encode the text with the model's own tokenizer",
            )
        return decoder.to(bench.device), False
    decoder = Decoder(job.spec, seed=bench.seed)
    hold_gains(decoder)
    start = job.corpus_start and decoder.head is not None
    if start and fresh:
        if group.rank == 0:
            before, left = bench.clock.now(), job.length.seconds_left(bench)
            # The others wait; on all cores the start is to the last bit what one process makes of it.
            torch.set_num_threads(max(1, bench.machine.cores * local_world(bench.world) // bench.world))
            loss = initialise_from_corpus(
                decoder,
                [store.ids],
                seed=bench.seed,
                rounds=job.rounds,
                clock=None if left is None else Clock(before + START_SHARE * left, bench.clock.now),
            )
            if job.look_back:
                look_back(decoder, store.ids, job.look_back)
            give_back()
            prepare_torch(bench)
            took = bench.clock.now() - before
            bench.log(f"embedding and head from the corpus's pairs: {loss:.3f} nats a token ({took:.1f} s)")
        outer: list[torch.nn.Module] = [part for part in (decoder.embed, decoder.head) if part is not None]
        outer += [decoder.layers()[0]] if job.look_back else []
        group.share_tensors([weight for part in outer for weight in part.parameters()])
    return decoder.to(bench.device), start


def _objective(job: Pretraining, bench: Bench, decoder: Decoder) -> tuple[LanguageModelling, str]:
    """Chooses how blocks are computed: kernels compiled in a second, torch.compile, or plain torch."""
    on_cpu = bench.device == "cpu"
    if job.shard:
        # Whole weights are there only within a block's own call: no kernels in its place.
        return LanguageModelling(decoder), "torch"
    if job.compile is False:
        return LanguageModelling(decoder), "torch"
    if not bench.machine.compiler and on_cpu:
        bench.log("no compiler found: plain torch, about a fifth slower")
        return LanguageModelling(decoder), "torch"
    kernels = Kernels.build() if on_cpu else None
    if job.compile is True:
        bench.log("torch.compile: the first step at each length of window takes up to a minute")
        return LanguageModelling(
            decoder, torch.compile(decoder.hidden, dynamic=False), kernels
        ), "torch.compile"
    if kernels is None:
        return LanguageModelling(decoder), "torch"
    if fused.fits(decoder):
        return LanguageModelling(decoder, fused.FusedHidden(decoder, kernels), kernels), "fused"
    return LanguageModelling(decoder, None, kernels), "fused loss"


def _heldout(job: Pretraining, decoder: Decoder) -> Callable[[], float] | None:
    """Makes a look at a small, fixed held-out sample: bits per byte, nearly."""
    facts = job.facts.get("splits", {}).get("heldout") or {}
    steps = job.length.steps
    few = steps is not None and steps < LEAST_STEPS_FOR_HELDOUT
    if few or facts.get("tokens", 0) <= job.context or not facts.get("bytes"):
        return None
    store = TokenStore.open(job.tokens, "heldout")
    windows = min((store.tokens - 1) // job.context, max(1, HELDOUT_TOKENS // job.context))
    starts = np.linspace(0, store.tokens - job.context - 1, windows).astype(np.int64)
    rows = np.stack([store.ids[s : s + job.context + 1] for s in starts]).astype(np.int64)
    ids = torch.from_numpy(rows)
    per_byte = facts["tokens"] / facts["bytes"] / math.log(2)

    @torch.no_grad()
    def look() -> float:
        from kogata.nn.losses import linear_cross_entropy

        device = decoder.embed.weight.device
        hidden = decoder.hidden(ids[:, :-1].to(device))
        targets = ids[:, 1:].to(device)
        scale = 1.0 / targets.numel()
        loss = linear_cross_entropy(*decoder.for_head(hidden), targets, scale=scale, cap=decoder.cap)
        return float(loss) * per_byte

    return look


def _write(
    job: Pretraining,
    bench: Bench,
    decoder: Decoder,
    outcome: Outcome,
    training: dict[str, Any],
    clocked: bool,
) -> None:
    loss = "none measured" if outcome.loss is None else f"{outcome.loss:.3f}"
    bench.log(f"{outcome.steps:,} steps, {format_count(outcome.tokens)} tokens, loss {loss}")
    source = job.tokens / "tokenizer"
    save_decoder(
        decoder.cpu(), bench.out, tokenizer_files_from=source if source.is_dir() else job.model,
        end_id=int(job.facts["end_id"]),
    )  # fmt: skip
    with (bench.out / "training.json").open("w", encoding="utf-8") as file:
        json.dump(training, file, ensure_ascii=False, indent=1, sort_keys=True)
    outcome.write_metrics(bench.out, clocked=clocked)
