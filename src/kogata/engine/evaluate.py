"""Bits per byte of held-out text: document by document, whatever model computes the probabilities.

The measure: each document alone, the end token before it as start, non-overlapping windows, every byte of the
text counted, special tokens not. A window's first token is predicted from the last token of the window before
(the end token, in the first), which stands at position zero.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kogata.core.errors import DataError

WINDOW = 256
BATCH_TOKENS = 4096
_LOGIT_FLOATS = 2**21
"""Logits held at once, 8 MiB: they stay in the last-level cache of a small machine."""


@dataclass(frozen=True, kw_only=True)
class BitsPerByte:
    """How well a model predicts some text."""

    value: float
    window: int
    documents: int
    bytes: int
    tokens: int
    loss_nats_per_token: float

    def to_dict(self) -> dict[str, Any]:
        """Gives plain values for JSON."""
        return asdict(self)

    @staticmethod
    def of(loss: float, *, window: int, documents: int, bytes: int, tokens: int) -> BitsPerByte:
        """Computes the figure from the sum of −log p in nats."""
        return BitsPerByte(
            value=loss / math.log(2) / bytes,
            window=window,
            documents=documents,
            bytes=bytes,
            tokens=tokens,
            loss_nats_per_token=loss / tokens,
        )


def default_window(context: int | None) -> int:
    """Gives the window of the measure: min(context, 256)."""
    return min(context or WINDOW, WINDOW)


def cut(ids: Sequence[int], end_id: int, window: int) -> Iterator[tuple[list[int], list[int]]]:
    """Cuts a document, end token first, into windows: inputs and the tokens they are asked for."""
    whole = [end_id, *ids]
    for start in range(0, len(whole) - 1, window):
        targets = whole[start + 1 : start + window + 1]
        yield whole[start : start + len(targets)], targets


def bits_per_byte(
    model: Any,
    documents: Iterable[tuple[Sequence[int], int]],
    *,
    end_id: int,
    window: int,
    progress: Callable[[int], None] | None = None,
) -> BitsPerByte:
    """Measures a Decoder or any causal model of transformers (the slower way: row by row).

    Args:
        model: computes logits from ids [B, T].
        documents: token ids of each document without special tokens, and the bytes of its text.
        end_id: the end token, put before each document.
        window: tokens a prediction may look back at most; see `default_window`.
        progress: told the tokens scored so far.

    Raises:
        DataError: there is no text.
    """
    pieces: list[tuple[list[int], list[int]]] = []
    count = size = 0
    for ids, text_bytes in documents:
        count, size = count + 1, size + text_bytes
        pieces += cut(ids, end_id, window)
    if not size or not pieces:
        raise DataError(
            "no text to score",
            found=f"{count} documents, {size} bytes",
            expected="text in the split",
            remedy=_SPLIT,
        )
    tokens = sum(len(targets) for _, targets in pieces)
    # fsum: the figure does not depend on the order the batches came in.
    loss = math.fsum(math.fsum(row) for row in token_losses(model, pieces, progress=progress))
    return BitsPerByte.of(loss, window=window, documents=count, bytes=size, tokens=tokens)


_SPLIT = "give data.read a held-out file, or a larger corpus"


@torch.inference_mode()
def token_losses(
    model: Any,
    pieces: Sequence[tuple[Sequence[int], Sequence[int]]],
    *,
    batch_tokens: int = BATCH_TOKENS,
    progress: Callable[[int], None] | None = None,
) -> list[list[float]]:
    """Computes −log p of every target, in nats; pieces of like length go through the model together.

    Shorter pieces of a batch are filled up at their end, which a causal model's earlier tokens do not see.
    """
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    losses: list[list[float]] = [[] for _ in pieces]
    done = 0
    try:
        for rows in _batches([len(targets) for _, targets in pieces], batch_tokens):
            longest = len(pieces[rows[0]][1])
            ids = torch.zeros(len(rows), longest, dtype=torch.long)
            counts = torch.tensor([len(pieces[row][1]) for row in rows])
            for at, row in enumerate(rows):
                ids[at, : counts[at]] = torch.tensor(pieces[row][0])
            wanted = torch.tensor([token for row in rows for token in pieces[row][1]])
            real = torch.arange(longest)[None, :] < counts[:, None]
            nll = _losses(model, ids.to(device), real.to(device), wanted.to(device)).double().cpu()
            for row, values in zip(rows, nll.split(counts.tolist()), strict=True):
                losses[row] = values.tolist()
            done += int(counts.sum())
            if progress:
                progress(done)
    finally:
        model.train(was_training)
    return losses


def _batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    at = 0
    while at < len(order):
        longest = max(1, lengths[order[at]])
        size = max(1, batch_tokens // longest)
        # A much shorter piece waits for the next batch: filling it up would cost more than starting anew.
        rows = [row for row in order[at : at + size] if 4 * lengths[row] >= 3 * longest or longest < 32]
        yield rows
        at += len(rows)


def _losses(model: Any, ids: Tensor, real: Tensor, wanted: Tensor) -> Tensor:
    parts: list[Tensor] = []
    if hasattr(model, "hidden") and getattr(model, "plain_head", True):
        hidden = model.hidden(ids)[real]
        step = max(1, _LOGIT_FLOATS // model.head_weight.shape[0])
        for at in range(0, len(wanted), step):
            logits = model.logits(hidden[at : at + step]).float()
            parts.append(F.cross_entropy(logits, wanted[at : at + step], reduction="none"))
        return torch.cat(parts)
    # The whole logits of some rows at a time, as transformers gives them.
    at = 0
    for row, mask in zip(ids, real, strict=True):
        count = int(mask.sum())
        found = model(row[None, :count])
        logits = (found if isinstance(found, Tensor) else found.logits)[0].float()
        parts.append(F.cross_entropy(logits, wanted[at : at + count], reduction="none"))
        at += count
    return torch.cat(parts)


def encode_documents(
    encode: Callable[[list[str]], list[list[int]]], texts: Iterable[str]
) -> Iterator[tuple[list[int], int]]:
    """Tokenises texts in groups; gives ids and the bytes of each."""
    group: list[str] = []
    size = 0
    for text in texts:
        group.append(text)
        size += len(text)
        if size > 2**20:
            yield from _encoded(encode, group)
            group, size = [], 0
    yield from _encoded(encode, group)


def _encoded(
    encode: Callable[[list[str]], list[list[int]]], group: list[str]
) -> Iterator[tuple[list[int], int]]:
    if group:
        for text, ids in zip(group, encode(group), strict=True):
            yield ids, len(text.encode("utf-8", "surrogatepass"))


def sample_texts(texts: Iterable[str], limit: int | None) -> tuple[list[str], int]:
    """Chooses texts up to a limit of bytes by their content alone: every recipe is judged on the same.

    Taken in the order of their hashes; a text longer than an eighth of the limit is cut to that, at a
    character's border. Returned in their first order, with the bytes of all texts.
    """
    rows = [(text, len(text.encode("utf-8", "surrogatepass"))) for text in texts]
    total = sum(size for _, size in rows)
    if limit is None or total <= limit:
        return [text for text, _ in rows], total
    order = sorted(
        range(len(rows)), key=lambda at: hashlib.sha256(rows[at][0].encode("utf-8", "surrogatepass")).digest()
    )
    chosen: dict[int, str] = {}
    left = limit
    for most in (max(1, limit // 8), limit):
        for at in order:
            have = len(chosen.get(at, "").encode("utf-8", "surrogatepass"))
            want = min(rows[at][1], most, have + left)
            if want > have:
                chosen[at] = rows[at][0].encode("utf-8", "surrogatepass")[:want].decode("utf-8", "ignore")
                left -= len(chosen[at].encode("utf-8")) - have
            if left < 16:
                break
        if left < 16:
            break
    return [chosen[at] for at in sorted(chosen) if chosen[at]], total


def encoder(folder: Path) -> Callable[[list[str]], list[list[int]]]:
    """Gives the function that tokenises texts as in training: special tokens written in text are text."""
    from kogata.engine.load import load_tokenizer

    tokenizer = load_tokenizer(folder)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True

    def encode(texts: list[str]) -> list[list[int]]:
        return [found.ids for found in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    return encode


def default_prompts(texts: Sequence[str]) -> list[str]:
    """Gives beginnings in the language of some texts; in one we have none for, their own first words."""
    from kogata.engine.text import language_hint

    ours = json.loads((files("kogata") / "data" / "prompts.json").read_text(encoding="utf-8"))
    language = language_hint("\n".join(text[:2000] for text in texts[:10])) if texts else "en"
    if language in ours:
        return ours[language]
    return [text.strip()[:24] for text in texts[:4]]
