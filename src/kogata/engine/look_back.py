"""Heads of the first layer that begin by looking a fixed number of tokens back, and by saying what follows.

The tokens just before are what a model that starts as a bigram model lacks first, and finding out where they
lie takes its attention some hundred steps. A query and a key that are the same for every token, turned by
rotary positions, prefer one distance. What is the same for every token is found by least squares: the
direction along which all embeddings of the corpus, by how often they occur, are nearest to one.

What such a head then adds is one Newton step on the loss of the bigram model, from counts of the whole text:
with curvature factored into one of hidden vectors and one of the tokens looked at (as in Martens and Grosse
2015, arXiv 1503.05671), it is a product of small matrices. How far to go is tried on some windows.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kogata.engine.initialise import MOST_ROWS, MOST_TOKENS, ROWS_AT_ONCE
from kogata.nn.decoder import Decoder
from kogata.nn.losses import linear_cross_entropy
from kogata.nn.rope import inverse_frequencies
from kogata.nn.spec import ModelSpec

PAIRS = 4
"""The fastest turning pairs of a head, in which query and key lie: few enough to tell neighbours apart, and
enough that no other distance looks alike."""
KEPT = 0.25
"""Of the random start of these rows, so that they can learn to look at what is there too."""
STEPS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of the Newton step that are tried."""
WINDOWS = 32
"""Of the training text, that they are tried on."""


def can_look(spec: ModelSpec) -> bool:
    """Says whether the first layer has heads that turn as a whole."""
    return spec.mixer(0) in ("full", "window") and spec.has_rope(0) and spec.rotary_dim is None


@torch.no_grad()
def look_back(decoder: Decoder, ids: np.ndarray, heads: int) -> int:
    """Lets the first heads look one, two … tokens back; gives how many do.

    Args:
        decoder: untied, its embedding and head as training starts from them, its blocks as the identity.
        ids: training tokens.
        heads: at most so many heads, each with keys of its own.
    """
    spec, mixer = decoder.spec, decoder.layers()[0].mixer
    if not can_look(spec):
        return 0
    seen = torch.from_numpy(np.asarray(ids[:MOST_TOKENS], dtype=np.int64))
    x, counts = entering(decoder, seen)
    _turn(decoder, constant(x, counts), count := min(heads, spec.kv_heads))
    if spec.vocab_size > MOST_ROWS or spec.embed_width is not None or spec.sandwich_norms:
        return count
    moves = newton_steps(decoder, seen, x, count)
    size, group = spec.head_dim, spec.heads // spec.kv_heads
    columns = [slice(back * group * size, (back * group + 1) * size) for back in range(count)]
    first_value = (spec.heads + spec.kv_heads) * size
    tops: list[Tensor] = []
    for back, (move, where) in enumerate(zip(moves, columns, strict=True)):
        left, strength, right = torch.linalg.svd(move)
        root = strength[:size].sqrt()
        row = first_value + back * size
        mixer.qkv.weight[row : row + len(root)] = root[:, None] * right[: len(root)]
        tops.append(left[:, : len(root)] * root)
        mixer.out.weight[:, where.start : where.start + len(root)] = tops[-1]
    best = min(STEPS, key=lambda share: _tried(decoder, seen, columns, tops, share))
    _tried(decoder, seen, columns, tops, best)
    return count


def _turn(decoder: Decoder, same: Tensor, count: int) -> None:
    """Sets queries and keys of the first heads to what is the same for every token, turned."""
    spec, mixer = decoder.spec, decoder.layers()[0].mixer
    theta = spec.local_rope_theta if mixer.local and spec.local_rope_theta else spec.rope_theta
    turns, _ = inverse_frequencies(spec.head_dim, theta, spec.rope_scaling, spec.context)
    half, pairs = spec.head_dim // 2, min(PAIRS, spec.head_dim // 2)
    size = (spec.head_dim / pairs) ** 0.5
    group, weight = spec.heads // spec.kv_heads, mixer.qkv.weight
    for back in range(1, count + 1):
        query, key = same.new_zeros(spec.head_dim), same.new_zeros(spec.head_dim)
        query[:pairs] = (turns[:pairs] * back).cos() * size
        query[half : half + pairs] = -(turns[:pairs] * back).sin() * size
        key[:pairs] = size
        first = (back - 1) * group
        for head, row in ((first, query), (spec.heads + back - 1, key)):
            rows = weight[head * spec.head_dim : (head + 1) * spec.head_dim]
            rows.mul_(KEPT).add_(torch.outer(row, same))


