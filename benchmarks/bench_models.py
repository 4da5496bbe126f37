"""Small base models: weights, the memory that fine-tuning is forecast to take, tokens a character.

Nothing is trained, and no weights are read: a forecast needs a model's sizes alone, which stand below. Tokens
are counted on Kogata's bundled general text with the tokenizers that are at hand: of the package that carries
SmolLM2, and of every other model that --tokenizer NAME=FOLDER names. What is not at hand is null.

    python benchmarks/bench_models.py [--tokenizer qwen3-0.6b=FOLDER]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import common

ROW_TOKENS = 256
"""Of the longest row, where memory is as small as it can be."""
LLAMA = {"family": "llama", "norm_eps": 1e-5}
MODELS: dict[str, dict[str, Any]] = {
    "smollm2-135m": {
        **LLAMA, "vocab_size": 49152, "layers": 30, "width": 576, "heads": 9, "kv_heads": 3,
        "ffn_width": 1536, "tied": True, "context": 8192,
    },
    "smollm2-360m": {
        **LLAMA, "vocab_size": 49152, "layers": 32, "width": 960, "heads": 15, "kv_heads": 5,
        "ffn_width": 2560, "tied": True, "context": 8192,
    },
    "qwen3-0_6b": {
        "family": "qwen3", "norm_eps": 1e-6, "vocab_size": 151936, "layers": 28, "width": 1024, "heads": 16,
        "kv_heads": 8, "head_dim": 128, "ffn_width": 3072, "tied": True, "context": 40960,
    },
    "llm-jp-3-150m": {
        **LLAMA, "vocab_size": 99487, "layers": 12, "width": 512, "heads": 8, "kv_heads": 8,
        "ffn_width": 2048, "tied": False, "context": 4096,
    },
}  # fmt: skip
AT_HAND = {"smollm2-135m": "smollm2", "smollm2-360m": "smollm2"}
"""Models whose tokenizer a package carries."""


def main() -> None:
    """Writes models.json."""
    given = ("--tokenizer", {"action": "append", "default": [], "help": "NAME=FOLDER of a model's tokenizer"})
    options = common.arguments(__doc__ or "", given)
    folders = dict(pair.split("=", 1) for pair in options.tokenizer)
    found = {name: measured(name, sizes, folders.get(name)) for name, sizes in MODELS.items()}
    common.write_result("models", {"row_tokens": ROW_TOKENS, "models": found})


def measured(name: str, sizes: dict[str, Any], folder: str | None) -> dict[str, Any]:
    """Forecasts one model, and counts its tokens."""
    from kogata.engine import finetune_costs as costs
    from kogata.engine.finetune import full, lora
    from kogata.nn.spec import ModelSpec

    spec = ModelSpec.of_family(**sizes)
    change, every = lora.work(spec, lora.Settings()), full.work(spec, full.Settings())
    row: dict[str, Any] = {
        "parameters": spec.parameters(),
        "weight_bytes": 4 * spec.parameters(),
        "lora_bytes": costs.peak_bytes(spec, change, tokens=costs.MICRO),
        "lora_least_bytes": costs.peak_bytes(spec, change, tokens=ROW_TOKENS, form=costs.SMALLEST),
        "full_bytes": costs.peak_bytes(spec, every, tokens=costs.MICRO),
        "tokens_per_character": {
            language: tokens_per_character(name, folder, language) for language in ("ja", "en")
        },
    }
    print(f"{name}: {row}", file=sys.stderr)
    return row


def tokens_per_character(name: str, folder: str | None, language: str) -> float | None:
    """Counts tokens over characters of the bundled passages; None where there is no tokenizer."""
    from kogata.engine.general import passages

    tokenizer = tokenizer_of(name, folder)
    if tokenizer is None:
        return None
    texts = passages(language)
    tokens = sum(len(tokenizer.encode(text, add_special_tokens=False).ids) for text in texts)
    return tokens / sum(map(len, texts))


def tokenizer_of(name: str, folder: str | None) -> Any:
    """Gives a model's tokenizer; None where it is not at hand."""
    from kogata.core.errors import KogataError
    from kogata.engine.gguf_header import read_header
    from kogata.engine.gguf_read import build_tokenizer
    from kogata.engine.load import load_tokenizer
    from kogata.engine.sources import find_model

    if folder is not None:
        return load_tokenizer(Path(folder))
    if name not in AT_HAND:
        return None
    try:
        path = find_model(AT_HAND[name]).path
    except KogataError as error:
        print(f"{name}: {error.what}", file=sys.stderr)
        return None
    return None if path is None else build_tokenizer(read_header(path))[0]


if __name__ == "__main__":
    main()
