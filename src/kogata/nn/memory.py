"""Compressive memory: what lies further back, added up in one matrix per head and read like attention.

For feature maps f = elu + 1: reading is f(q) M / f(q) z, writing M += f(k)ᵀ v and z += f(k), one segment at a
time (Infini-attention, arXiv 2404.07143, section 2.1). All segments of a sequence are one product and one
running sum: there is no loop over them.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def features(x: Tensor) -> Tensor:
    """Makes queries or keys positive."""
    return F.elu(x) + 1.0


def read(q: Tensor, memory: Tensor) -> Tensor:
    """Reads for queries [..., T, K] from a memory [..., K, V + 1]; an empty one gives zeros.

    The last column of a memory is z: the sum of the keys themselves.
    """
    found = features(q) @ memory
    return found[..., :-1] / (found[..., -1:] + 1e-6)


def written(k: Tensor, v: Tensor) -> Tensor:
    """Gives what keys [..., T, K] and values [..., T, V] add to a memory, [..., K, V + 1]."""
    return features(k).mT @ F.pad(v, (0, 1), value=1.0)


def read_segments(q: Tensor, k: Tensor, v: Tensor, segment: int) -> Tensor:
    """Reads for each query from the memory of all segments before its own, [B, H, T, V]."""
    tokens = q.shape[2]
    count = -(-tokens // segment)
    short = count * segment - tokens
    whole = (count - 1) * segment
    if not whole:
        return v.new_zeros(*q.shape[:3], v.shape[3])
    parts = (x[:, :, :whole].unflatten(2, (count - 1, segment)) for x in (k, v))
    memory = written(*parts).cumsum(2)
    later = F.pad(q[:, :, segment:], (0, 0, 0, short)).unflatten(2, (count - 1, segment))
    found = read(later, memory).flatten(2, 3)[:, :, : tokens - segment]
    return F.pad(found, (0, 0, segment, 0))
