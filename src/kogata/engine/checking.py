"""What `kogata check` says of rows: what was read, how it is split, what a model reads, what is wrong."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from kogata.core.stage import Facts
from kogata.engine.check._common import Examined, Finding, in_order, of_rows, run_checks
from kogata.engine.example_plan import facts_of
from kogata.engine.example_reading import Gathered, Reading, gather
from kogata.engine.examples import Example
from kogata.engine.model_view import ModelView


@dataclass(frozen=True, kw_only=True)
class Checked:
    """Rows, and what was found.

    Attributes:
        where: what was read.
        rows: rows looked at, those that cannot be used included.
        unusable: rows that cannot be used.
        columns: file → form, role → header, and the headers not used.
        facts: as data.read's: splits, form, labels, language.
        labels: label → rows in training; of marked spans, spans.
        groups: how many groups the rows come in; None where no column names one.
        model: name, role, context and chat format, where a model was named.
        findings: problems first.
    """

    where: str
    rows: int
    unusable: int
    columns: dict[str, dict[str, Any]]
    facts: Facts
    labels: dict[str, int] = field(default_factory=dict)
    groups: int | None = None
    model: dict[str, Any] | None = None
    findings: list[Finding] = field(default_factory=list)

    @property
    def problems(self) -> int:
        """Counts the findings that lose rows or harm."""
        return sum(finding.level == "problem" for finding in self.findings)

    def finding(self, name: str) -> Finding | None:
        """Gives a finding by name."""
        return next((finding for finding in self.findings if finding.name == name), None)

    def to_dict(self) -> dict[str, Any]:
        """Gives plain values for JSON."""
        return {**vars(self), "problems": self.problems, "findings": [f.to_dict() for f in self.findings]}


def check_rows(
    reading: Reading, model: ModelView | None = None, *, where: str | None = None, **options: Any
) -> Checked:
    """Reads rows and runs every check that they, and the model if there is one, allow.

    Args:
        reading: what to read, and how.
        model: whose tokenizer, template and context are looked at.
        where: what is read, as the user wrote it.
        options: `prompt_weight` and `turns`, as `Renderer` takes them.

    Raises:
        DataError: nothing can be read, or the columns cannot be told.
    """
    found = gather(reading)
    examined = Examined.of(found, model, **options)
    train = found.splits.get("train", [])
    labels = Counter(label for example in train for label in _labels(example))
    groups = {example.group for _, example in found.examples if example.group is not None}
    return Checked(
        where=where or reading.where,
        rows=found.rows,
        unusable=len(found.problems),
        columns={
            file: {"form": taken.form, "roles": dict(taken.roles), "unused": list(taken.unused)}
            for file, taken in found.columns.items()
        },
        facts=facts_of(found),
        labels=dict(labels.most_common()),
        groups=len(groups) if reading.group is not None else None,
        model=None if model is None else _about(model),
        findings=in_order([*run_checks(examined), *_in_both(found)]),
    )


def _labels(example: Example) -> list[str]:
    """Lists a row's labels, of marked spans each one's."""
    if example.form == "tags":
        return [span[2] for span in example.fields["spans"]]
    return [example.fields["label"]] if example.form == "label" else []


def _in_both(found: Gathered) -> list[Finding]:
    """Says that rows lie in the training files and, with their question or group, in the others too."""
    if not found.also_heldout:
        return []
    said = of_rows(found.also_heldout, "has", "have", kind="training row")
    what = f"{said} a question or a group that other files hold out"
    remedy = "they are not trained on; take them out of one of the files"
    count = found.also_heldout
    return [
        Finding(check="splits", name="in both files", level="warning", what=what, remedy=remedy, count=count)
    ]


def _about(model: ModelView) -> dict[str, Any]:
    template = None if model.template is None else model.template.said
    return {"name": model.name, "role": model.role, "context": model.context, "chat_format": template}
