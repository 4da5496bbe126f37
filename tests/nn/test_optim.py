"""Muon and AdamW against plain references, matrix by matrix."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from kogata.nn.optim import POLAR, AdamW, Group, Muon, Optimiser, matrices_of, orthogonalise


def reference_polar(matrix: torch.Tensor, iterations: int) -> torch.Tensor:
    turned = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if turned else matrix
    x = x / (x.norm() * 1.02 + 1e-7)
    for a, b, c in [*POLAR[: iterations - 1], POLAR[-1]]:
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if turned else x


def parameters() -> list[tuple[str, nn.Parameter, list[int]]]:
    torch.manual_seed(1)
    shapes = [
        ("qkv", (24, 8), [8, 8, 8]),
        ("out", (8, 8), [8]),
        ("up", (32, 8), [16, 16]),
        ("down", (8, 16), [8]),
    ]
    return [(name, nn.Parameter(torch.randn(*shape)), rows) for name, shape, rows in shapes]


def test_muon_equals_a_reference_per_matrix() -> None:
    named = parameters()
    muon = Muon(
        matrices=[m for n, p, rows in named for m in matrices_of(n, p, rows)], lr=0.03, weight_decay=0.1
    )
    expected = {name: p.detach().clone() for name, p, _ in named}
    averages = {name: torch.zeros_like(p) for name, p, _ in named}
    for step in range(3):
        progress = step / 10
        momentum = 0.95 - 0.1 * max(0.0, 1 - progress / 0.15)
        for name, p, rows in named:
            p.grad = torch.randn_like(p)
            averages[name] = momentum * averages[name] + (1 - momentum) * p.grad
            look = momentum * averages[name] + (1 - momentum) * p.grad
            start = 0
            for size in rows:
                here = slice(start, start + size)
                move = reference_polar(look[here], 4) * max(1.0, size / p.shape[1]) ** 0.5
                expected[name][here] = expected[name][here] * (1 - 0.015 * 0.1) - 0.015 * move
                start += size
        muon.step(0.5, progress)
    for name, p, _ in named:
        torch.testing.assert_close(p.detach(), expected[name], rtol=1e-4, atol=1e-5)


def test_normuon_equals_a_reference_per_matrix() -> None:
    named = parameters()
    normuon = Muon(matrices=[m for n, p, rows in named for m in matrices_of(n, p, rows)], lr=0.03, rows=0.9)
    expected = {name: p.detach().clone() for name, p, _ in named}
    averages = {name: torch.zeros_like(p) for name, p, _ in named}
    squares = {name: torch.zeros(p.shape[0], 1) for name, p, _ in named}
    for step in range(3):
        momentum = 0.95 - 0.1 * max(0.0, 1 - step / 10 / 0.15)
        for name, p, rows in named:
            p.grad = torch.randn_like(p)
            averages[name] = momentum * averages[name] + (1 - momentum) * p.grad
            look = momentum * averages[name] + (1 - momentum) * p.grad
            start = 0
            for size in rows:
                here = slice(start, start + size)
                move = reference_polar(look[here], 4)
                squares[name][here] = 0.9 * squares[name][here] + 0.1 * (move**2).mean(1, keepdim=True)
                even = move / squares[name][here].sqrt()
                move = even * move.norm() / even.norm() * max(1.0, size / p.shape[1]) ** 0.5
                expected[name][here] = expected[name][here] - 0.03 * move
                start += size
        normuon.step(1.0, step / 10)
    for name, p, _ in named:
        torch.testing.assert_close(p.detach(), expected[name], rtol=1e-4, atol=1e-5)


def test_orthogonalised_matrices_have_singular_values_near_one() -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalise(torch.randn(3, 16, 40), 5))
    assert values.min() > 0.7 and values.max() < 1.3
    assert values.dtype == torch.float32


def test_adamw_equals_torch() -> None:
    torch.manual_seed(0)
    ours, theirs = [nn.Parameter(torch.randn(5, 3))], [nn.Parameter(torch.zeros(5, 3))]
    theirs[0].data.copy_(ours[0].data)
    mine = AdamW(groups=[Group(named=[("w", ours[0])], lr=0.01, weight_decay=0.1)], betas=(0.9, 0.99))
    peer = torch.optim.AdamW(theirs, lr=0.01, betas=(0.9, 0.99), eps=1e-10, weight_decay=0.1)
    for _ in range(4):
        ours[0].grad = torch.randn(5, 3)
        theirs[0].grad = ours[0].grad.clone()
        mine.step(1.0, 0.0)
        peer.step()
    torch.testing.assert_close(ours, theirs)


def test_a_seldom_group_counts_its_own_steps() -> None:
    torch.manual_seed(0)
    usual, seldom = nn.Parameter(torch.randn(5, 3)), nn.Parameter(torch.randn(4))
    theirs = [nn.Parameter(usual.detach().clone()), nn.Parameter(seldom.detach().clone())]
    groups = [Group(named=[("u", usual)], lr=0.01), Group(named=[("s", seldom)], lr=0.02, every=3)]
    mine = Optimiser(parts={"adamw": AdamW(groups=groups)})
    peers = [
        torch.optim.AdamW([p], lr=lr, betas=(0.9, 0.99), eps=1e-10, weight_decay=0.0)
        for p, lr in zip(theirs, (0.01, 0.02), strict=True)
    ]
    for step in range(7):
        due = step % 3 == 0
        assert mine.begin() == ([usual, seldom] if due else [usual]) and seldom.requires_grad == due
        for p, q, peer in list(zip((usual, seldom), theirs, peers, strict=True))[: 2 if due else 1]:
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
            peer.step()
        mine.step(1.0, 0.0)
        mine.clear()
    torch.testing.assert_close([usual, seldom], theirs)
    mine.begin()
    assert not seldom.requires_grad
    mine.end()
    assert seldom.requires_grad


@pytest.mark.parametrize("kind", ["muon", "normuon", "adamw"])
def test_state_goes_on_where_it_was(kind: str) -> None:
    def build() -> tuple[list[nn.Parameter], Optimiser]:
        named = parameters()
        matrices = [m for n, p, rows in named for m in matrices_of(n, p, rows)]
        part = (
            Muon(matrices=matrices, rows=0.9 if kind == "normuon" else 0.0)
            if kind != "adamw"
            else AdamW(groups=[Group(named=[(n, p) for n, p, _ in named], lr=0.01)])
        )
        return [p for _, p, _ in named], Optimiser(parts={kind: part})

    def step(weights: list[nn.Parameter], optimiser: Optimiser, number: int) -> None:
        torch.manual_seed(number)
        for p in weights:
            p.grad = torch.randn_like(p)
        optimiser.step(1.0, number / 4)

    whole, optimiser = build()
    for number in range(4):
        step(whole, optimiser, number)
    first, before = build()
    for number in range(2):
        step(first, before, number)
    second, after = build()
    after.load({name: tensor.clone() for name, tensor in before.state().items()})
    with torch.no_grad():
        for p, q in zip(second, first, strict=True):
            p.copy_(q)
    for number in range(2, 4):
        step(second, after, number)
    assert all(torch.equal(p, q) for p, q in zip(whole, second, strict=True))


def test_parameters_are_listed_once() -> None:
    named = parameters()
    muon = Muon(matrices=[m for n, p, rows in named for m in matrices_of(n, p, rows)])
    assert len(Optimiser(parts={"muon": muon}).parameters()) == len(named)
