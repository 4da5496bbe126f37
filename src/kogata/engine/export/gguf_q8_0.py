"""A GGUF file for llama.cpp with matrices in 8 bits: blocks of 32 weights share a float16 scale.

Pays when: the model is to be run by llama.cpp: a quarter of the bytes, and decoding is faster for it.
Hurts when: rows are no multiple of 32 (those tensors stay float16, which is said).
Cost: 1.06 bytes a weight; under 0.01 bits per byte as a rule, measured for every exported file.
Source: the GGUF format of llama.cpp.
Measured here: not yet measured.
"""

from __future__ import annotations

from functools import partial

from kogata.engine.export import _gguf
from kogata.engine.export._common import Format

FORMAT = Format(
    name="gguf-q8_0",
    place="model-q8_0.gguf",
    runtime="llama.cpp",
    tolerance=0.02,
    refuse=_gguf.refuse,
    forecast_bytes=partial(_gguf.forecast_bytes, kind="q8_0"),
    write=partial(_gguf.export, kind="q8_0"),
    score=_gguf.score,
)
