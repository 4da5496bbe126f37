"""Runs a GGUF file in llama.cpp: its token ids, its bits per byte, its greedy continuation.

llama.cpp works in a process of its own (`llama_child.py`), so that what is measured is the file as any user
of llama.cpp has it, and a crash there ends nothing here.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kogata.core.errors import ArtifactError, EnvironmentProblem

_LARGE = 60_000_000
"""Bytes of a file from which on its windows are shared out."""


@dataclass(frozen=True, kw_only=True)
class LlamaScore:
    """What llama.cpp made of some texts."""

    loss: float
    """Sum of −log p in nats."""
    tokens: int
    ids: list[list[int]]
    """Of each text, as llama.cpp tokenised it."""


def available() -> bool:
    """Says whether llama.cpp is installed here."""
    return importlib.util.find_spec("xllamacpp") is not None


def tokenize(path: Path, texts: Sequence[str]) -> list[list[int]]:
    """Gives llama.cpp's token ids of each text; no start token, markers of special tokens as plain text."""
    return _run(path, {"do": "tokenize", "texts": list(texts), "context": 64})["ids"]


def score(
    path: Path, texts: Sequence[str], *, end_id: int, window: int, processes: int | None = None
) -> LlamaScore:
    """Sums the loss of texts one by one, end token first, in non-overlapping windows of `window` tokens.

    A large model's windows are shared out to one process a core: threads of one process wait for each other
    at every step, which takes ten times as long when another program uses a core (measured).
    """
    if processes is None:
        processes = _cores() if path.stat().st_size > _LARGE else 1
    job = {"do": "score", "texts": list(texts), "end_id": end_id, "window": window, "context": window}
    with ThreadPoolExecutor(processes) as pool:
        parts = list(pool.map(lambda at: _run(path, job | {"part": [at, processes]}), range(processes)))
    total = math.fsum(part["loss"] for part in parts)
    return LlamaScore(loss=total, tokens=parts[0]["tokens"], ids=parts[0]["ids"])


def greedy(
    path: Path, prompts: Sequence[Sequence[int]], tokens: int, *, end_id: int | None = None
) -> list[list[int]]:
    """Continues each prompt (token ids) with the likeliest tokens, up to `tokens` or the end token."""
    rows = [list(prompt) for prompt in prompts]
    context = max(map(len, rows)) + tokens
    job = {"do": "greedy", "prompts": rows, "tokens": tokens, "end_id": end_id, "context": context}
    return _run(path, job)["tokens"]


def _run(path: Path, job: dict[str, Any]) -> dict[str, Any]:
    if not available():
        raise EnvironmentProblem(
            "llama.cpp is not installed",
            where=str(path),
            found="no package xllamacpp",
            remedy="pip install xllamacpp",
        )
    done = subprocess.run(
        [sys.executable, "-P", str(Path(__file__).with_name("llama_child.py"))],
        input=json.dumps(job | {"path": str(path), "threads": 1}),
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        answer = {"error": f"llama.cpp ended with code {done.returncode}"}
    if "hidden" in answer:
        raise EnvironmentProblem(
            "this build of xllamacpp does not let llama.cpp be called",
            where=str(path),
            found=answer["hidden"],
            expected="llama.cpp's C functions, as in the version of constraints.txt",
        )
    if "error" in answer:
        raise ArtifactError(
            "llama.cpp cannot use the file",
            where=str(path),
            found=f"{answer['error']}{_last_words(done.stderr)}",
            expected="a GGUF file whose architecture and tokenizer this llama.cpp knows",
        )
    return answer


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _last_words(log: str) -> str:
    lines = [
        line.strip() for line in log.splitlines() if "error" in line.lower() or "unknown" in line.lower()
    ]
    return f" ({lines[0][:300]})" if lines else ""
