"""A GGUF file for llama.cpp with every weight in float32: the same numbers as the model.

Pays when: the file is to be checked, or quantised further by llama.cpp's own tools.
Hurts when: size matters: it is four times as large as q8_0.
Cost: 4 bytes a weight; a second of writing for 100 MB.
Source: the GGUF format of llama.cpp.
Measured here: in llama.cpp 1,000 [gguf.json:same_token_ids:,.0f] of 1,000 [gguf.json:lines:,.0f] lines, half
of them Japanese, give the same ids, and 5 [gguf.json:same_continuations:.0f] of 5 [gguf.json:prompts:.0f]
prompts the same 32 tokens.
"""

from __future__ import annotations

from functools import partial

from kogata.engine.export import _gguf
from kogata.engine.export._common import Format

FORMAT = Format(
    name="gguf-f32",
    place="model-f32.gguf",
    runtime="llama.cpp",
    tolerance=0.005,
    refuse=_gguf.refuse,
    forecast_bytes=partial(_gguf.forecast_bytes, kind="f32"),
    write=partial(_gguf.export, kind="f32"),
    score=_gguf.score,
)
