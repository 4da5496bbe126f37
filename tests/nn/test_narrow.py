"""Attention by batched products of rounded factors against torch's in float32: outputs and gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kogata.nn.attention import _narrow
from kogata.nn.kernels import Kernels

KERNELS = Kernels.build()
pytestmark = pytest.mark.skipif(KERNELS is None, reason="no C compiler")

SHAPES = {
    "whole": (2, 48, (4, 4, 16), 0),
    "whole, odd": (1, 37, (6, 2, 8), 0),
    "blocks": (2, 600, (2, 2, 16), 0),
    "grouped, blocks": (1, 700, (6, 2, 8), 0),
    "window": (2, 120, (4, 2, 16), 24),
    "window, blocks": (1, 800, (2, 1, 16), 70),
    "window of one": (1, 530, (2, 2, 8), 1),
    "one token": (3, 1, (4, 2, 8), 0),
}


def laid(x: Tensor, keys: int) -> Tensor:
    """Lays [rows, tokens, heads, width] out by head; queries in groups."""
    rows, tokens, heads, width = x.shape
    return x.detach().transpose(1, 2).reshape(rows * keys, heads // keys, tokens, width).bfloat16()


def back(x: Tensor, rows: int) -> Tensor:
    """Lays out as it was."""
    tokens, width = x.shape[-2:]
    return x.float().reshape(rows, -1, tokens, width).transpose(1, 2)


def attended(q: Tensor, k: Tensor, v: Tensor, shape: _narrow.Shape) -> tuple[Tensor, list[Tensor]]:
    assert KERNELS is not None
    keys = shape.heads[1]
    return _narrow.attend(laid(q, keys), laid(k, keys)[:, 0], laid(v, keys)[:, 0], shape, KERNELS)


def reference(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    rows, tokens, heads, _ = q.shape
    group = heads // k.shape[2]
    at = torch.arange(tokens)
    seen = at[:, None] >= at[None]
    if window:
        seen &= at[:, None] - at[None] < window
    k, v = k.repeat_interleave(group, 2), v.repeat_interleave(group, 2)
    y = F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v)), attn_mask=seen)
    return y.transpose(1, 2).reshape(rows * tokens, -1)


@pytest.mark.parametrize("name", SHAPES)
def test_outputs_and_gradients_are_those_of_torch_but_for_rounding(name: str) -> None:
    rows, tokens, heads, window = SHAPES[name]
    queries, keys, width = heads
    torch.manual_seed(0)
    q, k, v = (torch.randn(rows, tokens, n, width, requires_grad=True) for n in (queries, keys, keys))
    g = torch.randn(rows * tokens, queries * width)
    wanted = reference(q, k, v, window)
    wanted.backward(g)
    shape = _narrow.Shape(rows=rows, tokens=tokens, heads=heads, window=window)
    assert KERNELS is not None
    with torch.no_grad():
        y, kept = attended(q, k, v, shape)
        grads = [back(x, rows) for x in _narrow.gradients(g.bfloat16(), kept, shape, KERNELS)]
    assert shape.kept == (len(kept) == 4)
    pairs = [(y, wanted), *zip(grads, (q.grad, k.grad, v.grad), strict=True)]
    for found, right in pairs:
        assert right is not None
        right = right.detach().reshape(found.shape)
        assert (found.float() - right).norm() <= 0.012 * right.norm() + 1e-4


def test_nothing_leaks_from_the_future() -> None:
    shape = _narrow.Shape(rows=1, tokens=600, heads=(2, 2, 16))
    torch.manual_seed(1)
    q, k, v = (torch.randn(1, 600, 2, 16) for _ in range(3))
    before, _ = attended(q, k, v, shape)
    k[:, 400:], v[:, 400:] = 9.0, -9.0
    after, _ = attended(q, k, v, shape)
    assert torch.equal(before[:400], after[:400]) and not torch.equal(before[400:], after[400:])


def test_scores_of_any_size_give_weights_that_add_up_to_one() -> None:
    assert KERNELS is not None
    scores = (torch.randn(3, 4, 9) * 300).bfloat16()
    KERNELS.band_softmax(scores, 4, 5, 0, 1.0)
    for row in range(4):
        assert torch.allclose(scores[:, row].float().sum(1), torch.ones(3), atol=0.02)
        assert not scores[:, row, 6 + row :].any()


def test_keys_before_the_first_query_are_seen_by_all() -> None:
    assert KERNELS is not None
    torch.manual_seed(3)
    q, k, v = (torch.randn(1, 20, n, 8) for n in (4, 2, 2))
    whole, _ = attended(q, k, v, _narrow.Shape(rows=1, tokens=20, heads=(4, 2, 8)))
    behind, _ = attended(q[:, 8:], k, v, _narrow.Shape(rows=1, tokens=12, heads=(4, 2, 8), before=8))
    assert torch.allclose(behind.float(), whole[8:].float(), atol=0.02)