def newton_steps(decoder: Decoder, ids: Tensor, x: Tensor, count: int) -> list[Tensor]:
    """Gives for each distance what is to be added to the hidden vector, a matrix [D, D] on the token there.

    Args:
        decoder: a bigram model.
        ids: training tokens [N].
        x: what enters the first layer, by token [V, D].
        count: distances, from one on.
    """
    head = decoder.head_weight
    vocab, width = head.shape
    share = torch.bincount(ids, minlength=vocab).float() / len(ids)
    # Tokens at a distance from the one that is seen last: gradients need what they predict, and what was.
    tables = [_following(ids, vocab, back) for back in range(1, count + 2)]
    seen = [tables[back].T @ x for back in range(count)]
    wanted = [tables[back + 1].T @ x for back in range(count)]
    del tables
    expected = [torch.zeros(vocab, width) for _ in range(count)]
    curve, mean = torch.zeros(width, width), torch.zeros(vocab)
    for start in range(0, vocab, ROWS_AT_ONCE):
        here = slice(start, start + ROWS_AT_ONCE)
        p = torch.softmax(x[here] @ head.T, 1)
        for back in range(count):
            expected[back].addmm_(p.T, seen[back][here])
        mean += share[here] @ p
        middle = p @ head
        curve -= middle.T @ (share[here, None] * middle)
    curve += head.T @ (mean[:, None] * head)
    square = x.T @ (share[:, None] * x)
    curve, square = (m + 0.01 * m.diagonal().mean() * torch.eye(width) for m in (curve, square))
    moves = []
    for back in range(count):
        gradient = head.T @ (wanted[back] - expected[back])
        moves.append(torch.linalg.solve(square, torch.linalg.solve(curve, gradient).T).T)
    return moves


def _following(ids: Tensor, vocab: int, back: int) -> Tensor:
    """Gives how often a token is followed by another at a distance, as a share of all [V, V]."""
    pairs = ids[:-back] * vocab + ids[back:]
    counts = torch.zeros(vocab * vocab)
    counts.index_add_(0, pairs, torch.ones(len(pairs)))
    return counts.view(vocab, vocab).div_(len(pairs))


def _tried(decoder: Decoder, ids: Tensor, columns: list[slice], tops: list[Tensor], share: float) -> float:
    """Sets what the heads add to a share of the step; gives the loss on some windows."""
    out = decoder.layers()[0].mixer.out.weight
    for where, top in zip(columns, tops, strict=True):
        out[:, where.start : where.start + top.shape[1]] = share * top
    length = min(decoder.spec.context, 256, len(ids) - 1)
    starts = torch.linspace(0, len(ids) - length - 1, WINDOWS).long()
    rows = torch.stack([ids[start : start + length + 1] for start in starts.tolist()])
    hidden, targets = decoder.hidden(rows[:, :-1]), rows[:, 1:]
    scale = 1.0 / targets.numel()
    return float(linear_cross_entropy(*decoder.for_head(hidden), targets, scale=scale, cap=decoder.cap))


def entering(decoder: Decoder, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Gives what enters the first layer by token [V, D], and how often each occurs [V]."""
    x = decoder.embed(torch.arange(decoder.spec.vocab_size))
    counts = torch.bincount(ids, minlength=decoder.spec.vocab_size).float()
    return x * (x.square().mean(1, keepdim=True) + decoder.spec.norm_eps).rsqrt(), counts


def constant(x: Tensor, counts: Tensor) -> Tensor:
    """Finds the direction [D] along which vectors by token [V, D] are nearest to one, by their counts."""
    share = (counts / counts.sum())[:, None]
    square = x.T @ (share * x)
    ridge = 1e-4 * square.diagonal().mean() * torch.eye(x.shape[1])
    return torch.linalg.solve(square + ridge, (share * x).sum(0))
