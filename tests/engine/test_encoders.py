"""Encoders: batches of like length, pooling, layers run in parts, and rows cut to the context."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_encoders import write_small_encoder

from kogata.core.errors import RecipeError
from kogata.engine.encoders import Encoder, Stack, buckets, pad, pool

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
def test_layers_run_in_parts_give_the_same(tmp_path: Path, kind: str) -> None:
    encoder = Encoder.load(write_small_encoder(tmp_path, kind))
    stack, batch = Stack(encoder), pad(encoder.rows(TEXTS), encoder.pad_id)
    with torch.no_grad():
        hidden = stack.through(stack.embed(batch), batch.mask, 0, 1)
        hidden = stack.through(hidden, batch.mask, 1, 2)
        whole = encoder.hidden(batch)
    assert torch.allclose(pool(hidden, batch.mask, 1e-6), pool(whole, batch.mask, 1e-6), atol=1e-5)


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
