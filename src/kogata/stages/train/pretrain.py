"""train.pretrain: a language model from scratch, or further training of one, in the time or steps given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from kogata.core.amounts import Cost, Forecast, Seconds, format_count
from kogata.core.artifact import Kind
from kogata.core.choices import Choices
from kogata.core.receipt import Machine
from kogata.core.shape import Count, ModelShape, Precision
from kogata.core.stage import Bench, Facts, Given, Resolved, Share, Slot, Stage, one
from kogata.core.variants import Choice, sentence_of

if TYPE_CHECKING:
    from kogata.nn.spec import ModelSpec


class Curriculum(Choice, folder="engine.curriculum"):
    """What training sees when."""


class Sampling(Choice, folder="engine.samplers"):
    """Which text is sampled, and how much it counts."""


class Techniques(Choices, folder="engine.techniques"):
    """What acts on the model while it trains."""


class Pretrain(Stage):
    """Trains a language model on tokens: from scratch, or further from a given one.

    A new model starts as the best bigram model of the corpus (embedding and head from the counts of all
    pairs of tokens, found in seconds), its blocks as the identity. Then small steps of next-token prediction,
    the learning rate held and at last brought to zero, in float32, with products of bf16 factors where the
    processor has such. With a time budget it takes the time its share leaves and ends on it; with steps,
    tokens or epochs the result is the same bit for bit, also when it was killed and resumed.

    Pays when: there is text of your own kind and no model of a fitting size or licence.
    Hurts when: a pretrained model of the language exists and fits the budget: fine-tune that one.
    Cost: all the time it is given; memory about 0.4 GB and 24 bytes a weight.
    Source: Muon (Jordan 2024, and arXiv 2505.16932 for its iteration); decay to zero (arXiv 2502.15938);
        small batches (arXiv 2507.07101); start from pair counts: Kogata.
    Measured here: English novels, 288 s, medians of 3 seeds: 1.699
    [novels.json:median(arms.kogata.*.bits_per_byte):.3f] bits per byte; Hugging Face's Trainer at its best of
    three rates 1.881 [novels.json:median(arms.peer.*.bits_per_byte):.3f]; ours after a third of the time
    1.785 [novels.json:median(arms.kogata_third.*.bits_per_byte):.3f].
    """

    takes: ClassVar[Mapping[str, Slot]] = {
        "tokens": Slot(kinds=(Kind.TOKENS,)),
        "model": Slot(kinds=(Kind.MODEL,), optional=True),
    }
    makes: ClassVar[Kind] = Kind.MODEL
    seeded: ClassVar[bool] = True
    elastic: ClassVar[bool] = True
    parallel: ClassVar[bool] = True
    trains: ClassVar[bool] = True

    model: ModelShape = Field(
        default_factory=ModelShape, description="the shape of a model made from scratch"
    )
    optimizer: Literal["auto", "muon", "normuon", "adamw"] = Field(
        default="auto",
        description="what trains the blocks' matrices (normuon: Muon whose rows all move alike); embedding, "
        "head and vectors have AdamW",
    )
    lr: Literal["auto"] | Annotated[float, Field(gt=0, le=10)] = Field(
        default="auto",
        description="peak learning rate of the blocks' matrices; the others keep their ratio to it",
    )
    batch: Literal["auto"] | Count = Field(default="auto", description="tokens of one optimiser step")
    context: Literal["auto"] | Annotated[int, Field(ge=8)] = Field(
        default="auto", description="tokens of one training window"
    )
    steps: int | None = Field(default=None, gt=0, description="how long: optimiser steps")
    tokens: Count | None = Field(default=None, description="how long: tokens seen, for example 20M")
    epochs: float | None = Field(default=None, gt=0, description="how long: times through the training text")
    time: Seconds | None = Field(
        default=None, description="how long: a time such as 10min, from the stage's start"
    )
    warmup: int = Field(default=10, ge=0, description="steps over which the learning rate rises")
    decay: float = Field(default=0.6, ge=0, le=1, description="share of training over which it falls to zero")
    weight_decay: float = Field(
        default=0.0, ge=0, le=10, description="pull of the blocks' matrices to zero, per lr"
    )
    corpus_start: bool = Field(
        default=True, description="start embedding and head from the corpus's pair counts (untied models)"
    )
    look_back: int = Field(
        default=0,
        ge=0,
        le=2,
        description="heads of the first layer that begin by looking one and two tokens back and by saying "
        "what follows, beside corpus_start; not yet measured",
    )
    tables_every: Literal["auto"] | Annotated[int, Field(ge=1, le=64)] = Field(
        default=1,
        description="steps from one update of the head (an untied output table) to the next; in between its "
        "gradient is not computed; auto: 4 where it saves most; at equal time not yet measured",
    )
    curriculum: Literal["auto"] | Curriculum = Field(
        default="auto", description="what is seen when: how long windows are, or how hard their text"
    )
    sampling: Sampling = Field(
        default_factory=lambda: Sampling.of("proportional"), description="what text, and how much it counts"
    )
    documents: Literal["joined", "apart"] = Field(
        default="joined",
        description="apart: no token sees another document, which costs time where documents are short",
    )
    techniques: Techniques | None = Field(
        default=None,
        description="what acts on the model while it trains: a list of names, or names with their settings",
    )
    checkpoint_every: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        default="auto", description="steps between checkpoints; auto: every half minute"
    )
    precision: Precision = "auto"
    recompute: Literal["auto"] | bool = Field(
        default="auto",
        description="compute blocks again in the backward pass; auto: where they fit the memory only so",
    )
    shard: bool = Field(
        default=False,
        description="divide the blocks' weights over the processes (FSDP2): for models that fit none alone",
    )
    compile: Literal["auto"] | bool = Field(
        default="auto",
        description="auto: small kernels, compiled in a second, or torch.compile where it saves more of the "
        "budget than it costs; true: torch.compile; false: plain torch",
    )

    @model_validator(mode="after")
    def _one_length(self) -> Pretrain:
        given = [name for name in ("steps", "tokens", "epochs", "time") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"at most one of steps, tokens, epochs and time; found {' and '.join(given)}")
        return self

    def clocked(self, share: Share) -> bool:
        """Says whether the clock ends training."""
        counted = self.steps is not None or self.tokens is not None or self.epochs is not None
        return self.time is not None or (not counted and share.seconds is not None)

    def _seconds(self, share: Share) -> float | None:
        given = [value for value in (self.time, share.seconds) if value is not None]
        return min(given) if given and self.clocked(share) else None

    def _steps(self, batch: int, train_tokens: int) -> int | None:
        if self.steps is not None:
            return self.steps
        from kogata.engine import techniques

        tokens = self.tokens if self.tokens is not None else self.epochs and self.epochs * train_tokens
        mean = techniques.mean_batch(self._techniques(), batch)
        return None if not tokens else max(1, round(tokens / mean))

    def resolve(self, facts: Mapping[str, Facts | None], machine: Machine, share: Share) -> Resolved:
        """Chooses shape, context, batch, learning rate and length from time, data and machine."""
        from kogata.engine import autoshape, autosize, compiling, precision, techniques
        from kogata.engine.curriculum import check_measure
        from kogata.engine.samplers import check_apart, check_pair

        tokens = _tokens_facts(facts)
        train = tokens["splits"]["train"]
        reasons: dict[str, str] = {}
        changes: dict[str, Any] = {}
        seconds = self._seconds(share)
        form, reason = precision.choose(self.precision, machine, "train.pretrain")
        if reason:
            changes["precision"], reasons["precision"] = form, reason
        given = autoshape.given_spec(facts)
        if given is not None:
            autosize.refuse_other_shape(self.model, given)
        context, reason = self.context, ""
        if context == "auto":
            context, reason = autosize.context_for(train["tokens"], train["documents"], tokens["vocab_size"])
            if given is not None:
                context = min(context, given.context)
            reasons["context"], changes["context"] = reason, context
        batch = self.batch
        if batch == "auto":
            seen = float(self.tokens or (self.epochs or autosize.MOST_EPOCHS) * train["tokens"])
            seen = self.steps * 1024.0 if self.steps else seen
            batch, reason = autosize.batch_for(tokens["vocab_size"], context, seconds, seen)
            reasons["batch"], changes["batch"] = reason, batch
        if self.optimizer == "auto":
            changes["optimizer"], reasons["optimizer"] = autosize.optimizer_for()
        optimizer = changes.get("optimizer", self.optimizer)
        typical = techniques.mean_batch(self._techniques(), batch)
        if self.lr == "auto":
            changes["lr"], reasons["lr"] = autosize.lr_for(
                optimizer, batch, tokens["vocab_size"], given is not None
            )
        spec = given
        if spec is None:
            shape, reason = autoshape.choose(
                self.model,
                tokens["vocab_size"],
                context,
                typical,
                seconds=seconds,
                steps=self._steps(batch, train["tokens"]),
                machine=machine,
                tables_every=self._tables_every,
                precision=form,
            )
            extras = autosize.Extras.of(self.model)
            spec = autosize.spec_of(self.model.family, shape, tokens["vocab_size"], context, extras)
            sizes = {name: getattr(shape, name) for name in shape.__dataclass_fields__}
            changes["model"] = self.model.model_copy(update={**sizes, "parameters": "auto"})
            if reason:
                reasons["model.parameters"] = f"{reason}: {format_count(spec.parameters())} weights"
        start = self.corpus_start and given is None
        every, reason = autosize.tables_every_for(spec, self.tables_every, start)
        if reason:
            reasons["tables_every"], changes["tables_every"] = reason, every
        if set(spec.mixers or ()) - {"full"}:
            reasons["model.pattern"] = autosize.pattern_reason(spec, context)
        if seconds is None and self._steps(batch, train["tokens"]) is None:
            steps, reason = autosize.length_for(spec, typical, context, train["tokens"], machine, every, form)
            changes["steps"], reasons["steps"] = steps, reason
        curriculum = self.curriculum
        if curriculum == "auto":
            curriculum = Curriculum.of(autosize.curriculum_for(context, self.sampling.variant))
            changes["curriculum"], reasons["curriculum"] = curriculum, sentence_of(curriculum.variant)
        check_pair(curriculum, self.sampling, "train.pretrain")
        if self.documents == "apart":
            check_apart(curriculum, self.sampling, "train.pretrain")
        check_measure(curriculum, tokens, "train.pretrain")
        apart = self.documents == "apart"
        course = techniques.Course(
            batch=batch, context=context, curriculum=curriculum, sampling=self.sampling, apart=apart
        )
        techniques.check(self._techniques(), spec, "train.pretrain", course)
        most = techniques.largest_batch(self._techniques(), batch)
        sizes = spec, self.recompute, most, context, share, _room(share), optimizer
        changes["recompute"], reason = autoshape.recompute_for(*sizes)
        reasons |= {"recompute": reason} if reason else {}
        if self.shard:
            given_up = bool(changes["recompute"]), self._techniques()
            autoshape.refuse_shard(spec, optimizer, batch, context, *given_up, share)
        if self.checkpoint_every == "auto":
            reasons["checkpoint_every"] = "half a minute's work is the most a kill can cost"
        stage = self.model_copy(update=changes)
        if self.compile == "auto":
            cost = stage.forecast(facts, machine, share).cost
            ways = stage.curriculum, context, share.processes
            pays, reasons["compile"] = compiling.choose(spec, machine, cost.seconds or 0.0, *ways)
            stage = stage.model_copy(update={"compile": True}) if pays else stage
        return Resolved(stage=stage, reasons=reasons)

    def forecast(self, facts: Mapping[str, Facts | None], machine: Machine, share: Share) -> Forecast:
        """States the model's facts and what its training will take."""
        from kogata.engine import autoshape, autosize, compiling, costs, phases, techniques
        from kogata.engine.curriculum import measuring_bytes

        tokens = _tokens_facts(facts)
        train = tokens["splits"]["train"]
        spec = self._spec(facts)
        assert isinstance(self.batch, int) and isinstance(self.context, int)
        again = self.recompute is True
        most = techniques.largest_batch(self._techniques(), self.batch)
        micro = costs.micro_tokens(spec, most, self.context, _room(share), again)
        muon = self.optimizer != "adamw"
        budget = self._seconds(share)
        steps = None if budget is not None else self._steps(self.batch, train["tokens"])
        fused = self.compile == "auto" and machine.compiler
        parts: dict[str, Any] = {"batch": self.batch, "context": self.context, "micro": micro, "muon": muon}
        parts |= {"fused": fused, "processes": share.processes, "precision": self.precision}
        parts |= {"updates": costs.head_updates(self._tables_every(spec), steps), "recompute": again}
        start = self.corpus_start and not spec.tied and not facts.get("model")
        ratio, price = compiling.forecast(spec, machine, self.compile, self.curriculum, self.context)
        rounds = phases.rounds_for(spec, train, machine, budget) if start else None
        begun = {"rounds": rounds, "look_back": self.look_back, "curriculum": self.curriculum}
        before = price + phases.seconds_before(self._techniques(), spec, machine, train, **begun)
        room = None if budget is None else budget - before
        taken = phases.steps_cost(
            self._techniques(), spec, machine, steps=steps, seconds=room, slower=ratio, **parts
        )
        seconds = before + taken.seconds if budget is None else budget
        sizes: dict[str, Any] = {"micro": micro, "muon": muon, "processes": share.processes}
        sizes |= {"context": self.context, "precision": self.precision, "recompute": again}
        peak = costs.peak_bytes(spec, **sizes, corpus_start=start, shard=self.shard)
        peak += share.processes * techniques.held_by(self._techniques(), spec, train["tokens"])
        measuring = measuring_bytes(self.curriculum, train["tokens"], self.context)
        if measuring:
            held = costs.TORCH_BYTES + costs.state_bytes(spec, muon) + measuring
            peak = max(peak, share.processes * held)
        advice = ""
        if share.memory_bytes is not None and peak > share.memory_bytes:
            extras = None if facts.get("model") else autosize.Extras.of(self.model)
            advice = autosize.what_fits(
                spec, extras, self.context, share.memory_bytes, muon=muon, processes=share.processes
            )
        size = 4 * spec.parameters()
        cost = Cost(
            seconds=seconds,
            cpu_seconds=seconds * machine.cores,
            joules=machine.joules(seconds),
            tokens=round(taken.tokens),
            flops=taken.flops,
            peak_bytes=peak,
            size_bytes=size,
        )
        disk = size + 2 * costs.state_bytes(spec, muon)
        made = autoshape.model_facts(spec, tokens)
        return Forecast(facts=made, cost=cost, disk_bytes=disk, advice=advice)

    def _techniques(self) -> dict[str, Any]:
        return {} if self.techniques is None else self.techniques.chosen

    def _tables_every(self, spec: ModelSpec) -> int:
        from kogata.engine import autosize

        return autosize.tables_every_for(spec, self.tables_every, self.corpus_start)[0]

    def _spec(self, facts: Mapping[str, Facts | None]) -> ModelSpec:
        from kogata.engine import autoshape, autosize

        given = autoshape.given_spec(facts)
        if given is not None:
            return given
        assert isinstance(self.context, int)
        vocab_size, extras = _tokens_facts(facts)["vocab_size"], autosize.Extras.of(self.model)
        sizes: dict[str, Any] = {"machine": Machine(), "tables_every": self._tables_every}
        shape, _ = autoshape.choose(self.model, vocab_size, 256, 1, seconds=1.0, steps=None, **sizes)
        return autosize.spec_of(self.model.family, shape, vocab_size, self.context, extras)

    def run(self, given: Given, bench: Bench) -> Facts:
        """Trains and writes a Hugging Face folder with its metrics."""
        began = bench.clock.now()  # Importing torch is a part of the stage's time.
        from kogata.engine import costs, phases, techniques
        from kogata.engine.pretraining import Length, Pretraining, pretrain

        tokens, start = one(given, "tokens"), given.get("model")
        facts: dict[str, Facts | None] = {"tokens": tokens.facts, "model": start.facts if start else None}
        assert isinstance(self.batch, int) and isinstance(self.context, int) and self.lr != "auto"
        spec = self._spec(facts)
        train = tokens.facts["splits"]["train"]
        steps = None if self.clocked(bench.share) else self._steps(self.batch, train["tokens"])
        again = self.recompute is True
        most = techniques.largest_batch(self._techniques(), self.batch)
        job = Pretraining(
            tokens=tokens.path,
            facts=tokens.facts,
            spec=spec,
            length=Length(steps=steps, limit=self.time, began=began, warmup=self.warmup, decay=self.decay),
            model=start.path if start else None,
            optimizer=self.optimizer,
            lr=self.lr,
            weight_decay=self.weight_decay,
            batch=self.batch,
            micro=costs.micro_tokens(spec, most, self.context, _room(bench.share), again),
            context=self.context,
            corpus_start=self.corpus_start,
            rounds=phases.rounds_for(spec, train, bench.machine, self._seconds(bench.share)),
            look_back=self.look_back,
            compile=self.compile,
            recompute=again,
            shard=self.shard and bench.world > 1,
            precision=self.precision,
            tables_every=self._tables_every(spec),
            curriculum=None if self.curriculum == "auto" else self.curriculum,
            sampling=self.sampling,
            apart=self.documents == "apart",
            techniques=self._techniques(),
            checkpoint_steps=None if self.checkpoint_every == "auto" else self.checkpoint_every,
        )
        return pretrain(job, bench)

    def steps_taken(self, facts: Facts) -> dict[str, Any]:
        """Gives the settings that replay a result without a clock."""
        training = facts["training"]
        length = {"steps": training["steps"], "tokens": None, "epochs": None, "time": None}
        from kogata.engine import techniques

        replay = techniques.replayed(self._techniques(), training)
        return {**length, "warmup": training["warmup"], "decay": training["decay"], **replay}


def _room(share: Share) -> int | None:
    """Gives the bytes for the activations of one process: a third of the budget."""
    return None if share.memory_bytes is None else share.memory_bytes // (3 * share.processes)


def _tokens_facts(facts: Mapping[str, Facts | None]) -> Facts:
    tokens = facts["tokens"]
    assert tokens is not None
    return tokens
