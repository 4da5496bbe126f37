"""What checks look at and what they say."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from kogata.core.amounts import counted
from kogata.core.registry import registry
from kogata.engine.chat import Rendered, Renderer, Unfit
from kogata.engine.example_reading import Gathered
from kogata.engine.example_rows import RowProblem
from kogata.engine.examples import Example

if TYPE_CHECKING:
    from kogata.engine.model_view import ModelView

SHOWN = 20
"""Rows that a finding lists."""

Level = Literal["problem", "warning", "note"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing a check found.

    Attributes:
        check: the check's name.
        name: names the finding, for JSON and facts.
        level: `problem` (rows are lost or harm), `warning` (look at them) or `note`.
        what: one sentence with numbers.
        remedy: what to do about it.
        count: rows concerned.
        rows: the first of them: source, and what was found.
        numbers: what a screen or a program may want besides.
    """

    check: str
    name: str
    level: Level
    what: str
    remedy: str = ""
    count: int = 0
    rows: Sequence[dict[str, Any]] = ()
    numbers: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Gives plain values for JSON."""
        return {**vars(self), "rows": list(self.rows)}


@dataclass(kw_only=True)
class Examined:
    """Examples under examination.

    Attributes:
        examples: (split, example) in order.
        problems: rows that could not be read.
        rows: rows looked at, those with problems included.
        tokenizer: of the model, if there is one.
        renderer: writes examples as the model reads them; None without a model, or with an encoder.
        context: the longest row in tokens that the model takes.
    """

    examples: list[tuple[str, Example]]
    problems: list[RowProblem] = field(default_factory=list)
    rows: int = 0
    tokenizer: Any = None
    renderer: Renderer | None = None
    context: int | None = None

    @staticmethod
    def of(found: Gathered, model: ModelView | None = None, **options: Any) -> Examined:
        """Examines what was read, with a model as it reads it; `options` are those of `Renderer`."""
        renderer = None
        if model is not None and model.template is not None:
            renderer = Renderer(model.tokenizer, model.template, **options)
        return Examined(
            examples=list(found.examples),
            problems=found.problems,
            rows=found.rows,
            tokenizer=model.tokenizer if model else None,
            renderer=renderer,
            context=model.context if model else None,
        )

    @property
    def form(self) -> str | None:
        """What all rows are of; None where they differ, or where there are none."""
        forms = {example.form for _, example in self.examples}
        return next(iter(forms)) if len(forms) == 1 else None

    @cached_property
    def rendered(self) -> list[tuple[Example, list[Rendered] | Unfit]]:
        """Renders every row, without a limit of length; what cannot be rendered gives its fault."""
        assert self.renderer is not None
        found: list[tuple[Example, list[Rendered] | Unfit]] = []
        for _, example in self.examples:
            try:
                found.append((example, self.renderer.rows(example)))
            except Unfit as fault:
                found.append((example, fault))
        return found

    @cached_property
    def lengths(self) -> list[tuple[Example, int]]:
        """Gives the tokens of every row that can be rendered, whole; of an encoder, of what it reads."""
        if self.renderer is None:
            return [(example, self._encoded(example)) for _, example in self.examples]
        found = []
        for example, rows in self.rendered:
            if not isinstance(rows, Unfit):
                sizes = [len(row.ids) for row in rows]
                found.append((example, sum(sizes) if example.form == "text" else max(sizes)))
        return found

    def read_of(self, example: Example) -> str:
        """Gives the texts that the model reads: an encoder reads no label."""
        if self.renderer is not None or example.form != "label":
            return "\n".join(example.texts())
        return "\n".join(example.fields[role] for role in ("text", "text_pair") if role in example.fields)

    def _encoded(self, example: Example) -> int:
        if example.form != "label":
            return len(self.tokenizer.encode(self.read_of(example)).ids)
        return len(self.tokenizer.encode(example.fields["text"], example.fields.get("text_pair")).ids)

    @cached_property
    def normal(self) -> list[tuple[str, str]]:
        """Gives question and answer of every row, without case, width and white space."""
        return [(normal(example.question()), normal(example.answer())) for _, example in self.examples]


def check_names() -> list[str]:
    """Lists the checks."""
    return registry.variant_names("engine.check")


def run_checks(examined: Examined, *, cheap: bool = False) -> list[Finding]:
    """Runs the checks that the rows, and the model if there is one, allow; problems first.

    Args:
        examined: what to look at.
        cheap: only those that guard every run.
    """
    found: list[Finding] = []
    for name in check_names():
        check = registry.variant("engine.check", name)
        if cheap and not check.CHEAP:
            continue
        if check.NEEDS is not None and getattr(examined, check.NEEDS) is None:
            continue
        found += check.check(examined)
    return in_order(found)


def in_order(found: Iterable[Finding]) -> list[Finding]:
    """Sorts findings: problems first, then warnings."""
    order = ("problem", "warning", "note")
    return sorted(found, key=lambda finding: order.index(finding.level))


def normal(text: str) -> str:
    """Writes a text without differences of width, case and white space."""
    return " ".join(unicodedata.normalize("NFKC", text).lower().split())


def shown(examples: Iterable[Example], **more: Any) -> list[dict[str, Any]]:
    """Lists the first rows."""
    return [
        {"source": example.source, "found": clip(example.answer()), **more}
        for _, example in zip(range(SHOWN), examples, strict=False)
    ]


def clip(text: str, most: int = 80) -> str:
    """Gives the beginning of a text on one line."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"


def of_rows(count: int, one: str, more: str, *, whole: float | None = None, kind: str = "row") -> str:
    """Writes what so many rows are or do: `1 row is a copy`, `3 rows (1.5 %) are copies`.

    Args:
        count: how many.
        one: said of one row.
        more: said of none or several.
        whole: how many there are; its share is then said.
        kind: what the rows are called.
    """
    share = "" if whole is None else f" ({percent(count, whole)})"
    return f"{counted(count, kind)}{share} {one if count == 1 else more}"


def percent(part: float, whole: float) -> str:
    """Writes a share."""
    return f"{100 * part / max(1, whole):.1f} %"
