"""Examples rendered for a model: rows to train on, rows held out, and an account of what was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from kogata.core.amounts import counted
from kogata.core.errors import DataError
from kogata.engine.chat import Rendered, Renderer, Template, Turns, Unfit
from kogata.engine.chat_template import Choice
from kogata.engine.examples import read_examples
from kogata.engine.load import load_tokenizer
from kogata.engine.rows import Rows

SHOWN = 3
"""Rows named for each reason they were left out."""


@dataclass(frozen=True, kw_only=True)
class RenderedRows:
    """What a model is trained on."""

    train: Rows
    heldout: Rows
    template: Template
    left_out: dict[str, int]
    """Reason → training rows left out."""
    notes: list[str] = field(default_factory=list)
    """Lines to say to the person who watches."""


def render_rows(
    examples: Path,
    model: Path,
    *,
    context: int,
    prompt_weight: float = 0.0,
    turns: Turns = "all",
    template: Choice = "auto",
    where: str = "",
) -> RenderedRows:
    """Renders the training and held-out rows of an examples folder with a model's tokenizer and template.

    Args:
        examples: the folder of examples.
        model: the model's folder.
        context: tokens of the longest row.
        prompt_weight: what a token of the prompt counts beside 1 of the answer.
        turns: which answers of a conversation are trained.
        template: see `Template.load`.
        where: names the stage in messages.

    Raises:
        DataError: no row can be trained on; the template or the tokenizer cannot be used.
    """
    chat = Template.load(model, template)
    renderer = Renderer(
        load_tokenizer(model), chat, prompt_weight=prompt_weight, turns=turns, context=context
    )
    account = _Account()
    train = Rows(_each(examples, "train", renderer, account))
    if not len(train):
        raise _nothing(account, where, context)
    spare = _Account()
    heldout = Rows(_each(examples, "heldout", renderer, spare))
    notes = [f"chat format: {chat.said}", *account.lines("left out")]
    if not len(heldout):
        notes.append("no held-out rows: the last weights are kept, and nothing ends training early")
    notes += spare.lines("held-out rows left out")
    return RenderedRows(
        train=train, heldout=heldout, template=chat, left_out=dict(account.reasons), notes=notes
    )


class _Account:
    """Counts rows left out, with the first few of each reason."""

    def __init__(self) -> None:
        self.rows = 0
        self.reasons: Counter[str] = Counter()
        self.first: dict[str, list[Unfit]] = {}

    def reject(self, fault: Unfit) -> None:
        self.reasons[fault.reason] += 1
        shown = self.first.setdefault(fault.reason, [])
        if len(shown) < SHOWN:
            shown.append(fault)

    def lines(self, head: str) -> list[str]:
        found = []
        for reason, count in self.reasons.most_common():
            some = ", ".join(f"{fault.where} ({fault.found})" for fault in self.first[reason])
            found.append(f"{head}: {count:,} of {counted(self.rows, 'row')}, {reason}: {some}")
        return found


def _each(folder: Path, split: str, renderer: Renderer, account: _Account) -> Iterator[tuple[list, list]]:
    for example in read_examples(folder, split):
        account.rows += 1
        try:
            rows = renderer.rows(example)
        except Unfit as fault:
            account.reject(fault)
            continue
        yield from ((row.ids, row.weights) for row in rows if _trains(row))


def _trains(row: Rendered) -> bool:
    return any(row.weights[1:])


def _nothing(account: _Account, where: str, context: int) -> DataError:
    if not account.rows:
        return DataError(
            "there are no rows to train on",
            where=f"stage {where}",
            found="an empty training split",
            expected="at least one row",
            remedy="give data.read more rows, or a smaller held-out share",
        )
    reason, count = account.reasons.most_common(1)[0] if account.reasons else ("nothing to train", 0)
    faults = account.first.get(reason) or []
    first = faults[0] if faults else None
    return DataError(
        f"none of the {counted(account.rows, 'row')} can be trained on",
        where=f"stage {where}" + (f"; first: {first.where}" if first else ""),
        found=f"{reason} ({counted(count, 'row')})" + (f": {first.found}" if first else ""),
        expected=f"rows of at most {context} tokens with an answer that is trained",
        remedy=first.remedy if first else "check the columns, the mask and the context",
    )
