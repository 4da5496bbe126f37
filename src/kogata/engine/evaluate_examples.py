"""How good a model is on rows it has not seen: the loss of their answers, and answers of its own."""

from __future__ import annotations

import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from kogata.engine.chat import Renderer, Template, Unfit
from kogata.engine.evaluate import token_losses
from kogata.engine.examples import Example, read_examples
from kogata.engine.generate import generate

LIMIT_TOKENS = 16_384
"""Tokens that are scored at most."""


def renderer_of(loaded: Any, folder: Path, trained: str | None = None) -> Renderer:
    """Makes the renderer of a loaded model.

    Args:
        loaded: the model.
        folder: holds the tokenizer's files and the template.
        trained: the template that it was fine-tuned with, as its facts name it.
    """
    choice = "plain" if trained == "plain" else "auto"
    return Renderer(loaded.tokenizer, Template.load(folder, choice), context=loaded.context)


def answer_loss(
    loaded: Any,
    renderer: Renderer,
    examples: Path,
    split: str,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any] | None:
    """Computes nats per token of the answers in a split, in the chat format; None where there is no row.

    Rows are taken in their order up to `LIMIT_TOKENS`; those that do not fit the model are counted.
    """
    pieces: list[tuple[list[int], list[int]]] = []
    weights: list[list[float]] = []
    rows = unfit = tokens = 0
    for example in read_examples(examples, split):
        try:
            found = renderer.render(example)
        except Unfit:
            unfit += 1
            continue
        if pieces and tokens + len(found.ids) > LIMIT_TOKENS:
            break
        rows, tokens = rows + 1, tokens + len(found.ids)
        pieces.append((found.ids[:-1], found.ids[1:]))
        weights.append(found.weights[1:])
    counted = sum(map(sum, weights))
    if not counted:
        return None
    losses = token_losses(loaded.decoder, pieces, progress=progress)
    total = sum(
        sum(loss * weight for loss, weight in zip(row, counts, strict=True))
        for row, counts in zip(losses, weights, strict=True)
    )
    return {
        "split": split,
        "loss_nats_per_token": total / counted,
        "rows": rows,
        "rows_unfit": unfit,
        "answer_tokens": round(counted),
        "tokens": tokens,
    }


@torch.no_grad()
def answers(
    loaded: Any,
    renderer: Renderer,
    examples: Path,
    split: str,
    *,
    count: int,
    max_tokens: int,
    progress: Callable[[int], None] | None = None,
) -> list[dict[str, str]]:
    """Lets the model answer the first rows of a split, taking the likeliest token each time."""
    found: list[dict[str, str]] = []
    tokens = 0
    for example in read_examples(examples, split):
        if len(found) == count:
            break
        try:
            ids = _prompt(renderer, example)
        except Unfit:
            continue
        made = generate(
            loaded.decoder,
            ids,
            max_tokens,
            temperature=0.0,
            end_id=(*renderer.stop_ids, *loaded.end_ids),
        )
        tokens += len(made)
        if progress is not None:
            progress(tokens)
        text = loaded.tokenizer.decode(made)
        asked = example.question() or _start(example.fields["text"])
        found.append({"prompt": asked, "text": text, "expected": example.answer()})
    return found


def copied(shown: Sequence[Mapping[str, str]], examples: Path) -> dict[str, Any]:
    """Counts the answers that stand word for word among the training rows' answers, or begin one of them.

    White space and Unicode forms aside. The expected answers are counted in the same way: where many of them
    are copies too, as with a few stock answers, copying is what was asked for.

    Args:
        shown: what `answers` gave.
        examples: the folder of the rows.
    """
    known = sorted({_plain(example.answer()) for example in read_examples(examples, "train")} - {""})

    def among(text: str) -> bool:
        plain = _plain(text)
        at = bisect_left(known, plain)
        return bool(plain) and at < len(known) and known[at].startswith(plain)

    return {
        "answers": len(shown),
        "copied": sum(among(row["text"]) for row in shown),
        "expected_copied": sum(among(row["expected"]) for row in shown),
    }


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def _prompt(renderer: Renderer, example: Example) -> list[int]:
    if example.form == "text":
        start = _start(example.fields["text"])
        return [renderer.start_id, *renderer.tokenizer.encode(start, add_special_tokens=False).ids]
    return renderer.prompt_ids(example.messages()[:-1], example.fields.get("tools"))


def _start(text: str) -> str:
    """Gives the first eight words of a text, or its first characters where no spaces part words."""
    words = " ".join(text.split()[:8])
    return words if len(words) <= 80 else text.strip()[:24]
