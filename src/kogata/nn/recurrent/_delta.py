"""The gated delta rule, chunk by chunk: S_t = a_t S_{t-1} (1 - b_t k_t k_tᵀ) + b_t v_t k_tᵀ, y_t = S_t q_t.

Inside a chunk all corrections follow from one triangular system; between chunks only the state is carried.
T tokens take T / chunk steps of matrix products, never a loop over tokens (arXiv 2412.06464, section 3.3;
the form with a triangular solve: arXiv 2406.06484, section 3).
"""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 64


def gated_delta(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Gives outputs [B, H, T, V] and the state after the last token [B, H, K, V].

    Args:
        q: queries [B, H, T, K], scaled.
        k: keys [B, H, T, K], of length one.
        v: values [B, H, T, V].
        log_decay: log of what the state keeps at each token [B, H, T], at most 0.
        beta: how much of the old value is replaced [B, H, T], 0 to 1.
        state: before the first token; None: zero.
    """
    tokens = q.shape[2]
    held: Tensor = q.new_zeros(*q.shape[:2], q.shape[3], v.shape[3]) if state is None else state
    if tokens == 1:
        return _one_token(q, k, v, log_decay, beta, held)
    size = min(CHUNK, tokens)
    short = -tokens % size
    if short:
        # Tokens of zeros change nothing: no decay, nothing written.
        q, k, v = (torch.nn.functional.pad(x, (0, 0, 0, short)) for x in (q, k, v))
        log_decay, beta = (torch.nn.functional.pad(x, (0, short)) for x in (log_decay, beta))
    chunks = q.shape[2] // size
    q, k, v = (x.unflatten(2, (chunks, size)) for x in (q, k, v))
    log_decay, beta = (x.unflatten(2, (chunks, size)) for x in (log_decay, beta))
    since_start = log_decay.cumsum(-1)
    kept = since_start.exp()[..., None]
    # between[i, j]: what is left at token i of what token j wrote. Only i >= j counts, and is at most 1.
    lower = torch.ones(size, size, dtype=torch.bool, device=q.device).tril()
    between = (since_start[..., :, None] - since_start[..., None, :]).masked_fill(~lower, -torch.inf).exp()
    weighted = beta[..., None] * k
    system = (weighted @ k.mT) * between
    both = torch.cat([beta[..., None] * v, weighted * kept], -1)
    both = torch.linalg.solve_triangular(system, both, upper=False, unitriangular=True)
    written, read = both.split([v.shape[-1], k.shape[-1]], -1)
    scores = (q @ k.mT) * between
    from_state = q * kept
    to_end = k * (since_start[..., -1:] - since_start).exp()[..., None]
    whole = kept[..., -1:, :]
    out = []
    # unbind, not slices: the backward pass of a slice is as large as what it was taken from.
    parts = (x.unbind(2) for x in (written, read, from_state, scores, whole, to_end))
    for value, known, asked, score, left, key in zip(*parts, strict=True):
        new = value - known @ held
        out.append(asked @ held + score @ new)
        held = left * held + key.mT @ new
    y = torch.stack(out, 2).flatten(2, 3)
    return y[:, :, :tokens], held


def _one_token(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, beta: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    state = state * log_decay.exp()[..., None]
    new = beta[..., None] * (v - k @ state)
    state = state + k.mT @ new
    return q @ state, state
