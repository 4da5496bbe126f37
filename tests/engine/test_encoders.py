"""Encoders: batches of like length, pooling, layers run in parts, and rows cut to the context."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_encoders import write_small_encoder

from kogata.core.errors import RecipeError
from kogata.engine.encoder_stack import Stack
from kogata.engine.encoders import Encoder, Text, buckets, pad

TEXTS = [
    "my card is lost",
    "猫 が 好 き",
    "help",
    "when will the transfer arrived please help the app is wrong",
]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_buckets_hold_every_row_once_and_little_padding() -> None:
    lengths = np.random.default_rng(0).integers(3, 90, 500).tolist()
    found = list(buckets(lengths, tokens=400))
    assert sorted(np.concatenate(found).tolist()) == list(range(500))
    padded = sum(len(rows) * max(lengths[i] for i in rows) for rows in found)
    assert padded < 1.12 * sum(lengths)
    assert all(len(rows) * max(lengths[i] for i in rows) <= 400 for rows in found)


@pytest.mark.parametrize("kind", ["bert", "roberta", "modernbert"])
def test_vectors_do_not_depend_on_the_batch(tmp_path: Path, kind: str) -> None:
    encoder = Encoder.load(write_small_encoder(tmp_path, kind))
    together = encoder.vectors(TEXTS)
    for text, found in zip(TEXTS, together, strict=True):
        alone = Encoder.load(tmp_path).vectors([text])[0]
        assert torch.allclose(alone, found, atol=1e-5)
    padded = encoder.pooled(pad(encoder.rows(TEXTS), encoder.pad_id))
    assert torch.allclose(padded, together, atol=1e-5)
    assert torch.allclose(together.mean(1), torch.zeros(4), atol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "roberta", "modernbert"])
def test_rows_laid_end_to_end_and_layers_in_parts_give_the_same(tmp_path: Path, kind: str) -> None:
    encoder = Encoder.load(write_small_encoder(tmp_path, kind))
    # Longer than the window of four on each side, so that ModernBERT's windows are seen; a pair has types.
    texts: list[Text] = [*TEXTS, "card " * 25, ("my card", "猫 が"), "猫 が 好 き"]
    texts.sort(key=lambda text: len(encoder.rows([text])[0]))
    stack, rows = Stack(encoder), encoder.rows(texts)
    laid = stack.lay(rows)
    assert len(laid.groups) > 2 and len(laid.ids) == sum(map(len, rows))
    with torch.no_grad():
        hidden = stack.through(stack.embed(laid), laid, 0, 1)
        found = stack.pool(stack.through(hidden, laid, 1, 2), laid)
    assert torch.allclose(found, encoder.vectors(texts), atol=1e-5)
    assert encoder.config._attn_implementation == "sdpa", "the model's own attention is put back"


@pytest.mark.parametrize("kind", ["bert", "modernbert"])
def test_gradients_are_those_of_the_padded_module(tmp_path: Path, kind: str) -> None:
    encoder = Encoder.load(write_small_encoder(tmp_path, kind))
    rows = sorted(encoder.rows(TEXTS), key=len)
    stack = Stack(encoder)
    laid = stack.lay(rows)
    weigh = torch.randn(len(rows), encoder.width, generator=torch.Generator().manual_seed(0))
    gradients = []
    for padded in (True, False):
        encoder.module.zero_grad()
        if padded:
            vectors = encoder.pooled(pad(rows, encoder.pad_id))
        else:
            vectors = stack.pool(stack.through(stack.embed(laid), laid, 0, 2), laid)
        (vectors * weigh).sum().backward()
        named = encoder.module.named_parameters()
        gradients.append({name: p.grad.clone() for name, p in named if p.grad is not None})
    assert set(gradients[0]) == set(gradients[1])
    for name, grad in gradients[0].items():
        assert torch.allclose(grad, gradients[1][name], atol=1e-4 * float(grad.abs().max()) + 1e-6), name


def test_long_texts_are_cut_and_counted(tmp_path: Path) -> None:
    encoder = Encoder.load(write_small_encoder(tmp_path), context=6)
    (row,) = encoder.rows(["my card is lost please help you"])
    assert len(row) == 6 and row.ids[0] == 2 and row.ids[-1] == 3
    assert encoder.truncated == 1


def test_pairs_have_types(tmp_path: Path) -> None:
    encoder = Encoder.load(write_small_encoder(tmp_path))
    (row,) = encoder.rows([("my card", "猫 が")])
    assert row.types is not None and row.types.tolist() == [0, 0, 0, 0, 1, 1, 1]
    turned = encoder.vectors([("my card", "猫 が"), ("猫 が", "my card")])
    assert not torch.allclose(turned[0], turned[1], atol=1e-3)


def test_a_decoder_is_refused(tmp_path: Path) -> None:
    from small_models import write_small_model

    write_small_model(tmp_path)
    with pytest.raises(RecipeError, match="no text encoder"):
        Encoder.load(tmp_path)
