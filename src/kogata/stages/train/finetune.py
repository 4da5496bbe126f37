"""train.finetune: an existing model learns from rows of examples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from kogata.core.amounts import Cost, Forecast, Seconds, format_bytes
from kogata.core.artifact import Kind
from kogata.core.errors import RecipeError
from kogata.core.receipt import Machine
from kogata.core.stage import Bench, Facts, Given, Resolved, Share, Slot, Stage, one
from kogata.core.variants import Choice

Count = Annotated[int, Field(gt=0)]
MOST_CONTEXT = 2048
FEW_ROWS, MANY_ROWS = 1000, 10_000


class Method(Choice, folder="engine.finetune"):
    """What is trained, and how."""


class Finetune(Stage):
    """Teaches an existing model the answers in your rows.

    Each row becomes the model's own chat format; the loss counts on what the model is to say (the answer and
    its end token), not on what it is asked. Rows lie end to end without padding, a beginning that
    all share (a system message) is computed once, attention stays within a row, and only tokens that are
    trained go through the head. With `lora`, `ia3` and `sparse` an adapter comes out that peft reads, with
    `adapter` one that only Kogata reads; with `full`, `freeze` or `merge: true` a whole model. What follows
    in the recipe takes model and adapter together, or refuses.

    `batch` counts rows here. The held-out rows are looked at eight times; the weights that were best on them
    are kept, and training ends early when they stay the best.

    Pays when: a model of your language exists and you have tens to tens of thousands of rows.
    Hurts when: rows are wrong or few: `kogata check` reads them first; below about 100, try a prompt.
    Cost: a pass over the rows takes about as long as reading them three times; see `kogata plan`. Memory:
        what does not fit is held in 16 bits or computed again, as `hold` and `recompute` say.
    Source: LoRA on all linear layers (Schulman et al. 2025, LoRA Without Regret); loss on the answer alone
        or nearly so (arXiv 2405.14394); packing without contamination (arXiv 2407.09105).
    Measured here: not yet measured.
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
        default="auto", description="peak learning rate; auto: what the method and the model's width call for"
    )
    batch: Literal["auto"] | Count = Field(
        default="auto", description="rows (examples) of one optimiser step, whatever their length; auto: 8"
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
    precision: Literal["auto", "fp32"] = Field(default="auto", description="number format of the products")
    hold: Literal["auto", "fp32", "bf16", "int8"] = Field(
        default="auto",
        description="how the frozen weights of an adapter lie in memory, widened layer by layer as they are "
        "used; auto: fp32 where the memory allows it",
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
        from kogata.engine.finetune._common import refuse_merge

        spec, examples = _spec(facts), _examples(facts)
        module, settings = self.method.variant, self.method.settings
        work, room = module.work(spec, settings), _room(share)
        if self.merge:
            refuse_merge(self.method.name, "merge of train.finetune", "leave `merge` out, or use `lora`")
        reasons: dict[str, str] = {}
        changes: dict[str, Any] = {}
        if self.lr == "auto":
            changes["lr"], reasons["lr"] = module.lr(spec, settings)
        if self.template == "auto":
            reasons["template"] = "the tokenizer's own chat format where it has one, else chatml"
        if self.batch == "auto":
            changes["batch"], reasons["batch"] = 8, "8 rows a step suit few and many rows"
        most = min(spec.context, MOST_CONTEXT) if self.context == "auto" else self.context
        form, reason = self._form(facts, work, machine, share, most)
        for name in ("hold", "recompute"):
            if getattr(self, name) == "auto":
                changes[name], reasons[name] = getattr(form, name), reason
        if self.context == "auto":
            reasons["context"] = f"min(the model's {spec.context}, {MOST_CONTEXT})"
            fits = most if room is None else costs.fitting_tokens(spec, work, room, form)
            if room is not None and fits < most:
                most = max(costs.LEAST_TOKENS, fits // 64 * 64)
                reasons["context"] = f"what fits into {format_bytes(room)}"
            changes["context"] = most
        counted = self.steps is not None or self.tokens is not None or self.epochs is not None
        if not counted and not self.clocked(share):
            rows = int(((examples.get("splits") or {}).get("train") or {}).get("examples") or 0)
            epochs = 5.0 if rows < FEW_ROWS else 3.0 if rows < MANY_ROWS else 1.0
            changes["epochs"] = epochs
            reasons["epochs"] = f"{rows:,} rows; the best weights on held-out rows are kept"
        if self.warmup == "auto":
            reasons["warmup"] = "a twentieth of the steps"
        if self.precision == "auto":
            changes["precision"], reasons["precision"] = "fp32", "this processor has no fast 16-bit products"
        if self.checkpoint_every == "auto":
            reasons["checkpoint_every"] = "half a minute's work is the most a kill can cost"
        return Resolved(stage=self.model_copy(update=changes), reasons=reasons)

    def _form(
        self, facts: Mapping[str, Facts | None], work: Any, machine: Machine, share: Share, context: int
    ) -> tuple[Any, str]:
        """Chooses what is done to fit the memory, and says what it costs."""
        from kogata.engine import finetune_costs as costs

        module, settings = self.method.variant, self.method.settings
        narrow = getattr(module, "narrow", lambda _: False)(settings)
        narrow = narrow and not self.merge and machine.device == "cpu"
        if self.hold not in ("auto", "fp32") and not narrow:
            raise RecipeError(
                "weights that are trained or merged cannot be held in fewer bits",
                where="hold of train.finetune",
                found=f"hold: {self.hold} with method {self.method.name}, merge: {self.merge}",
                expected="hold: fp32, or an adapter without PiSSA that is not merged, on a processor",
            )
        again = [False, True] if self.recompute == "auto" else [self.recompute]
        holds: list[Any] = [self.hold]
        if self.hold == "auto":
            holds = ["fp32", "bf16"] if narrow else ["fp32"]
        may = [costs.Form(hold=hold, recompute=one) for one in again for hold in holds]
        room = _room(share)
        if room is None:
            return may[0], "no memory budget binds"
        if self.hold == "auto" and narrow and again[-1]:
            may.append(costs.SMALLEST)
        spec, model = _spec(facts), facts["model"] or {}
        rows = costs.guess_rows(_examples(facts), "train", model.get("vocab_size"), context)
        batch = 8 if self.batch == "auto" else self.batch
        form, price = costs.choose_form(spec, work, rows, machine, batch=batch, room=room, may=may)
        if form == costs.PLAIN:
            return form, "the memory allows it"
        return form, f"to fit {format_bytes(room)}; steps take {100 * (price - 1):.0f} % longer"

    def forecast(self, facts: Mapping[str, Facts | None], machine: Machine, share: Share) -> Forecast:
        """States what will be made, and what it will take by a guess of the tokens in the rows' bytes."""
        from kogata.engine import finetune_costs as costs

        spec, examples = _spec(facts), _examples(facts)
        model = facts["model"]
        assert model is not None and isinstance(self.batch, int) and isinstance(self.context, int)
        form = self._chosen()
        module, settings = self.method.variant, self.method.settings
        work = module.work(spec, settings)
        rows = costs.guess_rows(examples, "train", model.get("vocab_size"), self.context)
        micro = costs.micro_tokens(spec, work, _room(share), form)
        sizes: dict[str, Any] = {"batch": self.batch, "micro": micro, "form": form}
        sizes |= {"fused": machine.compiler, "processes": share.processes}
        first = costs.step_seconds(spec, work, rows, machine, **sizes)
        budget = _least(self.time, share.seconds) if self.clocked(share) else None
        steps = self._steps(rows.rows, rows.tokens)
        before = costs.STAGE_SECONDS + 4 * spec.parameters() / 1e9 + work.steps_before * first
        if budget is not None:
            steps = max(1, int((budget - before) / first))
            seconds = budget
        else:
            assert steps is not None
            again = costs.step_seconds(spec, work, rows, machine, **sizes, again=True)
            once = min(steps, -(-rows.rows // self.batch)) if work.first > 0 else steps
            seconds = before + once * first + (steps - once) * again
            looked = costs.guess_rows(examples, "heldout", model.get("vocab_size"), self.context)
            most = costs.look_tokens(steps * self.batch * rows.tokens)
            seconds += costs.LOOKS * costs.look_seconds(spec, looked, machine, most)
        most = costs.pass_tokens(rows, self.batch, micro)
        peak = costs.peak_bytes(spec, work, tokens=most, form=form, processes=share.processes)
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
        tokens = steps * self.batch * rows.tokens
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
        assert self.lr != "auto"
        spec, form = _spec({"model": model.facts}), self._chosen()
        module, settings = self.method.variant, self.method.settings
        clocked = self.clocked(bench.share)
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
            lr=self.lr,
            batch=self.batch,
            context=self.context,
            micro=costs.micro_tokens(spec, module.work(spec, settings), _room(bench.share), form),
            prompt_weight=self.prompt_weight,
            turns=self.turns,
            template=self.template,
            weight_decay=self.weight_decay,
            patience=self.patience,
            merge=self.merge,
            form=form,
            checkpoint_steps=None if self.checkpoint_every == "auto" else self.checkpoint_every,
        )
        return finetune(job, bench)

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
        return {**length, "warmup": training["warmup"], "decay": decay}


def _least(*values: float | None) -> float | None:
    given = [value for value in values if value is not None]
    return min(given) if given else None


def _room(share: Share) -> int | None:
    """Gives the bytes of one process."""
    return None if share.memory_bytes is None else share.memory_bytes // share.processes


def _examples(facts: Mapping[str, Facts | None]) -> Facts:
    examples = facts["examples"]
    assert examples is not None
    return examples


def _spec(facts: Mapping[str, Facts | None]) -> Any:
    from kogata.nn.families import FAMILY
    from kogata.nn.spec import ModelSpec

    model = facts["model"]
    assert model is not None
    if not model.get("spec"):
        raise RecipeError(
            "this model cannot be fine-tuned here yet",
            where="train.finetune, slot model",
            found=f"architecture {model.get('architecture')}",
            expected=f"one of the families {', '.join(FAMILY)}",
            remedy="choose a model of one of these families; for text and labels use train.classify",
        )
    spec = ModelSpec.from_dict(dict(model["spec"]))
    if spec.sharing is not None:
        raise RecipeError(
            "a model with shared layers cannot be fine-tuned yet",
            where="train.finetune, slot model",
            found=f"sharing {spec.sharing}",
            expected="a model whose layers have weights of their own",
        )
    return spec
