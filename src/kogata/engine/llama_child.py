"""The process in which llama.cpp runs: reads a job from stdin, writes its answer to stdout, both JSON.

Started by `gguf_run` as a file, never imported: it needs xllamacpp and numpy alone, and if llama.cpp
aborts, only this process ends. xllamacpp offers a server but no logits of a prompt; those come from
llama.cpp's C functions, which its extension module exports.

Structures that C passes by value are opaque here, larger than the real ones; the few fields that are set
stand at places checked against llama.cpp's own defaults.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

Job = dict[str, Any]


class Blob(ctypes.Structure):
    """Room for a structure of llama.cpp's that is passed by value."""

    _fields_ = [("words", ctypes.c_int32 * 256)]


class Batch(ctypes.Structure):
    """`llama_batch`: tokens with their places and the sequences they belong to."""

    _fields_ = [
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("embd", ctypes.c_void_p),
        ("pos", ctypes.POINTER(ctypes.c_int32)),
        ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
        ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    ]


class Llama:
    """llama.cpp by its C functions.

    Raises:
        AttributeError: the library hides them.
        LookupError: its structures are laid out in a way this file does not know.
    """

    def __init__(self, path: str, context: int, threads: int) -> None:
        import xllamacpp.xllamacpp as extension

        self.lib = lib = ctypes.CDLL(extension.__file__)
        pointer, text = ctypes.c_void_p, ctypes.c_char_p
        for name, result, arguments in (
            ("llama_model_default_params", Blob, []),
            ("llama_context_default_params", Blob, []),
            ("llama_model_load_from_file", pointer, [text, Blob]),
            ("llama_init_from_model", pointer, [pointer, Blob]),
            ("llama_model_get_vocab", pointer, [pointer]),
            ("llama_vocab_n_tokens", ctypes.c_int32, [pointer]),
            ("llama_get_memory", pointer, [pointer]),
            ("llama_memory_clear", None, [pointer, ctypes.c_bool]),
            ("llama_set_n_threads", None, [pointer, ctypes.c_int32, ctypes.c_int32]),
            ("llama_batch_init", Batch, [ctypes.c_int32] * 3),
            ("llama_decode", ctypes.c_int32, [pointer, Batch]),
            ("llama_get_logits", ctypes.POINTER(ctypes.c_float), [pointer]),
            ("llama_tokenize", ctypes.c_int32, [pointer, text, ctypes.c_int32, pointer, ctypes.c_int32,
                                                ctypes.c_bool, ctypes.c_bool]),
        ):  # fmt: skip
            function = getattr(lib, name)
            function.restype, function.argtypes = result, arguments
        options = lib.llama_context_default_params()
        words = options.words
        if list(words[:4]) != [512, 2048, 512, 1] or list(words[10:14]) != [-1] * 4:
            raise LookupError("other defaults of llama_context_params")
        words[0] = words[1] = words[2] = context
        words[13] = 0  # no flash attention: it would round keys and values to half precision
        for at in range(20, 40):
            if list(words[at : at + 2]) == [1, 1] and not any(words[at - 4 : at]):
                words[at] = words[at + 1] = 0  # keys and values in float32
                break
        lib.llama_backend_init()
        self.model = lib.llama_model_load_from_file(os.fsencode(path), lib.llama_model_default_params())
        if not self.model:
            raise ValueError("llama.cpp does not load the file")
        self.context = lib.llama_init_from_model(self.model, options)
        if not self.context:
            raise ValueError("llama.cpp makes no context for the file")
        lib.llama_set_n_threads(self.context, threads, threads)
        self.vocab = lib.llama_model_get_vocab(self.model)
        self.vocab_size = lib.llama_vocab_n_tokens(self.vocab)
        self.batch = lib.llama_batch_init(context, 0, 1)

    def tokenize(self, text: str) -> list[int]:
        """Gives the ids of a text; markers of special tokens in it are plain text."""
        content = text.encode("utf-8")
        room = (ctypes.c_int32 * (len(content) + 8))()
        count = self.lib.llama_tokenize(self.vocab, content, len(content), room, len(room), False, False)
        if count < 0:
            raise ValueError("llama.cpp does not tokenise the text")
        return list(room[:count])

    def _decode(self, ids: list[int], start: int, every: bool) -> np.ndarray:
        batch = self.batch
        batch.n_tokens = len(ids)
        for at, token in enumerate(ids):
            batch.token[at], batch.pos[at] = token, start + at
            batch.n_seq_id[at], batch.seq_id[at][0] = 1, 0
            batch.logits[at] = 1 if every or at == len(ids) - 1 else 0
        code = self.lib.llama_decode(self.context, batch)
        if code:
            raise ValueError(f"llama_decode gives {code}")
        rows = len(ids) if every else 1
        return np.ctypeslib.as_array(self.lib.llama_get_logits(self.context), (rows, self.vocab_size))

    def losses(self, ids: list[int], targets: list[int]) -> float:
        """Sums −log p of each target after the ids before it."""
        self.lib.llama_memory_clear(self.lib.llama_get_memory(self.context), True)
        logits = self._decode(ids, 0, True)
        top = logits.max(axis=1)
        normaliser = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
        return float((normaliser - logits[np.arange(len(targets)), targets]).sum(dtype=np.float64))

    def greedy(self, ids: list[int], tokens: int, end_id: int | None) -> list[int]:
        """Continues with the likeliest token, again and again; stops after the end token."""
        self.lib.llama_memory_clear(self.lib.llama_get_memory(self.context), True)
        made: list[int] = []
        step, start = ids, 0
        while len(made) < tokens:
            made.append(int(self._decode(step, start, False)[0].argmax()))
            start, step = start + len(step), made[-1:]
            if made[-1] == end_id:
                break
        return made


def windows(ids: list[int], end_id: int, window: int) -> Iterator[tuple[list[int], list[int]]]:
    """Cuts a document, end token first, into inputs and the tokens they are asked for."""
    whole = [end_id, *ids]
    for start in range(0, len(whole) - 1, window):
        inputs = whole[start : start + window]
        targets = whole[start + 1 : start + window + 1]
        yield inputs[: len(targets)], targets


def work(job: Job) -> dict[str, Any]:
    """Does one job: `tokenize`, `score` or `greedy`."""
    try:
        engine = Llama(job["path"], max(int(job["context"]), 32), job["threads"])
    except (AttributeError, LookupError, ImportError) as error:
        return {"hidden": str(error)}
    answer: dict[str, Any] = {}
    if job["do"] == "greedy":
        return answer | {
            "tokens": [engine.greedy(ids, job["tokens"], job["end_id"]) for ids in job["prompts"]]
        }
    ids = [engine.tokenize(text) for text in job["texts"]]
    if job["do"] == "score":
        pieces = [piece for document in ids for piece in windows(document, job["end_id"], job["window"])]
        first, step = job.get("part", [0, 1])
        answer["loss"] = math.fsum(engine.losses(*piece) for piece in pieces[first::step])
        answer["tokens"] = sum(map(len, ids))
    return answer | {"ids": ids}


def main() -> None:
    """Reads the job, keeps stdout for the answer alone, works."""
    out = os.dup(1)
    os.dup2(2, 1)
    try:
        answer = work(json.load(sys.stdin))
    except (ValueError, RuntimeError, OSError) as error:
        answer = {"error": str(error)}
    with open(out, "w", encoding="utf-8") as file:
        json.dump(answer, file)
    sys.stdout.flush()
    os._exit(0)  # no destructors of half-closed backends


if __name__ == "__main__":
    main()
