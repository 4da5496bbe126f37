"""The chunked loss equals the plain one, gradients included, with and without kernels."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from kogata.nn import losses
from kogata.nn.kernels import Kernels
from kogata.nn.losses import chunk_rows, linear_cross_entropy
from kogata.nn.products import rounded_products


@pytest.fixture(scope="module")
def kernels() -> Kernels:
    built = Kernels.build()
    if built is None:
        pytest.skip("no C compiler")
    return built


def problem(rows: int = 301, width: int = 16, vocab: int = 97) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    hidden = torch.randn(rows, width, requires_grad=True)
    weight = torch.randn(vocab, width, requires_grad=True)
    return hidden, weight, torch.randint(0, vocab, (rows,)), torch.rand(rows).round(decimals=1)


def plain(hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None):
    loss = F.cross_entropy(hidden @ weight.T, targets, reduction="none")
    return (loss if weights is None else loss * weights).sum()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("fused", [False, True])
def test_equals_cross_entropy(
    weighted: bool, fused: bool, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setattr(losses, "chunk_rows", lambda rows, vocab: 64)
    built = request.getfixturevalue("kernels") if fused else None
    hidden, weight, targets, weights = problem()
    given = weights if weighted else None
    loss = linear_cross_entropy(hidden, weight, targets, given, scale=0.25, kernels=built)
    (2 * loss).backward()
    ours = hidden.grad, weight.grad
    hidden.grad = weight.grad = None
    expected = 0.25 * plain(hidden, weight, targets, given)
    (2 * expected).backward()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours, (hidden.grad, weight.grad), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fused", [False, True])
def test_impossible_tokens_have_a_finite_loss(fused: bool, request: pytest.FixtureRequest) -> None:
    built = request.getfixturevalue("kernels") if fused else None
    hidden = torch.tensor([[1.0], [1.0]])
    weight = torch.tensor([[500.0], [0.0], [499.0]])
    targets = torch.tensor([1, 0])
    loss = linear_cross_entropy(hidden, weight, targets, kernels=built)
    torch.testing.assert_close(loss, F.cross_entropy(hidden @ weight.T, targets, reduction="sum"))


@pytest.mark.parametrize("fused", [False, True])
def test_not_a_number_is_not_hidden(fused: bool, request: pytest.FixtureRequest) -> None:
    built = request.getfixturevalue("kernels") if fused else None
    hidden, weight, targets, _ = problem()
    with torch.no_grad():
        hidden[3, 2] = float("nan")
    assert not torch.isfinite(linear_cross_entropy(hidden, weight, targets, kernels=built))


def test_logits_are_never_all_held() -> None:
    for rows, vocab in ((2048, 4096), (100_000, 50_000), (1, 10), (0, 10)):
        step = chunk_rows(rows, vocab)
        assert step * vocab * 4 <= max(losses.CHUNK_BYTES, losses.LEAST_ROWS * vocab * 4)


def test_a_batch_without_counting_tokens_has_no_gradient() -> None:
    hidden, weight, targets, weights = problem()
    loss = linear_cross_entropy(hidden, weight, targets, torch.zeros_like(weights))
    loss.backward()
    assert float(loss.detach()) == 0.0 and weight.grad is not None and not weight.grad.any()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("rows", [3, 64, 130])
def test_rounded_products_give_nearly_the_same_at_any_number_of_rows(rows: int, weighted: bool) -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(rows, 16, requires_grad=True), torch.randn(50, 16, requires_grad=True)
    targets = torch.randint(0, 50, (rows,))
    counts = torch.rand(rows) + 0.1 if weighted else None
    found = []
    for narrow in (False, True):
        with rounded_products(narrow):
            loss = linear_cross_entropy(hidden, weight, targets, counts)
            found.append((float(loss.detach()), *torch.autograd.grad(loss, (hidden, weight))))
    (plain, *wide), (rounded, *grads) = found
    assert rounded == pytest.approx(plain, rel=1e-5)
    for one, other in zip(wide, grads, strict=True):
        assert one.shape == other.shape and (one - other).norm() < 0.01 * one.norm()
