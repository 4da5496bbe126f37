"""Losses that never hold all logits: the gradients are computed chunk by chunk in the forward pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from kogata.nn.kernels import Kernels
from kogata.nn.products import EVEN, factor, frozen_factor, rounds

CHUNK_BYTES = 8 * 2**20
"""Logits held at once. Measured at 2,048 x 192 x 4,096 on two Zen 3 cores: 4 to 8 MiB (they stay in the
last-level cache) take 0.116 s of one core, 32 MiB 0.137 s, the three products alone 0.110 s."""
LEAST_ROWS = 192
"""Of logits held at once, whatever they take: of a large vocabulary the weights, read for every chunk, are
what costs (512 x 576 x 49,152, one core: 64 rows 1.76 s, 192 rows 1.36 s)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftTargets:
    """Tokens that have a share of what is to be predicted, beside the token that stands there."""

    tokens: Tensor
    """[..., K]; one may stand there more than once."""
    shares: Tensor
    """[..., K]: of the target; a position's add up to at most 1, and the token itself keeps the rest."""

    def part(self, rows: Any) -> SoftTargets:
        """Gives those of some positions, once they lie in a row [N, K]."""
        return SoftTargets(tokens=self.tokens[rows], shares=self.shares[rows])

    def flat(self) -> SoftTargets:
        """Lays the positions in a row."""
        return SoftTargets(tokens=self.tokens.flatten(0, -2), shares=self.shares.flatten(0, -2))

    def move(self, gradient: Tensor, targets: Tensor, weights: Tensor | None) -> None:
        """Turns gradients of logits toward `targets` [N, 1] into those toward these, in place."""
        shares = self.shares if weights is None else self.shares * weights[:, None]
        gradient.scatter_add_(1, targets, shares.sum(1, keepdim=True))
        gradient.scatter_add_(1, self.tokens, -shares)


