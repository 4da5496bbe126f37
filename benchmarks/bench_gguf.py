"""The exported f32 GGUF in llama.cpp: the same token ids on 1,000 lines, half Japanese, and the same words.

A small model of English novels and Japanese stories is trained and exported; llama.cpp (xllamacpp) then
tokenises 1,000 held-out lines and continues five prompts greedily for 32 tokens, as our decoder does.

    python benchmarks/bench_gguf.py --full
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import common

DATA = common.ROOT / "examples" / "data"
PROMPTS = (
    "The old man looked at the sea and",
    "It was in the autumn of that year",
    "“I cannot tell you,” she said,",
    "吾輩は猫である。名前は",
    "ある日の暮方の事である。",
)


def main() -> None:
    """Runs it and writes gguf.json."""
    options = common.arguments(__doc__ or "")
    steps = 300 if options.full else 60
    with common.empty_store() as folder:
        result = agreement(folder, steps)
    common.write_result("gguf" if options.full else "gguf-quick", result)


def lines() -> list[str]:
    """Gives 500 English and 500 Japanese lines that no training saw."""
    novel = gzip.open(next((DATA / "novels-heldout").glob("*.gz")), "rt", encoding="utf-8").read()
    english = [line for line in novel.splitlines() if line.strip()][:500]
    japanese: list[str] = []
    with gzip.open(DATA / "aozora-heldout" / "works.jsonl.gz", "rt", encoding="utf-8") as rows:
        for row in rows:
            japanese += [line for line in json.loads(row)["text"].splitlines() if line.strip()]
    found = english + japanese[:500]
    assert len(found) == 1000
    return found


def agreement(folder: Path, steps: int) -> dict[str, Any]:
    """Trains, exports, and counts where llama.cpp and Kogata agree."""
    path = common.recipe(
        folder,
        "gguf",
        {
            "stages": [
                {
                    "data.read": {
                        "path": [str(DATA / "novels"), str(DATA / "aozora")],
                        "columns": {"text": "text"},
                    }
                },
                {"tokenizer.train": {"vocab_size": 6000}},
                {"tokenizer.encode": {}},
                {"train.pretrain": {"steps": steps}},
                {"export": {"formats": ["hf", "gguf-f32"]}},
            ]
        },
    )
    common.kogata("run", str(path), cwd=folder)
    from kogata.engine.generate import generate
    from kogata.engine.gguf_run import greedy, tokenize
    from kogata.engine.load import load_model

    run = folder / "runs" / "gguf"
    loaded = load_model(str(run / "model"))
    file = run / "model-f32.gguf"
    texts = lines()
    ours = [loaded.encode(text) for text in texts]
    theirs = tokenize(file, texts)
    same_ids = sum(a == b for a, b in zip(ours, theirs, strict=True))
    prompts = [loaded.encode(text) for text in PROMPTS]
    words = [generate(loaded.decoder, ids, 32, temperature=0.0) for ids in prompts]
    same_words = sum(a == b for a, b in zip(words, greedy(file, prompts, 32), strict=True))
    return {
        "steps": steps,
        "lines": len(texts),
        "same_token_ids": same_ids,
        "prompts": len(prompts),
        "same_continuations": same_words,
        "continuations": [loaded.tokenizer.decode(ids) for ids in words],
    }


if __name__ == "__main__":
    main()
