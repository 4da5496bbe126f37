"""Resolves and forecasts one stage from made-up facts, in a process in which heavy imports are errors."""

import json
import sys
from dataclasses import replace

from kogata.core.receipt import TEXT_BYTES, Machine
from kogata.core.registry import registry
from kogata.core.stage import Share

SPLITS = {
    "train": {"documents": 20, "bytes": 8_000_000, "characters": 7_900_000},
    "heldout": {"documents": 1, "bytes": 400_000, "characters": 395_000},
}
SPEC = dict(
    family="qwen3",
    vocab_size=4096,
    layers=3,
    width=192,
    heads=3,
    kv_heads=3,
    head_dim=64,
    ffn_width=512,
    ffn="swiglu",
    qk_norm=True,
    qkv_bias=False,
    tied=True,
    rope_theta=10000.0,
    rope_layers=None,
    norm_eps=1e-6,
    context=256,
    rope_scaling=None,
)
FACTS = {
    "corpus": {"splits": SPLITS, "language_hint": "en", "accounts": {}},
    "tokenizer": {
        "vocab_size": 4096,
        "end_id": 0,
        "end_token": "<|endoftext|>",
        "pre": "gpt-2",
        "bytes_per_token": 3.6,
    },
    "tokens": {
        "vocab_size": 4096,
        "end_id": 0,
        "tokenizer_digest": "0" * 64,
        "dtype": "uint16",
        "splits": {name: {**split, "tokens": split["bytes"] // 4} for name, split in SPLITS.items()},
    },
    "model": {
        "spec": SPEC,
        "architecture": "qwen3",
        "parameters": 2_100_000,
        "vocab_size": 4096,
        "context": 256,
        "tokenizer_digest": "0" * 64,
        "end_id": 0,
        "training": {},
    },
    "scores": {"bits_per_byte": {"value": 2.0}},
}
ENCODER = {
    "spec": None,
    "architecture": "bert",
    "role": "encoder",
    "encoder": {"width": 384, "layers": 6, "ffn_width": 1536},
    "parameters": 22_700_000,
    "vocab_size": 30_522,
    "context": 512,
    "tokenizer_digest": "0" * 64,
    "end_id": 102,
}
OF_ENCODERS = ("train.classify", "train.mask", "train.tag")
"""Stages whose model is an encoder."""
MACHINE = Machine(
    cores=2,
    isa="avx2",
    memory_bytes=16 << 30,
    gemm_flops=1.2e11,
    gemm_small_flops=8e10,
    stream_bytes=1e10,
    watts=(10.0, 30.0),
    watts_source="modelled:test",
    compiler=True,
)

name, path = sys.argv[1], sys.argv[2]
cls = registry.stage(name)
settings = {field: path for field, about in cls.model_fields.items() if about.is_required()}
stage = cls(**settings)
facts = {}
for slot, about in cls.takes.items():
    kind = str(about.kinds[0])
    known = ENCODER if kind == "model" and name in OF_ENCODERS else FACTS.get(kind, {})
    given = {"kind": kind, "digest": "0" * 64, **known}
    facts[slot] = {"many": [given]} if about.many else given
share = Share(seconds=60.0 if cls.elastic else None, memory_bytes=4 << 30)


def once():
    resolved = stage.resolve(facts, MACHINE, share)
    forecast = resolved.stage.forecast(facts, MACHINE, share)
    left = [key for key, value in resolved.stage if value == "auto" and key not in resolved.reasons]
    return {
        "settings": resolved.stage.model_dump(mode="json"),
        "reasons": resolved.reasons,
        "facts": forecast.facts,
        "cost": forecast.cost.to_dict(),
        "disk": forecast.disk_bytes,
        "left": left,
    }


first, second = once(), once()
assert json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True), "not pure"
again = stage.resolve(facts, MACHINE, share).stage
assert again.resolve(facts, MACHINE, share).stage == again, "resolving what is resolved changes it"
# A computer that is half as fast at plain work, its matrix products the same.
slow = replace(MACHINE, text_bytes=TEXT_BYTES / 2)
first["slow_seconds"] = stage.resolve(facts, slow, share).stage.forecast(facts, slow, share).cost.seconds
json.dump(first, sys.stdout)
