"""Starts embedding and head from the corpus's own statistics: the best bigram model of their rank.

With blocks that begin as the identity, the decoder then is that bigram model before its first step. The
counts come from all tokens at once, so this buys in seconds what training buys in minutes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from kogata.nn.decoder import Decoder

MOST_TOKENS = 24_000_000
"""Tokens counted at most; more change the counts of what matters little."""
MOST_ROWS = 8192
"""Token ids given statistics at most, the most frequent: memory and time grow with the square."""
PRIOR = 20.0
"""Pseudo-counts of the unigram in each row."""


def count_pairs(shards: Sequence[np.ndarray], vocab_size: int) -> Tensor:
    """Counts how often each token follows each: [V, V], float32 (exact)."""
    counts = torch.zeros(vocab_size * vocab_size)
    total = sum(len(shard) for shard in shards)
    room = min(1.0, MOST_TOKENS / max(1, total))
    block = 1 << 20
    for shard in shards:
        for start in range(0, len(shard) - 1, block):
            stop = start + 1 + int(room * min(block, len(shard) - 1 - start))
            ids = torch.from_numpy(np.asarray(shard[start:stop], dtype=np.int64))
            counts.index_add_(0, ids[:-1] * vocab_size + ids[1:], torch.ones(len(ids) - 1))
    return counts.view(vocab_size, vocab_size)


@torch.no_grad()
def initialise_from_corpus(
    decoder: Decoder,
    shards: Sequence[np.ndarray],
    *,
    seed: int,
    rounds: int = 12,
    rate: float = 0.05,
) -> float:
    """Sets embedding and head so that the decoder starts as a bigram model; gives its loss in nats per token.

    Args:
        decoder: untied, its blocks starting as the identity.
        shards: the training tokens.
        seed: of the random directions.
        rounds: steps of refinement on the exact loss over all pairs.
        rate: the first of them, relative to each weight's own scale.
    """
    assert decoder.head is not None, "a tied embedding cannot hold a bigram model"
    vocab, width = decoder.spec.vocab_size, decoder.spec.width
    generator = torch.Generator().manual_seed(seed)
    counts = count_pairs(shards, vocab)
    embed, head = _factors(counts, width, generator)
    loss = _refine(counts, embed, head, rounds, rate)
    embed.mul_((embed.square().mean(1, keepdim=True) + 1e-6).rsqrt())
    decoder.embed.weight.copy_(embed)
    decoder.head.weight.copy_(head)
    return loss


def _factors(counts: Tensor, width: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Factors log p(next|this) / p(next), weighted by how often each occurs: embedding and head [V, D]."""
    vocab = counts.shape[0]
    rank = min(width - 1, vocab)
    rows = counts.sum(1, keepdim=True)
    unigram = counts.sum(0) + 0.1
    unigram /= unigram.sum()
    left = (rows + 1).sqrt()
    left /= left.mean()
    right = unigram.sqrt()
    right /= right.mean()
    m = counts + PRIOR * unigram
    m.div_((rows + PRIOR) * unigram).log_().mul_(left).mul_(right)
    # Randomised subspace iteration (Halko et al. 2011): the leading singular vectors in a few products.
    q = torch.linalg.qr(m @ torch.randn(vocab, min(vocab, rank + 16), generator=generator))[0]
    for _ in range(2):
        q = torch.linalg.qr(m @ torch.linalg.qr(m.T @ q)[0])[0]
    u, s, vh = torch.linalg.svd(q.T @ m, full_matrices=False)
    root = s[:rank].sqrt()
    embed = (q @ u[:, :rank]) * root / left
    head = vh[:rank].T * root / right[:, None]
    # One more direction, the same for every token, carries the unigram.
    size = embed.square().sum(1).mean().sqrt().clamp(min=1e-6)
    log_unigram = unigram.log()
    embed = torch.cat([embed, size.expand(vocab, 1), embed.new_zeros(vocab, width - rank - 1)], 1)
    head = torch.cat(
        [head, ((log_unigram - log_unigram.mean()) / size)[:, None], head.new_zeros(vocab, width - rank - 1)],
        1,
    )
    turn = torch.linalg.qr(torch.randn(width, width, generator=generator))[0]
    embed, head = embed @ turn, head @ turn
    scale = embed.square().mean().sqrt()
    return embed / scale, head * scale


def _refine(counts: Tensor, embed: Tensor, head: Tensor, rounds: int, rate: float) -> float:
    """Improves both in place by Adam on the bigram cross-entropy over all pairs; gives the last loss."""
    total = float(counts.sum())
    rows = counts.sum(1, keepdim=True) / total
    means = [torch.zeros_like(embed), torch.zeros_like(head)]
    squares = [torch.zeros_like(embed), torch.zeros_like(head)]
    loss, step = 0.0, 512
    for i in range(rounds):
        inverse = (embed.square().mean(1, keepdim=True) + 1e-6).rsqrt()
        x = embed * inverse
        gx, gh, value = torch.empty_like(embed), torch.zeros_like(head.T), 0.0
        for start in range(0, len(counts), step):
            here = slice(start, start + step)
            z = x[here] @ head.T
            p = counts[here] / total
            value -= float((p * z).sum())
            value += float((rows[here, 0] * torch.logsumexp(z, 1)).sum())
            g = torch.softmax(z, 1).mul_(rows[here]).sub_(p)
            torch.mm(g, head, out=gx[here])
            gh.addmm_(x[here].T, g)
        loss = value
        ge = inverse * (gx - x * (gx * x).mean(1, keepdim=True))
        pace = rate * (1 - i / rounds)
        for weight, grad, mean, square in zip((embed, head), (ge, gh.T), means, squares, strict=True):
            mean.lerp_(grad, 0.2)
            square.lerp_(grad.square(), 0.05)
            root = (square / (1 - 0.95 ** (i + 1))).sqrt_().add_(1e-12)
            weight.addcdiv_(mean / (1 - 0.8 ** (i + 1)), root, value=-pace)
    return loss
