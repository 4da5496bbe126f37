"""A GGUF file for llama.cpp with matrices in float16, vectors in float32.

Pays when: half the bytes of float32 are wanted at practically the same quality.
Hurts when: a CPU without fast half precision runs it, or q8_0 would do.
Cost: 2 bytes a weight.
Source: the GGUF format of llama.cpp.
Measured here: not yet measured.
"""

from __future__ import annotations

from functools import partial

from kogata.engine.export import _gguf
from kogata.engine.export._common import Format

FORMAT = Format(
    name="gguf-f16",
    place="model-f16.gguf",
    runtime="llama.cpp",
    tolerance=0.005,
    refuse=_gguf.refuse,
    forecast_bytes=partial(_gguf.forecast_bytes, kind="f16"),
    write=partial(_gguf.export, kind="f16"),
    score=_gguf.score,
)
