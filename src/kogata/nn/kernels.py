"""Kernels: `kernels.c`, compiled once per process in under a second, called on float32 tensors.

Where there is no C compiler there are no kernels, and plain torch computes the same, more slowly.
"""

from __future__ import annotations

import ctypes
import functools
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SOURCE = Path(__file__).with_name("kernels.c")
FLAGS = (
    "-O3", "-march=native", "-fPIC", "-shared", "-fopenmp",
    # Sums may be vectorised; not-a-number must survive, and denormals stay torch's choice: no -ffast-math.
    "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math", "-freciprocal-math",
)  # fmt: skip
COMPILERS = ("gcc", "cc", "clang")
MOST_HEAD = 512
_LOCK = threading.Lock()
"""Whoever asks while another thread compiles waits for it."""


class Kernels:
    """The compiled functions.

    Args:
        library: from `build`.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    @staticmethod
    def build(compiler: str | None = None) -> Kernels | None:
        """Compiles the kernels; None when there is no compiler or it cannot."""
        compiler = compiler or next(filter(None, map(shutil.which, COMPILERS)), None)
        if compiler is None:
            return None
        with _LOCK:
            library = _compiled(compiler)
        return None if library is None else Kernels(library)

    def _call(self, name: str, *arguments: Any) -> None:
        getattr(self._library, name)(*map(_plain, arguments))

    def rms_forward(self, x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """Gives x / rms(x) by row, and 1 / rms(x)."""
        y, inverse = torch.empty_like(x), x.new_empty(x.shape[0])
        self._call("rms_forward", x, y, inverse, x.shape[0], x.shape[1], eps)
        return y, inverse

    def rms_backward(self, g: Tensor, y: Tensor, inverse: Tensor, rest: Tensor | None) -> Tensor:
        """Gives rest + the gradient of x."""
        out = torch.empty_like(g)
        self._call("rms_backward", g, y, inverse, rest, out, g.shape[0], g.shape[1])
        return out

    def rms_gain_forward(self, x: Tensor, gain: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """Gives gain · x / rms(x) by row, and 1 / rms(x)."""
        y, inverse = torch.empty_like(x), x.new_empty(x.shape[0])
        self._call("rms_gain_forward", x, gain, y, inverse, x.shape[0], x.shape[1], eps)
        return y, inverse

    def rms_gain_backward(self, g: Tensor, x: Tensor, inverse: Tensor, gain: Tensor) -> Tensor:
        """Gives the gradient of x."""
        out = torch.empty_like(g)
        self._call("rms_gain_backward", g, x, inverse, gain, out, g.shape[0], g.shape[1])
        return out

    def heads_forward(
        self,
        z: Tensor,
        gains: tuple[Tensor, Tensor] | None,
        turn: tuple[Tensor, Tensor] | None,
        tokens: int,
        heads: tuple[int, int, int],
        eps: float,
    ) -> tuple[Tensor, Tensor]:
        """Normalises and turns queries and keys: [rows, heads, dim] and each head's 1 / rms."""
        queries, keys, dim = heads
        out = z.new_empty(z.shape[0], queries + keys, dim)
        inverse = z.new_empty(z.shape[0] if gains else 0, queries + keys)
        gq, gk = gains or (None, None)
        cosine, sine = turn or (None, None)
        self._call(
            "heads_forward", z, out, inverse, gq, gk, cosine, sine,
            z.shape[0], tokens, z.shape[1], queries, keys, dim, eps,
        )  # fmt: skip
        return out, inverse

    def heads_backward(
        self,
        grads: tuple[Tensor, Tensor],
        z: Tensor,
        gz: Tensor,
        inverse: Tensor,
        gains: tuple[Tensor, Tensor] | None,
        turn: tuple[Tensor, Tensor] | None,
        tokens: int,
        heads: tuple[int, int, int],
    ) -> tuple[Tensor | None, Tensor | None]:
        """Writes the gradient of z's queries and keys into gz; gives the gradients of the gains."""
        queries, keys, dim = heads
        gq, gk = gains or (None, None)
        sums = (
            (torch.zeros_like(gq), torch.zeros_like(gk))
            if gq is not None and gk is not None
            else (None, None)
        )
        cosine, sine = turn or (None, None)
        self._call(
            "heads_backward", *grads, z, gz, inverse, gq, gk, *sums, cosine, sine,
            z.shape[0], tokens, z.shape[1], queries, keys, dim,
        )  # fmt: skip
        return sums

    def gate_forward(self, kind: str, inner: Tensor, width: int) -> Tensor:
        """Computes the feed-forward's inner function, `swiglu` or `relu2`."""
        out = inner.new_empty(inner.shape[0], width)
        self._call(f"{kind}_forward", inner, out, inner.shape[0], width)
        return out

    def gate_backward(self, kind: str, inner: Tensor, g: Tensor) -> None:
        """Turns `inner` into its own gradient."""
        self._call(f"{kind}_backward", inner, g, g.shape[0], g.shape[1])

    def band_softmax(self, scores: Tensor, queries: int, before: int, window: int, scale: float) -> None:
        """Turns scores [N, M, S] in bfloat16 into softmax(scale · scores) of what each query may look at.

        Args:
            scores: M is a multiple of `queries`.
            queries: of one head; the i-th looks at keys up to `before + i`.
            before: keys before the first query.
            window: keys that one looks at; 0: all before it.
            scale: of the scores.
        """
        keys = scores.shape[-1]
        self._call(
            "band_softmax", scores, scores.numel() // keys // queries, queries, keys, before, window, scale
        )

    def band_softmax_backward(
        self, p: Tensor, g: Tensor, queries: int, before: int, window: int, scale: float
    ) -> None:
        """Turns g, the gradient of what `band_softmax` gave, into that of the scores."""
        keys = p.shape[-1]
        groups = p.numel() // keys // queries
        self._call("band_softmax_backward", p, g, groups, queries, keys, before, window, scale)

    def cross_entropy(self, z: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
        """Turns logits into their gradient, weights · (softmax - onehot); gives -log p by row."""
        loss = z.new_empty(z.shape[0])
        self._call("cross_entropy", z, targets, weights, loss, z.shape[0], z.shape[1])
        return loss


@functools.cache
def _compiled(compiler: str) -> ctypes.CDLL | None:
    with tempfile.TemporaryDirectory(prefix="kogata-kernels-") as folder:
        made = Path(folder) / "kernels.so"
        try:
            done = subprocess.run(
                [compiler, *FLAGS, str(SOURCE), "-o", str(made), "-lm"], capture_output=True, timeout=60
            )
            return ctypes.CDLL(str(made)) if done.returncode == 0 else None
        except (OSError, subprocess.TimeoutExpired):
            return None


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return ctypes.c_void_p(value.data_ptr())
    if isinstance(value, float):
        return ctypes.c_float(value)
    return ctypes.c_void_p(None) if value is None else ctypes.c_int64(value)
