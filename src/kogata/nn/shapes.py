"""What is kept of products of 16-bit factors, for computing and forecasting. Imports no torch."""

from __future__ import annotations

import os

KEPT_SHAPES = 256
"""Shapes of products whose code is kept. A pass has about 26 for its tokens, 5 for each length of row.
Each takes 0.64 MiB, so the library's own bound of 1,024 let a run on rows of many lengths grow on and on."""

WEIGHTS_KEPT = 512
"""Tokens of a row up to which the weights of attention are kept for the backward pass."""


def bound_shapes() -> None:
    """Sets the bound, unless the user did; it counts from a process's first such product on."""
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(KEPT_SHAPES))
