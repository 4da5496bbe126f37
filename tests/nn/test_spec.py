"""ModelSpec: refuses shapes that cannot be, and survives JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kogata.core.errors import RecipeError
from kogata.nn.spec import ModelSpec

SIZES = {"vocab_size": 100, "layers": 2, "width": 64, "heads": 4, "kv_heads": 2, "ffn_width": 128}


def test_json_and_back() -> None:
    spec = ModelSpec.of_family("smollm3", **SIZES, rope_layers=(True, False))
    assert ModelSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


@pytest.mark.parametrize(
    ("family", "change", "field"),
    [
        ("gpt9", {}, "family"),
        ("llama", {"kv_heads": 3}, "kv_heads"),
        ("llama", {"heads": 5, "kv_heads": 5}, "heads"),
        ("qwen3", {"head_dim": 15}, "head_dim"),
        ("qwen2", {"head_dim": 32}, "head_dim"),
        ("llama", {"layers": 0}, "layers"),
        ("llama", {"rope_layers": (True, False)}, "rope_layers"),
        ("smollm3", {"rope_layers": (True,)}, "rope_layers"),
        ("llama", {"rope_scaling": {"rope_type": "longrope"}}, "rope_scaling"),
    ],
)
def test_unfit_shapes_are_named(family: str, change: dict, field: str) -> None:
    with pytest.raises(RecipeError, match=f"model.{field}"):
        ModelSpec.of_family(family, **{**SIZES, **change})


def test_unknown_field_is_refused() -> None:
    values = ModelSpec.of_family("llama", **SIZES).to_dict()
    with pytest.raises(RecipeError, match="model.depth"):
        ModelSpec.from_dict({**values, "depth": 3})


def test_needs_no_torch(root: Path) -> None:
    code = "import sys, kogata.nn.spec, kogata.engine.hf_config; assert 'torch' not in sys.modules"
    environment = {**os.environ, "PYTHONPATH": str(root / "src")}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
