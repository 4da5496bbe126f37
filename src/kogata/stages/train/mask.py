"""train.mask: a text encoder from scratch, or further training of one, by hiding tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from kogata.core.amounts import Cost, Forecast, Seconds, format_seconds
from kogata.core.artifact import Kind
from kogata.core.errors import RecipeError
from kogata.core.receipt import Machine
from kogata.core.stage import Bench, Facts, Given, Resolved, Share, Slot, Stage, one

SCRATCH_LR = {"muon": 0.007, "adamw": 1e-3}
CONTINUED_LR = {"muon": 0.001, "adamw": 1e-4}
DEFAULT_SECONDS = 240.0
"""Taken for a new encoder when nothing says how long."""
LADDER = ((2, 128), (3, 192), (4, 256), (6, 384), (8, 512), (12, 768))
"""Layers and width of the shapes that `auto` chooses from."""
TOKENS_PER_WEIGHT = 8.0
"""Seen by a well-taught encoder, for each weight of its layers."""


class EncoderShape(BaseModel):
    """The shape of a new encoder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: Literal["modernbert", "bert"] = Field(
        default="modernbert", description="the graph, which transformers knows by this name"
    )
    layers: int | None = Field(default=None, ge=1, description="blocks; by default what time allows")
    width: int | None = Field(default=None, ge=16, description="size of the vectors between blocks")
    heads: int | None = Field(default=None, ge=1, description="attention heads; one for each 64 of width")
    ffn_width: int | None = Field(default=None, ge=16, description="inner size of the feed-forward part")

    @model_validator(mode="after")
    def _whole(self) -> EncoderShape:
        if (self.layers is None) != (self.width is None):
            raise ValueError("`layers` and `width` go together")
        if self.width is None and (self.heads is not None or self.ffn_width is not None):
            raise ValueError("`heads` and `ffn_width` need `layers` and `width`")
        if self.width is not None and self.width % (2 * (self.heads or max(1, self.width // 64))):
            raise ValueError(f"a width of {self.width} cannot be parted into its heads, each of even size")
        return self


class Mask(Stage):
    """Trains a text encoder by hiding tokens and predicting them: from scratch, or further from a given one.

    Windows of text, a share of their tokens replaced by the mask token, by position and anew each epoch.
    The head works on hidden tokens alone. A new encoder is a ModernBERT or BERT of transformers, trained by
    our loop; its tokenizer gets a mask token. The result loads with AutoModelForMaskedLM, and train.classify
    takes it as its encoder.

    Pays when: no encoder of your language or field exists, or one exists and reads your kind of text poorly.
    Hurts when: labelled rows are all that matters and an encoder of the language exists: classify with it.
    Cost: all the time it is given; memory about 0.4 GB and 20 bytes a weight.
    Source: Devlin et al. 2019 (BERT); Warner et al. 2024 (ModernBERT, arXiv 2412.13663); hiding 30 % and
        always by the mask token: Wettig et al. 2023 (arXiv 2202.08005).
    Measured here: not yet measured.
    """

    takes: ClassVar[Mapping[str, Slot]] = {
        "tokens": Slot(kinds=(Kind.TOKENS,)),
        "model": Slot(kinds=(Kind.MODEL,), optional=True),
    }
    makes: ClassVar[Kind] = Kind.MODEL
    seeded: ClassVar[bool] = True
    elastic: ClassVar[bool] = True
    trains: ClassVar[bool] = True

    model: EncoderShape = Field(default_factory=EncoderShape, description="the shape of a new encoder")
    share: float = Field(default=0.3, gt=0, lt=1, description="share of the tokens that are hidden")
    optimizer: Literal["auto", "muon", "adamw"] = Field(
        default="auto", description="what trains the layers' matrices; auto: muon for a new modernbert"
    )
    lr: Literal["auto"] | Annotated[float, Field(gt=0, le=10)] = Field(
        default="auto", description="peak learning rate of the layers' matrices"
    )
    batch: int = Field(default=4096, ge=16, description="tokens of one optimiser step")
    context: Literal["auto"] | Annotated[int, Field(ge=8)] = Field(
        default="auto", description="tokens of one window; auto: 256, or what a given encoder reads at most"
    )
    steps: int | None = Field(default=None, gt=0, description="how long: optimiser steps")
    epochs: float | None = Field(default=None, gt=0, description="how long: times through the training text")
    time: Seconds | None = Field(
        default=None, description="how long: a time such as 10min, from the stage's start"
    )
    warmup: int = Field(default=20, ge=0, description="steps over which the learning rate rises")
    decay: float = Field(default=0.6, ge=0, le=1, description="share of training over which it falls to zero")
    weight_decay: float = Field(
        default=0.0, ge=0, le=10, description="pull of the layers' matrices to zero, per lr"
    )
    checkpoint_every: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        default="auto", description="steps between checkpoints; auto: every half minute"
    )

    @model_validator(mode="after")
    def _one_length(self) -> Mask:
        given = [name for name in ("steps", "epochs", "time") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"at most one of steps, epochs and time; found {' and '.join(given)}")
        return self

    def clocked(self, share: Share) -> bool:
        """Says whether the clock ends training."""
        counted = self.steps is not None or self.epochs is not None
        return self.time is not None or (not counted and share.seconds is not None)

    def resolve(self, facts: Mapping[str, Facts | None], machine: Machine, share: Share) -> Resolved:
        """Chooses shape, window, optimiser, rate and length."""
        tokens, model = _tokens(facts), facts.get("model")
        _check_model(model, tokens)
        if model is not None and self.model != EncoderShape():
            raise RecipeError(
                "a given encoder has a shape already",
                where="model of train.mask",
                found=f"{self.model!r}, and an encoder of the family {model.get('architecture')}",
                remedy="leave `model` out of train.mask, or leave model.read out to train a new encoder",
            )
        changes: dict[str, Any] = {}
        reasons: dict[str, str] = {}
        if self.context == "auto":
            most = (model or {}).get("context") or 256
            changes["context"] = min(256, most)
            reasons["context"] = f"min(256, the encoder's {most})" if model else "256 tokens suit most texts"
        if self.optimizer == "auto":
            muon = model is None and self.model.family == "modernbert"
            changes["optimizer"] = "muon" if muon else "adamw"
            reasons["optimizer"] = "a new modernbert" if muon else "gentler on trained weights and on bert"
        kind = changes.get("optimizer", self.optimizer)
        if self.lr == "auto":
            changes["lr"] = (CONTINUED_LR if model else SCRATCH_LR)[kind]
            reasons["lr"] = f"usual for {kind}, {'further' if model else 'from scratch'}"
        counted = self.steps is not None or self.epochs is not None
        if model is None and self.model.layers is None:
            layers, width, reason = self._shape(tokens, machine, share)
            changes["model"] = EncoderShape(family=self.model.family, layers=layers, width=width)
            reasons["model.layers"] = reason
        made = self.model_copy(update=changes)
        if not counted and not self.clocked(share):
            each = made._step_seconds(facts, machine)
            most = max(1, round(3 * tokens["splits"]["train"]["tokens"] / self.batch))
            changes["steps"] = max(1, min(most, round(DEFAULT_SECONDS / each)))
            reasons["steps"] = f"three times through the text, or {format_seconds(DEFAULT_SECONDS)}"
        if self.checkpoint_every == "auto":
            reasons["checkpoint_every"] = "half a minute's work is the most a kill can cost"
        return Resolved(stage=self.model_copy(update=changes), reasons=reasons)

    def _shape(self, tokens: Facts, machine: Machine, share: Share) -> tuple[int, int, str]:
        from kogata.engine.mask_costs import block_weights, tokens_per_second

        seconds = self._seconds(share) or DEFAULT_SECONDS
        best, seen = LADDER[0], 0.0
        for layers, width in LADDER:
            body = layers * block_weights(self.model.family, width, self.model.ffn_width)
            head = width * tokens["vocab_size"] * self.share
            counted = self.steps * self.batch if self.steps else None
            counted = self.epochs * tokens["splits"]["train"]["tokens"] if self.epochs else counted
            could = float(counted) if counted else seconds * tokens_per_second(body + head, machine)
            if could < TOKENS_PER_WEIGHT * body and (layers, width) != LADDER[0]:
                break
            best, seen = (layers, width), could
        reason = f"{best[0]} layers of width {best[1]}: the largest that {seen:,.0f} tokens teach well"
        return *best, reason

    def _sizes(self, facts: Mapping[str, Facts | None]) -> tuple[int, int, int]:
        """Gives weights of the layers, width, and weights in all."""
        from kogata.engine.mask_costs import block_weights

        tokens, model = _tokens(facts), facts.get("model")
        if model is not None:
            shape = model.get("encoder") or {"layers": 6, "width": 384, "ffn_width": 1536}
            width = int(shape["width"])
            each = block_weights(str(model.get("architecture")), width, int(shape["ffn_width"]))
            body = int(shape["layers"]) * each
            return body, width, int(model.get("parameters") or body) + width * width
        assert self.model.layers is not None and self.model.width is not None
        width = self.model.width
        body = self.model.layers * block_weights(self.model.family, width, self.model.ffn_width)
        return body, width, body + width * (tokens["vocab_size"] + 2 + width)

    def _step_seconds(self, facts: Mapping[str, Facts | None], machine: Machine) -> float:
        from kogata.engine.mask_costs import step_seconds

        body, width, parameters = self._sizes(facts)
        head = self.share * width * (_tokens(facts)["vocab_size"] + width)
        return step_seconds(body + head, parameters, self.batch, machine)

    def _after(self, facts: Mapping[str, Facts | None], machine: Machine) -> float:
        from kogata.engine.mask_costs import after_seconds

        body, _, parameters = self._sizes(facts)
        assert isinstance(self.context, int)
        held = ((_tokens(facts).get("splits") or {}).get("heldout") or {}).get("tokens") or 0
        return after_seconds(body, parameters, held // self.context, self.context, machine)

    def _seconds(self, share: Share) -> float | None:
        given = [value for value in (self.time, share.seconds) if value is not None]
        return min(given) if given and self.clocked(share) else None

    def _steps(self, tokens: Facts) -> int | None:
        if self.steps is not None or self.epochs is None:
            return self.steps
        return max(1, round(self.epochs * tokens["splits"]["train"]["tokens"] / self.batch))

    def forecast(self, facts: Mapping[str, Facts | None], machine: Machine, share: Share) -> Forecast:
        """Counts the steps and what they take."""
        from kogata.engine.costs import STAGE_SECONDS, TORCH_BYTES

        tokens, model = _tokens(facts), facts.get("model")
        body, width, parameters = self._sizes(facts)
        each, budget = self._step_seconds(facts, machine), self._seconds(share)
        before = STAGE_SECONDS + self._after(facts, machine)
        steps = self._steps(tokens) or max(1, int(((budget or DEFAULT_SECONDS) - before) / each))
        seconds = budget if budget is not None else before + steps * each
        activations = 4 * self.batch * (body // width * 3 + round(2 * self.share * tokens["vocab_size"]))
        made = {
            "spec": None,
            "architecture": (model or {}).get("architecture") or self.model.family,
            "role": "encoder",
            "encoder": (model or {}).get("encoder") or self._shape_facts(),
            "parameters": parameters,
            "vocab_size": (model or {}).get("vocab_size") or tokens["vocab_size"] + 2,
            "context": (model or {}).get("context") or self.context,
            "tokenizer_digest": None,
            "end_id": tokens.get("end_id"),
        }
        cost = Cost(
            seconds=seconds,
            cpu_seconds=seconds * machine.cores,
            joules=machine.joules(seconds),
            tokens=steps * self.batch,
            flops=steps * 6.0 * self.batch * body,
            peak_bytes=TORCH_BYTES + 16 * parameters + activations,
            size_bytes=4 * parameters,
        )
        return Forecast(facts=made, cost=cost, disk_bytes=4 * parameters * 7)

    def _shape_facts(self) -> Facts:
        assert self.model.layers is not None and self.model.width is not None
        from kogata.engine.mask_costs import ffn_width

        ffn = self.model.ffn_width or ffn_width(self.model.family, self.model.width)
        return {"width": self.model.width, "layers": self.model.layers, "ffn_width": ffn}

    def run(self, given: Given, bench: Bench) -> Facts:
        """Trains and writes a Hugging Face folder with its metrics."""
        from kogata.engine import masking
        from kogata.engine.heap import give_back, kept
        from kogata.engine.loop import Training, train
        from kogata.engine.pretraining import prepare_torch
        from kogata.engine.schedule import StepSchedule, TimeSchedule
        from kogata.engine.tokens import TokenStore, tokenizer_digest

        began = bench.clock.now()
        prepare_torch(bench)
        give_back()
        tokens, start = one(given, "tokens"), given.get("model")
        _check_model(start and start.facts, tokens.facts)
        assert isinstance(self.context, int) and self.lr != "auto"
        tokenizer = start.path if start else tokens.path / "tokenizer"
        end_id, vocab_size = int(tokens.facts["end_id"]), int(tokens.facts["vocab_size"])
        store = masking.open_windows(tokens.path, self.context, bench.label)
        specials = masking.specials_of(tokenizer, vocab_size, end_id)
        rows = max(1, self.batch // self.context)
        sampler = masking.MaskSampler(
            store.ids,
            store.offsets,
            context=self.context,
            batch=rows,
            seed=bench.seed,
            specials=specials,
            share=self.share,
        )
        if start is not None:
            module = masking.given_encoder(start.path, specials)
        else:
            sizes = self._shape_facts()
            heads = self.model.heads or max(1, sizes["width"] // 64)
            module = masking.new_encoder(
                self.model.family,
                specials,
                **sizes,
                heads=heads,
                context=self.context,
                end_id=end_id,
                seed=bench.seed,
            )
        steps = self._steps(tokens.facts)
        body = self._sizes({"tokens": tokens.facts, "model": start and start.facts})[0]
        if steps is not None:
            warmup = min(self.warmup, steps // 5)
            schedule: Any = StepSchedule(steps=steps, warmup=warmup, decay=self.decay)
        else:
            reserve = self._after({"tokens": tokens.facts, "model": start and start.facts}, bench.machine)
            schedule = TimeSchedule(
                clock=bench.clock,
                reserve=reserve,
                limit=self.time,
                began=began,
                warmup=self.warmup,
                decay=self.decay,
            )
        optimiser = masking.build_optimiser(module, self.optimizer, self.lr, self.weight_decay)
        module.train()
        with kept():
            outcome = train(
                Training(
                    model=module,
                    objective=masking.MaskedModelling(module),
                    sampler=sampler,
                    optimiser=optimiser,
                    schedule=schedule,
                    flops_per_token=6.0 * body,
                    checkpoint_steps=None if self.checkpoint_every == "auto" else self.checkpoint_every,
                    clip=1.0,
                ),
                bench,
            )
        module.eval()
        heldout = masking.heldout_scores(module, TokenStore.open(tokens.path, "heldout"), sampler)
        masking.write_encoder(module, bench.out, tokenizer, specials, end_id)
        outcome.write_metrics(bench.out, clocked=self.clocked(bench.share))
        record = schedule.record(outcome.steps)
        training = {
            **record,
            "decay": round((outcome.steps - record["decay_start"]) / max(1, outcome.steps), 4),
            "tokens": outcome.tokens,
            "epochs": round(outcome.epochs, 4),
            "loss": None if outcome.loss is None else round(outcome.loss, 6),
            "batch": rows * self.context,
            "context": self.context,
            "optimizer": self.optimizer,
            "lr": self.lr,
            "share": self.share,
        }
        text = json.dumps(training, ensure_ascii=False, indent=1, sort_keys=True)
        (bench.out / "training.json").write_text(text + "\n", encoding="utf-8")
        if heldout:
            bench.log(f"{100 * heldout['accuracy']:.1f} % of hidden held-out tokens guessed right")
        config = module.config
        return {
            "spec": None,
            "architecture": config.model_type,
            "role": "encoder",
            "encoder": {
                "width": config.hidden_size,
                "layers": config.num_hidden_layers,
                "ffn_width": config.intermediate_size,
            },
            "parameters": sum(p.numel() for p in module.parameters()),
            "vocab_size": config.vocab_size,
            "context": config.max_position_embeddings,
            "tokenizer_digest": tokenizer_digest(bench.out),
            "end_id": end_id,
            "heldout": heldout,
            "training": training,
        }

    def steps_taken(self, facts: Facts) -> dict[str, Any]:
        """Gives the settings that replay a result without a clock."""
        training = facts["training"]
        length = {"steps": training["steps"], "epochs": None, "time": None}
        return {**length, "warmup": training["warmup"], "decay": training["decay"]}


def _tokens(facts: Mapping[str, Facts | None]) -> Facts:
    tokens = facts["tokens"]
    assert tokens is not None
    return tokens


def _check_model(model: Facts | None, tokens: Facts) -> None:
    if model is None:
        return
    if model.get("spec") or model.get("role") not in (None, "encoder"):
        raise RecipeError(
            "only an encoder is trained by hiding tokens",
            where="train.mask, slot model",
            found=f"architecture {model.get('architecture')}, a decoder or a classifier",
            expected="an encoder of BERT's kind (bert, roberta, modernbert …)",
            remedy="use train.pretrain to train a decoder on",
        )
    ours, theirs = model.get("tokenizer_digest"), tokens.get("tokenizer_digest")
    if ours and theirs and ours != theirs:
        raise RecipeError(
            "the tokens do not belong to the model",
            where="train.mask, slot tokens",
            found="ids of another tokenizer",
            expected="ids of the encoder's own",
            remedy="tokenizer.encode: give it the model: use: {tokenizer: model.read}",
        )
