"""The kernels of `kernels_narrow.h`: between products of 16-bit factors, on bfloat16 tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from kogata.nn.kernels import Kernels
from kogata.nn.products import NARROW


class NarrowKernels:
    """The compiled functions.

    Args:
        kernels: of the same library.
    """

    def __init__(self, kernels: Kernels) -> None:
        self._call = kernels._call

    def rms_forward(self, x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """Gives x / rms(x) by row, narrow, and 1 / rms(x)."""
        y, inverse = torch.empty_like(x, dtype=NARROW), x.new_empty(x.shape[0])
        self._call("rms_forward_narrow", x, y, inverse, x.shape[0], x.shape[1], eps)
        return y, inverse

    def rms_backward(self, g: Tensor, y: Tensor, inverse: Tensor, rest: Tensor) -> Tensor:
        """Gives rest + the gradient of x, in float32."""
        out = torch.empty_like(rest)
        self._call("rms_backward_narrow", g, y, inverse, rest, out, g.shape[0], g.shape[1])
        return out

    def gate_forward(self, kind: str, inner: Tensor, width: int) -> Tensor:
        """Computes the feed-forward's inner function, `swiglu` or `relu2`."""
        out = inner.new_empty(inner.shape[0], width)
        self._call(f"{kind}_forward_narrow", inner, out, inner.shape[0], width)
        return out

    def gate_backward(self, kind: str, inner: Tensor, g: Tensor) -> None:
        """Turns `inner` into its own gradient."""
        self._call(f"{kind}_backward_narrow", inner, g, g.shape[0], g.shape[1])

    def heads_forward(
        self,
        z: Tensor,
        gains: tuple[Tensor, Tensor] | None,
        turn: tuple[Tensor, Tensor] | None,
        rows: int,
        heads: tuple[int, int, int],
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Normalises and turns queries and keys, and lays heads out for attention.

        Returns:
            queries [rows · keys, group, T, dim], keys and values [rows · keys, T, dim], each head's 1 / rms.
        """
        queries, keys, dim = heads
        tokens = z.shape[0] // rows
        q = z.new_empty(rows * keys, queries // keys, tokens, dim)
        k, v = z.new_empty(rows * keys, tokens, dim), z.new_empty(rows * keys, tokens, dim)
        inverse = torch.empty(z.shape[0] if gains else 0, queries + keys)
        self._call(
            "heads_forward_narrow", z, q, k, v, inverse, *(gains or (None, None)), *(turn or (None, None)),
            z.shape[0], tokens, queries, keys, dim, eps,
        )  # fmt: skip
        return q, k, v, inverse

    def heads_backward(
        self,
        grads: tuple[Tensor, Tensor, Tensor],
        z: Tensor,
        inverse: Tensor,
        gains: tuple[Tensor, Tensor] | None,
        turn: tuple[Tensor, Tensor] | None,
        tokens: int,
        heads: tuple[int, int, int],
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Gives the gradients of z and of the gains, from those of what was laid out."""
        queries, keys, dim = heads
        gz = torch.empty_like(z)
        sums = (None, None) if gains is None else (torch.zeros_like(gains[0]), torch.zeros_like(gains[1]))
        self._call(
            "heads_backward_narrow", *grads, z, gz, inverse, *(gains or (None, None)), *sums,
            *(turn or (None, None)), z.shape[0], tokens, queries, keys, dim,
        )  # fmt: skip
        return gz, sums[0], sums[1]
