"""train.classify: a classifier of texts from labelled rows, few or many."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from kogata.core.amounts import Cost, Forecast
from kogata.core.artifact import Kind
from kogata.core.errors import DataError, RecipeError
from kogata.core.receipt import Machine
from kogata.core.registry import registry
from kogata.core.stage import Bench, Facts, Given, Resolved, Share, Slot, Stage, one
from kogata.core.variants import Choice

if TYPE_CHECKING:
    from kogata.engine.candidates import Candidates
    from kogata.engine.classify._task import Size

BASELINES = ("ngrams", "probe")
JUDGES = 200
"""Held-out rows that suffice to judge by; with fewer, folds of the training rows do."""


class Method(Choice, folder="engine.classify"):
    """How texts are classified."""


class Classify(Stage):
    """Trains a classifier of texts, and says which of several methods does best on rows it has not seen.

    `probe` puts a regression over the embeddings of an encoder; `ngrams` over character n-grams, in any
    language and without a model. Both are quick and always run: they are what the others must beat.
    `contrastive` and `full` train the encoder too, for few and for many rows. `auto` tries what suits the
    rows and fits the time. A dearer method is kept only where it leads on the same rows by more than the
    standard error of that lead.

    Held-out rows judge where there are 200 or more, else folds of the training rows; test rows stay
    untouched. The facts hold accuracy and macro-F1 of every method, with standard errors. With an encoder
    the model loads in plain transformers (AutoModelForSequenceClassification).

    Pays when: there are a handful to some hundred rows of each label: nothing is cheaper to run afterwards.
    Hurts when: labels overlap or change daily; with one row a label nothing can be judged.
    Cost: seconds for the baselines; minutes where the encoder is trained.
    Source: SetFit (arXiv 2209.11055), probe before fine-tuning (arXiv 2202.10054).
    Measured here: banking77 with MiniLM, 8 rows of each of 77 labels, 150 s of one core, 5 seeds: `auto` kept
        the probe, 4.3 [classify.json:summary.few.mean_points_over_setfit:.1f] points more accurate than
        SetFit in the time the probe took. With all rows and 15 minutes it kept it as well: 0.923
        [classify.json:full.0.auto.accuracy:.3f].
    """

    takes: ClassVar[Mapping[str, Slot]] = {
        "examples": Slot(kinds=(Kind.EXAMPLES,)),
        "model": Slot(kinds=(Kind.MODEL,), optional=True),
    }
    makes: ClassVar[Kind] = Kind.MODEL
    seeded: ClassVar[bool] = True
    elastic: ClassVar[bool] = True
    trains: ClassVar[bool] = True

    method: Literal["auto"] | Method = Field(
        default="auto",
        description="auto: what does best on rows it has not seen; or one method, such as probe or "
        "{full: {epochs: 5}}, shown beside the baselines",
    )
    context: Annotated[int, Field(ge=8)] | None = Field(
        default=None, description="tokens of a text that are read at most; default: what the encoder allows"
    )

    def clocked(self, share: Share) -> bool:
        """Says whether the clock may end a training."""
        if share.seconds is None or (self.method != "auto" and self.method.name in BASELINES):
            return False
        settings = None if self.method == "auto" else self.method.settings
        counted = getattr(settings, "steps", None) not in (None, "auto")
        return not counted and getattr(settings, "epochs", "auto") == "auto"

    def resolve(self, facts: Mapping[str, Facts | None], machine: Machine, share: Share) -> Resolved:
        """Checks that the rows and the model fit, and says which methods take part."""
        examples, model = _examples(facts), facts.get("model")
        _check_model(model)
        chosen = self._candidates(examples, model, machine, share)
        if self.method != "auto":
            return Resolved(stage=self)
        return Resolved(stage=self, reasons={"method": f"{chosen.said}. Rows not trained on decide"})

    def forecast(self, facts: Mapping[str, Facts | None], machine: Machine, share: Share) -> Forecast:
        """Adds up the trainings that judge the methods, and that of the one kept."""
        from kogata.engine.classify._costs import SAVE_BYTES_PER_SECOND
        from kogata.engine.classify._task import size_of
        from kogata.engine.costs import STAGE_SECONDS

        examples, model = _examples(facts), facts.get("model")
        size = size_of(examples, model, self.context)
        chosen = self._candidates(examples, model, machine, share)
        saved = 4 * (size.parameters + size.body // max(1, size.layers)) if model else 20 << 20
        limit = share.seconds if self.clocked(share) else None
        spent = chosen.cost(size, machine, self._folds(examples, size), limit)
        seconds = STAGE_SECONDS + saved / SAVE_BYTES_PER_SECOND + (spent.seconds or 0.0)
        seconds = seconds if limit is None else min(seconds, limit)
        made = {
            "spec": None,
            "architecture": (model or {}).get("architecture") or "ngrams",
            "role": "classifier",
            "task": "classification",
            "parameters": size.parameters or None,
            "vocab_size": (model or {}).get("vocab_size"),
            "context": (model or {}).get("context"),
            "tokenizer_digest": (model or {}).get("tokenizer_digest"),
            "end_id": None,
            "labels": examples.get("labels"),
        }
        cost = Cost(
            seconds=seconds,
            cpu_seconds=seconds * (1 + 0.8 * (machine.cores - 1)),
            joules=machine.joules(seconds),
            tokens=spent.tokens,
            flops=spent.flops,
            peak_bytes=spent.peak_bytes,
            size_bytes=saved,
        )
        return Forecast(facts=made, cost=cost, disk_bytes=saved + 6 * size.parameters * 4)

    def run(self, given: Given, bench: Bench) -> Facts:
        """Judges the methods, keeps one, writes it with its scores."""
        from kogata.engine.classify._contest import Contest
        from kogata.engine.classify._linear import folds
        from kogata.engine.classify._task import Workshop, names_of, read_split, size_of
        from kogata.engine.pretraining import prepare_torch

        prepare_torch(bench)
        examples, model = one(given, "examples"), given.get("model")
        _check_model(model and model.facts)
        rows = read_split(examples.path, "train")
        names = names_of(rows.labels)
        workshop = Workshop(model.path if model else None, self.context)
        task = rows.task(names, workshop, bench.seed)
        facts = {**examples.facts, "labels": names}
        size = size_of(facts, model and model.facts, self.context)
        count = self._folds(facts, size)
        # All held-out rows are read, judges or not: a label that training never saw is found now.
        held = read_split(examples.path, "heldout", names)
        read_split(examples.path, "test", names)
        heldout = None
        parts: list[Any] = []
        if count is None:
            heldout = held.task(names, workshop, bench.seed)
        else:
            parts = _check_folds(folds(task.targets, count, bench.seed, task.groups), task)
        chosen = self._candidates(facts, model and model.facts, bench.machine, bench.share)
        asked = None if self.method == "auto" else self.method.name
        contest = Contest(
            task=task,
            heldout=heldout,
            parts=parts,
            bench=bench,
            seconds=bench.share.seconds if self.clocked(bench.share) else None,
        )
        entry, reason = contest.judge(chosen.entries, asked)
        classifier = contest.final(entry)
        made = classifier.save(bench.out)
        bench.log(f"kept: {entry.name}, {reason}")
        outcome = getattr(classifier, "outcome", None)
        if outcome is not None:
            outcome.write_metrics(bench.out, clocked=self.clocked(bench.share))
        truncated = workshop.encoder.truncated if model else 0
        if truncated:
            bench.log(f"{truncated:,} texts are longer than the encoder reads: their ends were cut off")
        about = {
            **made,
            "role": "classifier",
            "task": "classification",
            "method": entry.name,
            "chosen": reason,
            "labels": names,
            "methods": contest.table,
            "left_out": chosen.left_out,
            "confused": contest.confused(entry),
            "rows": len(task),
            "truncated_texts": truncated,
        }
        training = {name: about[name] for name in ("method", "chosen", "methods", "training")}
        text = json.dumps(training, ensure_ascii=False, indent=1, sort_keys=True)
        (bench.out / "training.json").write_text(text + "\n", encoding="utf-8")
        return about

    def steps_taken(self, facts: Facts) -> dict[str, Any]:
        """Gives the settings that replay a result without a clock: the method that was kept, its steps."""
        module = registry.variant(Method.folder, facts["method"])
        given = None if self.method == "auto" else self.method.settings
        settings = given or module.Settings()
        if hasattr(module, "steps_taken") and facts.get("training"):
            settings = module.steps_taken(settings, facts["training"])
        inner = settings.model_dump(mode="json", exclude_defaults=True)
        return {"method": {facts["method"]: inner}}

    def _folds(self, examples: Facts, size: Size) -> int | None:
        """Gives the number of folds that judge; None where held-out rows do."""
        from kogata.engine.candidates import FOLDS

        held = ((examples.get("splits") or {}).get("heldout") or {}).get("examples") or 0
        return None if held >= JUDGES else FOLDS

    def _candidates(self, examples: Facts, model: Facts | None, machine: Machine, share: Share) -> Candidates:
        from kogata.engine.candidates import candidates
        from kogata.engine.classify._task import size_of

        size = size_of(examples, model, self.context)
        return candidates(
            Method.folder,
            BASELINES,
            self.method,
            size,
            machine,
            encoder=model is not None,
            folds=self._folds(examples, size),
            seconds=share.seconds if self.clocked(share) else None,
            where="train.classify",
        )


def _check_folds(parts: list[Any], task: Any) -> list[Any]:
    from kogata.engine.candidates import FOLDS

    if len(parts) < FOLDS:
        groups, judged = len(set(task.groups.tolist())), sum(len(held) for _, held in parts)
        raise DataError(
            "too few rows to judge by",
            where="split train",
            found=f"{len(task):,} rows of {task.classes} labels in {groups:,} groups, {judged:,} to judge by",
            expected=f"rows for {FOLDS} folds, of some label two at least that share no group",
            remedy=f"add rows, or hold out {JUDGES} or more",
        )
    return parts


def _examples(facts: Mapping[str, Facts | None]) -> Facts:
    examples = facts["examples"]
    assert examples is not None
    form = examples.get("form")
    if form not in (None, "label"):
        raise RecipeError(
            "these rows have no labels",
            where="train.classify, slot examples",
            found=f"rows of the form {form}",
            expected="rows with a text and a label",
            remedy="map your headers in data.read: columns: {text: …, label: …}",
        )
    return examples


def _check_model(model: Facts | None) -> None:
    if model is not None and (model.get("spec") or model.get("role") not in (None, "encoder")):
        raise RecipeError(
            "a classifier needs a text encoder",
            where="train.classify, slot model",
            found=f"architecture {model.get('architecture')}, role {model.get('role') or 'decoder'}",
            expected="an encoder of BERT's kind (bert, roberta, modernbert …)",
            remedy="name one in model.read, for example {name: minilm}; for a decoder use train.finetune",
        )
