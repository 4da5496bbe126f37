"""train.tag: finds names, dates, parts of speech … in texts, from rows in which they are marked."""

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

BASELINES = ("features", "probe")
JUDGES = 100
"""Held-out rows that suffice to judge by; with fewer, folds of the training rows do."""


class Method(Choice, folder="engine.tag"):
    """How texts are tagged."""


class Tag(Stage):
    """Trains a tagger of texts (names, dates, products; parts of speech), and says which method does best.

    Rows hold tokens with tags (B-PER, I-PER, O; or one plain tag a token) or a text with marked spans in
    characters, which suits Japanese. `features` needs no model and reads any language: words, their shapes
    and neighbours. `probe` puts a regression over the vectors of an encoder. Both are quick and always run:
    they are what `full`, which trains the encoder, must beat. `auto` tries what suits the rows and fits the
    time. A dearer method is kept only where its F1 leads on the same rows by more than the standard error of
    that lead.

    F1, precision and recall are of whole spans, as seqeval counts them under strict IOB2. Every piece of a
    marked word is learned, the first piece of a span as B-; a word is tagged as its first piece says. Texts
    longer than the encoder reads are read in windows that overlap: nothing is cut off. Held-out rows judge
    where there are 100 or more, else folds of the training rows; test rows stay untouched. With an encoder
    the model loads in plain transformers (AutoModelForTokenClassification).

    Pays when: something must be found in texts, again and again, and some hundred rows are marked.
    Hurts when: marks are nested or overlap; with few rows, or where rules (a date's form) find all of it.
    Cost: seconds for the baselines; minutes where the encoder is trained.
    Source: Devlin et al. 2019 (BERT); seqeval's measure; Ratinov and Roth 2009 for the features.
    Measured here: not yet measured.
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
        description="auto: what does best on rows it has not seen; or one method, such as features or "
        "{full: {epochs: 5}}, shown beside the baselines",
    )
    context: Annotated[int, Field(ge=8)] | None = Field(
        default=None, description="tokens of a text that are read at once; default: what the encoder allows"
    )

    def clocked(self, share: Share) -> bool:
        """Says whether the clock may end a training."""
        if share.seconds is None or (self.method != "auto" and self.method.name in BASELINES):
            return False
        settings = None if self.method == "auto" else self.method.settings
        return getattr(settings, "steps", None) is None and getattr(settings, "epochs", "auto") == "auto"

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
        from kogata.engine.costs import STAGE_SECONDS
        from kogata.engine.tag._task import size_of

        examples, model = _examples(facts), facts.get("model")
        size = size_of(examples, model, self.context)
        chosen = self._candidates(examples, model, machine, share)
        saved = 4 * (size.parameters + size.width * size.classes) if model else 4 << 20
        limit = share.seconds if self.clocked(share) else None
        spent = chosen.cost(size, machine, self._folds(examples), limit)
        seconds = STAGE_SECONDS + saved / SAVE_BYTES_PER_SECOND + (spent.seconds or 0.0)
        seconds = seconds if limit is None else min(seconds, limit)
        made = {
            "spec": None,
            "architecture": (model or {}).get("architecture") or "features",
            "role": "tagger",
            "task": "tagging",
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
        return Forecast(facts=made, cost=cost, disk_bytes=saved + 7 * size.parameters * 4)

    def run(self, given: Given, bench: Bench) -> Facts:
        """Judges the methods, keeps one, writes it with its scores."""
        from kogata.engine.classify._linear import folds
        from kogata.engine.examples import read_examples
        from kogata.engine.pretraining import prepare_torch
        from kogata.engine.tag._contest import TagContest
        from kogata.engine.tag._task import Workshop, read_rows, read_task, scheme_of, unreachable

        prepare_torch(bench)
        examples, model = one(given, "examples"), given.get("model")
        _check_model(model and model.facts)
        scheme = scheme_of(read_examples(examples.path, "train"))
        workshop = Workshop(model.path if model else None, scheme, self.context)
        task = read_task(examples.path, scheme, workshop, bench.seed)
        facts = {**examples.facts, "labels": list(scheme.labels)}
        count = self._folds(facts)
        # All held-out rows are read, judges or not: a label that training never saw is found now.
        held = read_task(examples.path, scheme, workshop, bench.seed, "heldout")
        read_rows(examples.path, "test", scheme)
        parts: list[Any] = []
        if count is not None:
            parts = _check_folds(folds(task.rarest, count, bench.seed, task.groups), task, count)
        contest = TagContest(
            task=task,
            heldout=held if count is None else None,
            parts=parts,
            bench=bench,
            seconds=bench.share.seconds if self.clocked(bench.share) else None,
        )
        chosen = self._candidates(facts, model and model.facts, bench.machine, bench.share)
        entry, reason = contest.judge(chosen.entries, None if self.method == "auto" else self.method.name)
        tagger = contest.final(entry)
        made = tagger.save(bench.out)
        bench.log(f"kept: {entry.name}, {reason}")
        outcome = getattr(tagger, "outcome", None)
        if outcome is not None:
            outcome.write_metrics(bench.out, clocked=self.clocked(bench.share))
        missed = unreachable(task.rows, tagger.places(task.rows))
        spans = sum(len(row.spans) for row in task.rows)
        if missed:
            bench.log(
                f"{missed:,} of {spans:,} marked spans begin or end within a unit of {entry.name}: "
                "they are never found exactly"
            )
        about = {
            **made,
            "role": "tagger",
            "task": "tagging",
            "method": entry.name,
            "chosen": reason,
            "labels": list(scheme.labels),
            "scheme": "plain" if scheme.plain else "iob2",
            "methods": contest.table,
            "left_out": chosen.left_out,
            "confused": contest.confused(entry),
            "rows": len(task),
            "spans": spans,
            "unreachable_spans": missed,
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

    def _folds(self, examples: Facts) -> int | None:
        """Gives the number of folds that judge; None where held-out rows do."""
        from kogata.engine.candidates import FOLDS

        held = ((examples.get("splits") or {}).get("heldout") or {}).get("examples") or 0
        return None if held >= JUDGES else FOLDS

    def _candidates(self, examples: Facts, model: Facts | None, machine: Machine, share: Share) -> Candidates:
        from kogata.engine.candidates import candidates
        from kogata.engine.tag._task import size_of

        return candidates(
            Method.folder,
            BASELINES,
            self.method,
            size_of(examples, model, self.context),
            machine,
            encoder=model is not None,
            folds=self._folds(examples),
            seconds=share.seconds if self.clocked(share) else None,
            where="train.tag",
        )


def _check_folds(parts: list[Any], task: Any, count: int) -> list[Any]:
    if len(parts) < count:
        groups, judged = len(set(task.groups.tolist())), sum(len(held) for _, held in parts)
        raise DataError(
            "too few rows to judge by",
            where="split train",
            found=f"{len(task):,} rows in {groups:,} groups, {judged:,} to judge by",
            expected=f"rows for {count} folds, of some label two at least that share no group",
            remedy=f"add rows, or hold out {JUDGES} or more",
        )
    return parts


def _examples(facts: Mapping[str, Facts | None]) -> Facts:
    examples = facts["examples"]
    assert examples is not None
    form = examples.get("form")
    if form not in (None, "tags"):
        raise RecipeError(
            "nothing is marked in these rows",
            where="train.tag, slot examples",
            found=f"rows of the form {form}",
            expected="rows with tokens and tags, or with a text and spans",
            remedy="map your headers in data.read: columns: {tokens: …, tags: …} or {text: …, spans: …}",
        )
    return examples


def _check_model(model: Facts | None) -> None:
    if model is not None and (model.get("spec") or model.get("role") not in (None, "encoder")):
        raise RecipeError(
            "a tagger needs a text encoder",
            where="train.tag, slot model",
            found=f"architecture {model.get('architecture')}, role {model.get('role') or 'decoder'}",
            expected="an encoder of BERT's kind (bert, roberta, modernbert …)",
            remedy="name one in model.read, for example {name: minilm}; or leave it out",
        )
