"""The child process that measures a computer: imports torch, prints one line of JSON, ends.

Every rate is the best of a few short stretches: other programs only ever make a computer look slower. How
much of the cores' time this one got is told with the rates (`cpu_share`).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import re
import time
import zlib
from collections import Counter
from collections.abc import Callable
from typing import Any

STRETCHES = 3
SMALL_SHAPE = (2048, 192, 768)
"""Tokens, width and feed-forward width of a small model's product."""
TEXT_SECONDS = 0.25
"""For text, beside `--seconds`; making it and a small vocabulary takes about 0.1 s more."""
WORDS, TEXT_WORDS, LINE_WORDS, PART_LINES = 3000, 20_000, 12, 50


def measure(
    cores: int,
    device: str,
    seconds: float,
    stream_bytes: int,
    package_joules: Any = None,
    bf16: bool = False,
) -> dict[str, Any]:
    """Measures matrix products and copies.

    Args:
        cores: threads to use.
        device: `auto`, `cpu` or `cuda`.
        seconds: about how long to measure in all.
        stream_bytes: size of the array that is copied.
        package_joules: reads the energy used so far; None where nothing can be read.
        bf16: whether the processor multiplies 16-bit numbers, so that their rate is worth a look.
    """
    import torch

    torch.set_num_threads(cores)
    torch.manual_seed(0)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"

    def finish() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    def product(rows: int, inner: int, columns: int, stretch: float, rounded: bool = False) -> float:
        a = torch.randn(rows, inner, device=device)
        b = torch.randn(inner, columns, device=device)
        out = torch.empty(rows, columns, device=device)
        # One factor is rounded and the result widened, as in training (nn/products.py).
        narrow = b.bfloat16() if rounded else b
        rate = _rate(
            lambda: out.copy_(torch.mm(a.bfloat16(), narrow)) if rounded else torch.mm(a, b, out=out),
            finish,
            stretch,
        )
        return 2.0 * rows * inner * columns * rate

    side = 2048 if device == "cpu" else 8192
    energy = package_joules() if package_joules else None
    begun, used = time.perf_counter(), time.process_time()
    gemm = product(side, side, side, 0.4 * seconds / STRETCHES)
    taken = time.perf_counter() - begun
    got = (time.process_time() - used) / (taken * cores) if device == "cpu" else None
    watts = (package_joules() - energy) / taken if package_joules and energy is not None else None
    small = product(*SMALL_SHAPE, 0.3 * seconds / STRETCHES)
    half = None
    if bf16 and device == "cpu":
        shapes = (side, side, side), SMALL_SHAPE
        half = sum(product(*shape, 0.15 * seconds / STRETCHES, rounded=True) for shape in shapes) / 2
    source = torch.ones(stream_bytes // 4, device=device)
    target = torch.empty_like(source)
    copies = _rate(lambda: target.copy_(source), finish, 0.3 * seconds / STRETCHES)
    return {
        "device": device,
        "gemm_flops": gemm,
        "gemm_small_flops": small,
        "bf16_flops": half,
        "stream_bytes": 2.0 * source.nbytes * copies,
        "text_bytes": text_rate(),
        "package_watts": watts,
        "cpu_share": got,
        "torch": torch.__version__,
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
    }


def text_rate(seconds: float = TEXT_SECONDS) -> float:
    """Measures plain work on one core: bytes of text per second encoded, cut, counted, hashed and packed."""
    parts = _text()
    encode = _encoder(parts)
    words = re.compile(r"\w+")

    def work() -> None:
        for part in parts:
            encode(part)
            for _ in range(2):
                Counter(words.findall(part)).most_common(3)
                hashlib.blake2b(part.encode()).digest()
                zlib.compress(json.dumps({"text": part}, ensure_ascii=False).encode(), 1)

    size = sum(len(part.encode()) for part in parts)
    return size * _rate(work, lambda: None, seconds / STRETCHES)


def _text() -> list[str]:
    """Makes text always the same: words as frequent as words are, in lines, both kinds of script."""
    dice = random.Random(0)
    heads, tails = "bcdfglmnprstvw", ("a", "e", "i", "o", "u", "ar", "en", "or")
    kana = "あいうえおかきくけこさしすせそ"
    words = [
        "".join(dice.choice(kana) for _ in range(dice.choice((1, 2, 2, 3))))
        if rank % 8 == 7
        else "".join(dice.choice(heads) + dice.choice(tails) for _ in range(dice.choice((1, 1, 2, 2, 3))))
        for rank in range(WORDS)
    ]
    drawn = dice.choices(words, [1 / (rank + 1) for rank in range(WORDS)], k=TEXT_WORDS)
    lines = [
        " ".join(drawn[at : at + LINE_WORDS]).capitalize() + dice.choice(".,;?!")
        for at in range(0, TEXT_WORDS, LINE_WORDS)
    ]
    return ["\n".join(lines[at : at + PART_LINES]) for at in range(0, len(lines), PART_LINES)]


def _encoder(parts: list[str]) -> Callable[[str], Any]:
    """Learns a small vocabulary and gives what encodes with it."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=1024, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(parts[:12], trainer)
    # One text after another: many at once would spread over the cores.
    return lambda part: tokenizer.encode(part).ids


def _rate(work: Callable[[], Any], finish: Callable[[], None], stretch: float) -> float:
    """Gives how often a second the work can be done: the best stretch of several."""
    work()
    finish()
    best = 0.0
    for _ in range(STRETCHES):
        done, begun = 0, time.perf_counter()
        while True:
            work()
            finish()
            done += 1
            taken = time.perf_counter() - begun
            if taken >= stretch:
                break
        best = max(best, done / taken)
    return best


def main() -> None:
    """Measures and prints."""
    from kogata.runtime.energy import Rapl

    parser = argparse.ArgumentParser()
    parser.add_argument("--cores", type=int, required=True)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seconds", type=float, default=2.5)
    parser.add_argument("--stream-bytes", type=int, default=1 << 28)
    parser.add_argument("--bf16", action="store_true")
    given = parser.parse_args()
    rapl = Rapl()
    poll = rapl.poll if rapl else None
    found = measure(given.cores, given.device, given.seconds, given.stream_bytes, poll, given.bf16)
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