def chunk_rows(rows: int, vocab_size: int, limit: int = CHUNK_BYTES) -> int:
    """Gives the rows of logits to hold at once: even chunks below the limit, or `LEAST_ROWS`."""
    most = max(LEAST_ROWS, limit // (4 * vocab_size))
    chunks = -(-rows // most)
    return max(1, -(-rows // chunks)) if rows else 1


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        weights: Tensor | None,
        scale: float,
        kernels: Kernels | None,
        losses: Tensor | None,
        cap: float | None,
        soft: SoftTargets | None,
    ) -> Tensor:
        need_hidden, need_weight = ctx.needs_input_grad[0], ctx.needs_input_grad[1]
        narrow, given = rounds(hidden), hidden.shape[0]
        if narrow and given % EVEN and losses is None and soft is None:
            more = -given % EVEN
            weights = hidden.new_ones(given) if weights is None else weights
            hidden, targets, weights = (
                pad(hidden, (0, 0, 0, more)),
                pad(targets, (0, more)),
                pad(weights, (0, more)),
            )
        rows, width = hidden.shape
        vocab = weight.shape[0]
        step = chunk_rows(rows, vocab)
        step = -(-step // EVEN) * EVEN if narrow else step
        held = hidden.new_empty(min(step, max(rows, 1)), vocab)
        grad_hidden = torch.empty_like(hidden) if need_hidden else None
        # Kept as [D, V]: each chunk then adds a product whose large operand is read in its own order.
        grad_weight = weight.new_zeros(width, vocab) if need_weight else None
        total = hidden.new_zeros((), dtype=torch.float64)
        # Logits come out of a product in float32; only the gradients' products are rounded to 16 bits.
        head = frozen_factor(weight) if narrow and grad_hidden is not None else weight
        for start in range(0, rows, step):
            part = hidden[start : start + step]
            chosen = targets[start : start + step, None]
            z = held[: part.shape[0]]
            torch.mm(part, weight.t(), out=z)
            bent = None if cap is None else z.div_(cap).tanh_().clone()
            if cap is not None:
                z.mul_(cap)
            share = None if weights is None else weights[start : start + step]
            wanted = grad_hidden is not None or grad_weight is not None
            if kernels is not None:
                nll = kernels.cross_entropy(z, targets[start : start + step], share)
            else:
                nll = _loss_and_gradient(z, chosen, share, part, weight, wanted, cap)
            if soft is not None and wanted:
                soft.part(slice(start, start + step)).move(z, chosen, share)
            if bent is not None and wanted:
                z.mul_(bent.square_().neg_().add_(1.0))  # tanh' = 1 - tanh²
            total += (nll if share is None else nll * share).sum(dtype=torch.float64)
            if losses is not None:
                losses[start : start + step] = nll
            if narrow:
                z = factor(z)
            if grad_hidden is not None:
                grad_hidden[start : start + step] = torch.mm(z, head)
            if grad_weight is not None:
                _add_product(grad_weight, part, z)
        for grad in (grad_hidden, grad_weight):
            if grad is not None and scale != 1.0:
                grad.mul_(scale)
        grad_hidden = None if grad_hidden is None else grad_hidden[:given]
        ctx.grads = grad_hidden, None if grad_weight is None else grad_weight.t()
        return (total * scale).to(hidden.dtype)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        (outer,) = outputs
        grad_hidden, grad_weight = ctx.grads
        ctx.grads = None, None
        if outer.device.type != "cpu" or float(outer) != 1.0:
            grad_hidden = None if grad_hidden is None else grad_hidden * outer
            grad_weight = None if grad_weight is None else grad_weight * outer
        return grad_hidden, grad_weight, None, None, None, None, None, None, None


def _add_product(total: Tensor, part: Tensor, z: Tensor) -> None:
    """Adds partᵀ · z."""
    if z.dtype == total.dtype:
        total.addmm_(part.t(), z)
    else:
        total.add_(torch.mm(part.to(z.dtype).t(), z))


def _loss_and_gradient(
    z: Tensor,
    chosen: Tensor,
    share: Tensor | None,
    hidden: Tensor,
    weight: Tensor,
    wanted: bool,
    cap: float | None,
) -> Tensor:
    """Turns logits z into weight · (softmax - onehot) in their own memory; gives -log p(chosen), [n]."""
    score = z.gather(1, chosen)
    torch.softmax(z, 1, out=z)
    p = z.gather(1, chosen)
    nll = -p.log()
    if len(p) and float(p.min()) < 1e-30:
        # Near underflow: log Σ exp = top score - log p(top) instead, and p(top) is at least 1/V.
        rows = (p[:, 0] < 1e-30).nonzero()[:, 0]
        high, top = z[rows].max(1)
        best = (hidden[rows] * weight[top]).sum(1)
        best = best if cap is None else cap * torch.tanh(best / cap)
        nll[rows, 0] = best - high.log() - score[rows, 0]
    if wanted:
        z.scatter_add_(1, chosen, torch.full_like(p, -1.0))
        if share is not None:
            z.mul_(share[:, None])
    return nll[:, 0]


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    weights: Tensor | None = None,
    *,
    scale: float = 1.0,
    kernels: Kernels | None = None,
    losses: Tensor | None = None,
    cap: float | None = None,
    soft: SoftTargets | None = None,
) -> Tensor:
    """Computes scale · Σ wᵢ · -log p(targetᵢ) for logits hidden · weightᵀ, without ever holding all logits.

    Gradients are made in the forward pass (a backward pass follows each forward pass in training), so
    only `CHUNK_BYTES` of logits exist at any time. Tokens of weight zero cost nothing.

    Args:
        hidden: [..., D].
        weight: the head, [V, D].
        targets: token ids [...].
        weights: how much each token counts [...]; None counts each once.
        scale: multiplies the sum: 1 / (tokens that count in the whole optimiser step).
        kernels: compiled, for float32 on a CPU; None uses plain torch.
        cap: bends the logits to lie between -cap and cap; None leaves them.
        soft: what the gradients are of in the targets' place: cross-entropy with these distributions. The
            number given back stays -log p(target).
        losses: is filled with -log p(targetᵢ) [...], contiguous; zero where a token's weight is zero.
    """
    flat, chosen = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1).contiguous()
    share = None if weights is None else weights.reshape(-1).to(hidden.dtype)
    seen = None if losses is None else losses.view(-1)
    soft = None if soft is None else soft.flat()
    if share is not None:
        keep = share.nonzero()[:, 0]
        if len(keep) < len(share):
            flat, chosen, share = flat.index_select(0, keep), chosen[keep], share[keep]
            part = None if seen is None else seen.new_empty(len(keep))
            kept = None if soft is None else soft.part(keep)
            facts = float(scale), kernels, part, cap, kept
            loss = _LinearCrossEntropy.apply(flat, weight, chosen, share, *facts)
            if seen is not None and part is not None:
                seen.zero_()
                seen[keep] = part
            return loss
    return _LinearCrossEntropy.apply(flat, weight, chosen, share, float(scale), kernels, seen, cap, soft)
