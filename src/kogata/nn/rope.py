"""Rotary positions: tables of cosines and sines made once, and one fused turn of all heads."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn


def inverse_frequencies(
    head_dim: int, theta: float, scaling: dict[str, Any] | None, context: int
) -> tuple[Tensor, float]:
    """Gives the angle per position of each pair of a head, and the factor on cosines and sines (yarn's).

    Args:
        head_dim: size of one head.
        theta: base of the frequencies.
        scaling: None, or a dict with `rope_type` `linear`, `llama3` or `yarn` as transformers writes it.
        context: the model's context, where the scaling does not name its original one.
    """
    plain = theta ** -(torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    if scaling is None:
        return plain, 1.0
    factor = float(scaling["factor"])
    if scaling["rope_type"] == "linear":
        return plain / factor, 1.0
    original = float(scaling.get("original_max_position_embeddings") or context)
    if scaling["rope_type"] == "llama3":
        low, high = float(scaling["low_freq_factor"]), float(scaling["high_freq_factor"])
        turns = original * plain / (2 * math.pi)
        keep = ((turns - low) / (high - low)).clamp(0, 1)
        return plain * (keep + (1 - keep) / factor), 1.0
    return _yarn(plain, head_dim, theta, scaling, factor, original)


def _yarn(
    plain: Tensor, head_dim: int, theta: float, scaling: dict[str, Any], factor: float, original: float
) -> tuple[Tensor, float]:
    def pair_turning(turns: float) -> float:
        return head_dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(theta))

    first = pair_turning(float(scaling.get("beta_fast") or 32))
    last = pair_turning(float(scaling.get("beta_slow") or 1))
    if scaling.get("truncate", True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, head_dim - 1)
    pairs = torch.arange(head_dim // 2, dtype=torch.float32)
    stretch = ((pairs - first) / max(last - first, 0.001)).clamp(0, 1)
    attention = scaling.get("attention_factor")
    if attention is None:
        mscale, mscale_all = scaling.get("mscale"), scaling.get("mscale_all_dim")
        if mscale and mscale_all:
            attention = _yarn_scale(factor, mscale) / _yarn_scale(factor, mscale_all)
        else:
            attention = _yarn_scale(factor, 1.0)
    return plain * (1 - stretch) + plain / factor * stretch, float(attention)


def _yarn_scale(factor: float, mscale: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


class Rope(nn.Module):
    """Holds the tables for positions 0 to `length` and lengthens them when asked for more."""

    cos: Tensor
    sin: Tensor

    def __init__(
        self,
        head_dim: int,
        theta: float,
        scaling: dict[str, Any] | None,
        context: int,
        local_theta: float | None = None,
    ) -> None:
        super().__init__()
        self.head_dim, self.theta, self.scaling, self.context = head_dim, theta, scaling, context
        self.local_theta = local_theta
        self.register_buffer("cos", torch.empty(0, 1, head_dim), persistent=False)
        self.register_buffer("sin", torch.empty(0, 1, head_dim), persistent=False)
        self.lengthen(min(context, 4096))

    def lengthen(self, length: int) -> None:
        """Makes the tables reach at least `length` positions."""
        if length <= self.cos.shape[0]:
            return
        with torch.inference_mode(False):  # made while scoring, they must still serve training
            tables = [self._table(length, self.theta, self.scaling)]
            if self.local_theta is not None:
                # The base for windows stands behind; its positions are never scaled.
                tables.append(self._table(length, self.local_theta, None))
            self.cos = torch.cat([cos for cos, _ in tables], -1)[:, None].to(self.cos.device)
            self.sin = torch.cat([sin for _, sin in tables], -1)[:, None].to(self.sin.device)

    def _table(self, length: int, theta: float, scaling: dict[str, Any] | None) -> tuple[Tensor, Tensor]:
        frequencies, factor = inverse_frequencies(self.head_dim, theta, scaling, self.context)
        angles = torch.arange(length, dtype=torch.float32)[:, None] * frequencies
        cos, sin = angles.cos() * factor, angles.sin() * factor
        # The sine carries the sign of the half-turn, so that a turn is x*cos + roll(x)*sin: two passes.
        return torch.cat([cos, cos], -1), torch.cat([-sin, sin], -1)

    def forward(self, start: int, tokens: int, positions: Tensor | None) -> tuple[Tensor, Tensor]:
        """Gives cosines and sines, [T, 1, size], or [B, T, 1, size] for `positions` [B, T]."""
        if positions is None:
            self.lengthen(start + tokens)
            return self.cos[start : start + tokens], self.sin[start : start + tokens]
        self.lengthen(int(positions.max()) + 1)
        return self.cos[positions], self.sin[positions]


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns heads x [B, T, N, head_dim] to their positions."""
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)
