"""train.finetune: an existing model learns from rows of examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from kogata.core.amounts import Cost, Forecast, Seconds, format_bytes
from kogata.core.artifact import Kind
from kogata.core.receipt import Machine
from kogata.core.shape import Count, Precision
from kogata.core.stage import Bench, Facts, Given, Resolved, Share, Slot, Stage, one
from kogata.core.variants import Choice

MOST_CONTEXT = 2048
FEW_ROWS, MANY_ROWS = 1000, 10_000


class Method(Choice, folder="engine.finetune"):
    """What is trained, and how."""


class Finetune(Stage):
    """Teaches an existing model the answers in your rows.

    Each row becomes the model's own chat format; the loss counts on what the model is to say (the answer and
    its end token), not on what it is asked. Rows lie end to end without padding, a beginning that
    all share (a system message) is computed once, attention stays within a row, and only tokens that are
    trained go through the head. With `lora`, `ia3`, `sparse`, `prompt` and `prefix` an adapter comes out that
    peft reads, with `adapter` one that only Kogata reads; with `full`, `freeze` or `merge: true` a whole
    model. What follows in the recipe takes model and adapter together, or refuses. A model that only
    transformers can build is trained in its module: with `lora` and `peft` through peft, with `freeze` and
    `full`; upper layers alone and narrow weights too, for most kinds. `batch` counts rows here.

    Held-out rows are looked at eight times: the weights that were best on them are kept, and training ends
    early when they stay the best. A general text, read before and after, shows what the model forgets.

    Pays when: a model of your language exists and you have tens to tens of thousands of rows.
    Hurts when: rows are wrong or few: `kogata check` reads them first; below about 100, try a prompt.
    Cost: a pass over the rows takes about as long as reading them three times; see `kogata plan`. Memory:
        what does not fit is held in fewer bits, read from disk or computed again (`hold`, `recompute`).
    Source: LoRA on all linear layers (Schulman et al. 2025, LoRA Without Regret); loss on the answer alone
        or nearly so (arXiv 2405.14394); packing without contamination (arXiv 2407.09105).
    Measured here: LoRA 2.71 [finetune.json:lora.speed_over_plain:.2f] times as fast as TRL in float32, 5.52
        [finetune.json:bf16.lora.speed_over_plain:.2f] times in 16 bits; see the methods.
    """

    takes: ClassVar[Mapping[str, Slot]] = {
        "examples": Slot(kinds=(Kind.EXAMPLES,)),
        "model": Slot(kinds=(Kind.MODEL,)),
    }
    makes: ClassVar[Kind] = Kind.ADAPTER
    seeded: ClassVar[bool] = True
    elastic: ClassVar[bool] = True
    parallel: ClassVar[bool] = True
    trains: ClassVar[bool] = True

    method: Method = Field(
        default=Method.of("lora"),
        description="what is trained: a name such as lora or full, or {lora: {rank: 16}} with its settings",
    )
    lr: Literal["auto"] | Annotated[float, Field(gt=0, le=10)] = Field(
        default="auto",
        description="peak learning rate; auto: the best of three around the usual one of the method and the "
        "model's width, tried for a few dozen steps where the run is long enough for it to pay",
    )
    batch: Literal["auto"] | Count = Field(
        default="auto",
        description="rows (examples) of one optimiser step; auto: 8, 4 or 2, "
        "where an adapter would take few steps",
    )
    context: Literal["auto"] | Annotated[int, Field(ge=8)] = Field(
        default="auto", description="tokens of the longest row that is trained on; longer ones are left out"
    )
    epochs: float | None = Field(default=None, gt=0, description="how long: times through the rows")
    steps: int | None = Field(default=None, gt=0, description="how long: optimiser steps")
    tokens: Count | None = Field(default=None, description="how long: tokens seen, prompts included")
    time: Seconds | None = Field(
        default=None, description="how long: a time such as 10min, from the stage's start"
    )
    prompt_weight: float = Field(
        default=0.0, ge=0, le=1, description="what a token of the prompt counts beside 1 of the answer"
    )
    turns: Literal["all", "last"] = Field(
        default="all", description="which answers of a conversation are trained: all, or the last"
    )
    template: Literal["auto", "chatml", "plain"] = Field(
        default="auto",
        description="chat format: the tokenizer's own, else chatml; plain: answers follow prompts unmarked",
    )
    warmup: Literal["auto"] | Annotated[int, Field(ge=0)] = Field(
        default="auto", description="steps over which the learning rate rises; auto: a twentieth"
    )
    decay: float = Field(default=1.0, ge=0, le=1, description="share of training over which it falls to zero")
    weight_decay: float = Field(
        default=0.0, ge=0, le=10, description="pull of what is trained to zero, per lr"
    )
    patience: int = Field(
        default=3, ge=0, description="looks at held-out rows in a row without a gain that end it; 0: never"
    )
    merge: bool = Field(
        default=False, description="merge the adapter into the model, checked: a whole model comes out"
    )
    checkpoint_every: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        default="auto", description="steps between checkpoints; auto: every half minute"
    )
    precision: Precision = "auto"
    hold: Literal["auto", "fp32", "bf16", "int8", "disk"] = Field(
        default="auto",
        description="how the frozen weights of an adapter lie in memory, widened layer by layer as they are "
        "used; disk: in 16 bits in a file; auto: bf16 where products are, else fp32 where there is room",
    )
    recompute: Literal["auto"] | bool = Field(
        default="auto",
        description="compute activations again in the backward pass instead of keeping them; auto: only "
        "where the memory is too small for them",
    )

    @model_validator(mode="after")
    def _one_length(self) -> Finetune:
        given = [name for name in ("steps", "tokens", "epochs", "time") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"at most one of steps, tokens, epochs and time; found {' and '.join(given)}")
        return self

    def made_kind(self, facts: Mapping[str, Facts | None]) -> Kind:
        """Says whether an adapter or a whole model comes out."""
        return Kind.MODEL if self.merge or self.method.variant.MAKES == "model" else Kind.ADAPTER

    def clocked(self, share: Share) -> bool:
        """Says whether the clock ends training."""
        counted = self.steps is not None or self.tokens is not None or self.epochs is not None
        return self.time is not None or (not counted and share.seconds is not None)

    def resolve(self, facts: Mapping[str, Facts | None], machine: Machine, share: Share) -> Resolved:
        """Chooses rate, batch, context and length from the model, the rows and the memory."""
        from kogata.engine import finetune_costs as costs
        from kogata.engine import precision
        from kogata.engine.finetune._common import refuse_merge
        from kogata.engine.finetune_plan import plan_batch, plan_form

        (spec, foreign), examples = self._spec(facts), _examples(facts)
        work, room = self._work(facts), _room(share)
        if self.merge:
            refuse_merge(self.method.name, "merge of train.finetune", "leave `merge` out, or use `lora`")
        reasons: dict[str, str] = {}
        changes: dict[str, Any] = {}
        if self.template == "auto":
            reasons["template"] = "the tokenizer's own chat format where it has one, else chatml"
        most = min(spec.context, MOST_CONTEXT) if self.context == "auto" else self.context
        rows = costs.guess_rows(examples, "train", (facts["model"] or {}).get("vocab_size"), most)
        counted = self.steps is not None or self.tokens is not None or self.epochs is not None
        if not counted and not self.clocked(share):
            changes["epochs"] = 5.0 if rows.rows < FEW_ROWS else 3.0 if rows.rows < MANY_ROWS else 1.0
            reasons["epochs"] = f"{rows.rows:,} rows; the best weights on held-out rows are kept"
        batch = self.batch
        if batch == "auto":
            batch, reasons["batch"] = plan_batch(
                spec, work, rows.rows * changes.get("epochs", self.epochs or 0)
            )
            changes["batch"] = batch
        products, reason = precision.choose(self.precision, machine, "train.finetune", proven=not foreign)
        if reason:
            changes["precision"], reasons["precision"] = products, reason
        sizes: Any = {"batch": batch, "room": room, "foreign": foreign, "precision": products}
        form, reason = plan_form(self, spec, work, rows, machine, **sizes)
        for name in ("hold", "recompute"):
            if getattr(self, name) == "auto":
                changes[name], reasons[name] = getattr(form, name), reason
        if self.context == "auto":
            reasons["context"] = f"min(the model's {spec.context}, {MOST_CONTEXT})"
            fits = most if room is None else costs.fitting_tokens(spec, work, room, form, products)
            if room is not None and fits < most:
                most = max(costs.LEAST_TOKENS, fits // 64 * 64)
                reasons["context"] = f"what fits into {format_bytes(room)}"
            changes["context"] = most
        if self.warmup == "auto":
            reasons["warmup"] = "a twentieth of the steps"
        if self.checkpoint_every == "auto":
            reasons["checkpoint_every"] = "half a minute's work is the most a kill can cost"
        stage = self.model_copy(update=changes)
        trials = stage._trials(facts, machine, share)
        if self._open_layers:
            reasons["method"] = trials.said_of_layers()
            if not trials.layers:
                stage = stage.model_copy(update={"method": self._method("all")})
        if self.lr == "auto":
            usual, reason = self.method.variant.lr(spec, self.method.settings)
            reasons["lr"] = trials.said_of_rates(usual, reason)
            if not trials.rates:
                stage = stage.model_copy(update={"lr": usual})
        return Resolved(stage=stage, reasons=reasons)

    @property
    def _open_layers(self) -> bool:
        """Whether trials decide which layers are trained."""
        return getattr(self.method.settings, "top", None) == "auto"

    def _method(self, top: str) -> Method:
        """Gives the method with its layers decided."""
        return Method.of(self.method.name, **{**self.method.settings.model_dump(), "top": top})

    def _trials(self, facts: Mapping[str, Facts | None], machine: Machine, share: Share) -> Any:
        """Plans what is tried before the run."""
        from kogata.engine import finetune_costs as costs
        from kogata.engine.finetune_plan import plan_trials

        assert isinstance(self.batch, int)
        rows, seconds = self._step(facts, machine, share)
        planned: float | None = self._steps(rows.rows, rows.tokens)
        budget = _least(self.time, share.seconds) if self.clocked(share) else None
        if budget is not None:
            planned = (budget - costs.STAGE_SECONDS) / seconds
        held = (_examples(facts).get("splits") or {}).get("heldout") or {}
        layers = self._open_layers and bool(held.get("examples"))
        return plan_trials(
            self._spec(facts)[0],
            rows,
            planned or 0,
            self.batch,
            seconds,
            rates=self.lr == "auto",
            layers=layers,
        )

    def _step(
        self, facts: Mapping[str, Facts | None], machine: Machine, share: Share, *, again: bool = False
    ) -> tuple[Any, float]:
        """Guesses the rows, and forecasts the seconds of a step."""
        from kogata.engine import finetune_costs as costs

        model = facts["model"]
        assert model is not None and isinstance(self.batch, int) and isinstance(self.context, int)
        (spec, _), form = self._spec(facts), self._chosen()
        work = self._work(facts)
        rows = costs.guess_rows(_examples(facts), "train", model.get("vocab_size"), self.context)
        micro = costs.micro_tokens(spec, work, _room(share), form, self.precision)
        sizes: dict[str, Any] = {"batch": self.batch, "micro": micro, "form": form}
        sizes |= {"fused": machine.compiler, "processes": share.processes, "precision": self.precision}
        return rows, costs.step_seconds(spec, work, rows, machine, **sizes, again=again)

    def forecast(self, facts: Mapping[str, Facts | None], machine: Machine, share: Share) -> Forecast:
        """States what will be made, and what it will take by a guess of the tokens in the rows' bytes."""
        from kogata.engine import finetune_costs as costs

        (spec, _), examples = self._spec(facts), _examples(facts)
        model = facts["model"]
        assert model is not None and isinstance(self.batch, int) and isinstance(self.context, int)
        form, work = self._chosen(), self._work(facts)
        micro = costs.micro_tokens(spec, work, _room(share), form, self.precision)
        rows, first = self._step(facts, machine, share)
        trials = self._trials(facts, machine, share)
        budget = _least(self.time, share.seconds) if self.clocked(share) else None
        steps = self._steps(rows.rows, rows.tokens)
        before = costs.seconds_around(spec, machine, self.precision) + work.steps_before * first
        before += trials.rate_seconds + trials.layer_seconds
        if budget is not None:
            steps = max(1, int((budget - before) / first))
            seconds = budget
        else:
            assert steps is not None
            again = self._step(facts, machine, share, again=True)[1]
            once = min(steps, -(-rows.rows // self.batch)) if work.first > 0 else steps
            seconds = before + once * first + (steps - once) * again
            looked = costs.guess_rows(examples, "heldout", model.get("vocab_size"), self.context)
            most = costs.look_tokens(steps * self.batch * rows.tokens)
            seconds += costs.LOOKS * costs.look_seconds(spec, looked, machine, most, self.precision)
        most = costs.pass_tokens(rows, self.batch, micro)
        kept: Any = {"form": form, "processes": share.processes, "precision": self.precision}
        peak = costs.peak_bytes(spec, work, tokens=most, **kept)
        kind = self.made_kind(facts)
        size = 4 * (spec.parameters() if kind == Kind.MODEL else work.trained)
        made: Facts = {
            "method": self.method.name,
            "base_digest": model.get("digest"),
            "base_source": model.get("source"),
            "trained_parameters": work.trained,
        }
        if kind == Kind.MODEL:
            made = {key: value for key, value in model.items() if key not in ("kind", "digest")}
        tokens = (steps + trials.steps) * self.batch * rows.tokens
        cost = Cost(
            seconds=seconds,
            cpu_seconds=seconds * machine.cores,
            joules=machine.joules(seconds),
            tokens=round(tokens),
            flops=tokens * costs.token_flops(spec, work, rows),
            peak_bytes=peak,
            size_bytes=size,
        )
        disk = size + 2 * 16 * work.trained
        if form.hold == "disk":
            disk += 2 * spec.matrix_parameters() * share.processes
        if work.first > 0:
            disk += round(2 * spec.width * rows.rows * rows.tokens)
        return Forecast(facts=made, cost=cost, disk_bytes=disk)

    def _steps(self, rows: int, tokens: float) -> int | None:
        assert isinstance(self.batch, int)
        if self.steps is not None:
            return self.steps
        if self.epochs is not None:
            return max(1, -(-int(self.epochs * rows) // self.batch))
        return None if self.tokens is None else max(1, round(self.tokens / max(1.0, tokens) / self.batch))

    def run(self, given: Given, bench: Bench) -> Facts:
        """Trains and writes the adapter or the model."""
        began = bench.clock.now()
        from kogata.engine import finetune_costs as costs
        from kogata.engine.finetuning import Finetuning, finetune
        from kogata.engine.pretraining import Length

        examples, model = one(given, "examples"), one(given, "model")
        assert isinstance(self.batch, int) and isinstance(self.context, int)
        known, clocked = {"model": model.facts, "examples": examples.facts}, self.clocked(bench.share)
        (spec, foreign), form = self._spec(known), self._chosen()
        job = Finetuning(
            examples=examples.path,
            model=model.path,
            facts=model.facts,
            base_digest=model.digest,
            method=self.method,
            length=Length(
                steps=self.steps,
                limit=self.time,
                began=began,
                warmup=None if self.warmup == "auto" else self.warmup,
                decay=self.decay,
            ),
            epochs=None if clocked else self.epochs,
            tokens=None if clocked else self.tokens,
            lr=None if self.lr == "auto" else self.lr,
            batch=self.batch,
            context=self.context,
            micro=costs.micro_tokens(spec, self._work(known), _room(bench.share), form, self.precision),
            precision=self.precision,
            prompt_weight=self.prompt_weight,
            turns=self.turns,
            template=self.template,
            weight_decay=self.weight_decay,
            patience=self.patience,
            merge=self.merge,
            form=form,
            spec=spec if foreign else None,
            checkpoint_steps=None if self.checkpoint_every == "auto" else self.checkpoint_every,
        )
        return finetune(job, bench)

    def _spec(self, facts: Mapping[str, Facts | None]) -> tuple[Any, Any]:
        """Gives the model's shape, and what is known of one that only transformers can build."""
        from kogata.engine.finetune._foreign import base_spec

        model = facts["model"]
        assert model is not None
        return base_spec(model, self.method)

    def _work(self, facts: Mapping[str, Facts | None]) -> Any:
        """Gives what the method computes, and what else is held."""
        spec, foreign = self._spec(facts)
        held = (_examples(facts).get("splits") or {}).get("heldout") or {}
        work = self.method.variant.work(spec, self.method.settings)
        return replace(work, best=bool(held.get("examples")), foreign=bool(foreign))

    def _chosen(self) -> Any:
        from kogata.engine.finetune_costs import Form

        assert self.hold != "auto" and self.recompute != "auto"
        return Form(hold=self.hold, recompute=self.recompute)

    def steps_taken(self, facts: Facts) -> dict[str, Any]:
        """Gives the settings that replay a result without a clock."""
        training = facts["training"]
        planned = training["planned_steps"]
        length = {"steps": planned or training["steps"], "tokens": None, "epochs": None, "time": None}
        decay = self.decay if planned else training["decay"]
        found: dict[str, Any] = {**length, "warmup": training["warmup"], "decay": decay}
        if training["lr_trials"] is not None:
            found["lr"] = training["lr_trials"]["taken"]
        if training["top_trials"] is not None:
            method = self._method(training["top_trials"]["taken"])
            found["method"] = method.model_dump(mode="json")
        return found


def _least(*values: float | None) -> float | None:
    return min((value for value in values if value is not None), default=None)


def _room(share: Share) -> int | None:
    """Gives the bytes of one process."""
    return None if share.memory_bytes is None else share.memory_bytes // share.processes


def _examples(facts: Mapping[str, Facts | None]) -> Facts:
    examples = facts["examples"]
    assert examples is not None
    return examples
