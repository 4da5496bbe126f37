"""English novels from scratch: Kogata's default against HF Trainer, at equal and a third of its wall-clock.

Both sides start from the same text and are scored by the same code on the same held-out novels, from the
exported Hugging Face folder, as bits per byte. The peer tries three learning rates at the first seed,
and the best of them with products in bf16 where the processor has such; it takes its best to the others.
Kogata runs as it comes, with no setting tried. The clock runs from data in memory to final weights; Kogata's
includes its probes, statistics and compiling, the peer's is Trainer.train alone.

    python benchmarks/bench_novels.py --full [--corpus FOLDER]
    python benchmarks/bench_novels.py --long 1200 [--corpus FOLDER]
"""

from __future__ import annotations

import glob
import gzip
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import common

PEER_SHAPE = {"batch": 8, "layers": 3, "width": 192, "heads": 3}
PEER_RATES = [1.5e-3, 3e-3, 6e-3]
PEER_VOCABULARY = 4096


def main() -> None:
    """Runs both sides in turn and writes novels.json."""
    options = common.arguments(
        __doc__ or "",
        ("--corpus", {"help": "folder with prose/ and heldout/"}),
        ("--long", {"type": float, "help": "seconds of one pair at the rate that won in novels.json"}),
    )
    train, held = places(options.corpus)
    corpus = common.corpus_folder(options.corpus)
    if options.long:
        long_pair(options.long, train, held)
        return
    seconds = 288.0 if options.full else 60.0
    seeds = [0, 1, 2] if options.full else [0]
    rates = PEER_RATES if options.full else PEER_RATES[1:2]
    with common.empty_store() as folder:
        result = compare(folder, train, held, seconds, seeds, rates)
    result["corpus"] = "English novels (50 train, 3 held out)" if corpus else "examples/data/novels"
    common.write_result("novels" if options.full else "novels-quick", result)


def places(given: str | None) -> tuple[str, str]:
    """Gives the patterns of the novels for training and of those held out; the examples' without a corpus."""
    corpus = common.corpus_folder(given)
    if corpus is not None:
        return str(corpus / "prose" / "*.txt.gz"), str(corpus / "heldout" / "val-fiction-*.txt.gz")
    novels = common.ROOT / "examples" / "data"
    return str(novels / "novels" / "*.txt.gz"), str(novels / "novels-heldout" / "*.txt.gz")


def read(pattern: str) -> list[str]:
    """Reads packed texts in the order of their names."""
    return [gzip.open(name, "rt", encoding="utf-8").read() for name in sorted(glob.glob(pattern))]


def long_pair(seconds: float, train: str, held: str) -> None:
    """Runs each side once, the peer at the rate that won the shorter runs, and writes novels-long.json."""
    before = json.loads((common.RESULTS / "novels.json").read_text(encoding="utf-8"))
    won = before["arms"]["peer"][0]
    python = common.environment("hf", ["torch==2.13.0", "transformers==5.23.0", "accelerate", "numpy"])
    with common.empty_store() as folder:
        files, texts = prepare_peer(folder, train, held)
        mine = run_ours(folder, train, held, texts, seconds, 0)
        show("kogata", mine)
        peer = run_peer(python, folder, files, texts, seconds, won["lr"], 0, won["precision"])
        show("peer", peer)
    result = {"seconds": seconds, "arms": {"peer": [peer], "kogata": [mine]}}
    gain = peer["bits_per_byte"] - mine["bits_per_byte"]
    common.write_result("novels-long", {**result, "gain_bits_per_byte": [gain], "reached": gain >= 0.15})


def compare(
    folder: Path, train: str, held: str, seconds: float, seeds: list[int], rates: list[float]
) -> dict[str, Any]:
    """Runs both sides, alternating, and gives their raw values."""
    python = common.environment("hf", ["torch==2.13.0", "transformers==5.23.0", "accelerate", "numpy"])
    files, texts = prepare_peer(folder, train, held)
    sweep: list[dict[str, Any]] = []
    ours: list[dict[str, Any]] = []
    third: list[dict[str, Any]] = []
    for number, rate in enumerate(rates):
        sweep.append(run_peer(python, folder, files, texts, seconds, rate, seeds[0]))
        show(f"peer, lr {rate}", sweep[-1])
        if number == 0:
            ours.append(run_ours(folder, train, held, texts, seconds, seeds[0]))
            show("kogata", ours[-1])
            third.append(run_ours(folder, train, held, texts, seconds / 3, seeds[0]))
            show("kogata, a third", third[-1])
    if has_bf16():
        best = min(sweep, key=lambda row: row["bits_per_byte"])
        sweep.append(run_peer(python, folder, files, texts, seconds, best["lr"], seeds[0], "bf16"))
        show(f"peer, lr {best['lr']}, bf16", sweep[-1])
    peer = [min(sweep, key=lambda row: row["bits_per_byte"])]
    for seed in seeds[1:]:
        ours.append(run_ours(folder, train, held, texts, seconds, seed))
        show("kogata", ours[-1])
        settings = peer[0]["lr"], seed, peer[0]["precision"]
        peer.append(run_peer(python, folder, files, texts, seconds, *settings))
        show("peer", peer[-1])
        third.append(run_ours(folder, train, held, texts, seconds / 3, seed))
        show("kogata, a third", third[-1])
    gaps = [a["bits_per_byte"] - b["bits_per_byte"] for a, b in zip(peer, ours, strict=True)]
    reached = [a["bits_per_byte"] <= b["bits_per_byte"] for a, b in zip(third, peer, strict=True)]
    return {
        "seconds": seconds,
        "seeds": seeds,
        "arms": {"peer": peer, "kogata": ours, "kogata_third": third},
        "sweep": {"peer": sweep},
        "gain_bits_per_byte": gaps,
        "median_gain": statistics.median(gaps),
        "reached_in_a_third": reached,
        "peer": {
            "name": "transformers Trainer, Llama, AdamW, cosine",
            "vocabulary": PEER_VOCABULARY,
            **PEER_SHAPE,
        },
    }


def prepare_peer(folder: Path, train: str, held: str) -> tuple[dict[str, Path], list[str]]:
    """Encodes the text as the peer's user would: byte-level BPE, an end token before each novel."""
    import numpy as np
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    texts, heldout = read(train), read(held)
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(texts, vocab_size=PEER_VOCABULARY, special_tokens=["<eos>"])
    tokenizer.save(str(folder / "peer.json"))
    ids: list[int] = []
    for text in texts:
        ids += [0, *tokenizer.encode(text).ids]
    np.array(ids, dtype=np.uint16).tofile(folder / "peer.bin")
    wrapped = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "peer.json"), eos_token="<eos>", bos_token="<eos>"
    )
    wrapped.save_pretrained(folder / "peer-tokenizer")
    return {"tokens": folder / "peer.bin", "tokenizer": folder / "peer-tokenizer"}, heldout


def has_bf16() -> bool:
    """Says whether the processor multiplies 16-bit numbers."""
    from kogata.runtime.machine import machine_profile

    return bool(machine_profile().bf16_flops)


def run_peer(
    python: Path,
    folder: Path,
    files: dict[str, Path],
    texts: list[str],
    seconds: float,
    lr: float,
    seed: int,
    precision: str = "fp32",
) -> dict[str, Any]:
    """Trains the peer once and scores its folder."""
    out = folder / f"peer-{lr}-{seed}-{precision}"
    shape = PEER_SHAPE
    words = [str(files["tokens"]), str(PEER_VOCABULARY), str(out), str(seconds)]
    words += [str(shape[name]) for name in ("batch", "layers", "width", "heads")]
    words += [str(lr), str(seed), precision]
    row = common.run_peer(
        python, str(common.ROOT / "benchmarks" / "peers" / "hf_pretrain.py"), *words, cwd=folder
    )
    for path in files["tokenizer"].iterdir():
        (out / path.name).write_bytes(path.read_bytes())
    return {"lr": lr, "precision": precision, "seed": seed, **row, "bits_per_byte": score(out, texts)}


def run_ours(
    folder: Path, train: str, held: str, texts: list[str], seconds: float, seed: int
) -> dict[str, Any]:
    """Trains Kogata's default once, within the same seconds, and scores the exported folder."""
    name = f"ours-{seconds:.0f}-{seed}"
    path = common.recipe(
        folder,
        name,
        {
            "seed": seed,
            "stages": [
                {"data.read": {"path": train, "heldout": held}},
                {"tokenizer.train": {}},
                {"tokenizer.encode": {}},
                {"train.pretrain": {"time": f"{seconds}s"}},
                {"export": {"formats": ["hf"]}},
            ],
        },
    )
    common.kogata("run", str(path), cwd=folder)
    from kogata.runtime.ledger import read_receipts

    run = folder / "runs" / name
    receipt = next(item for item in read_receipts(run) if item.stage == "train.pretrain")
    assert receipt.cost is not None
    training = receipt.facts["training"]
    return {
        "seed": seed,
        "wall_seconds": receipt.cost.seconds,
        "steps": training["steps"],
        "tokens_per_second": training["tokens"] / (receipt.cost.seconds or 1.0),
        "precision": training["precision"],
        "parameters": receipt.facts["parameters"],
        "architecture": receipt.facts["architecture"],
        "bits_per_byte": score(run / "model", texts),
    }


def score(folder: Path, texts: list[str]) -> float:
    """Scores a Hugging Face folder with plain transformers: bits per byte at a window of 256."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from kogata.engine.evaluate import bits_per_byte, encode_documents, encoder

    model = AutoModelForCausalLM.from_pretrained(folder)
    end_id = AutoTokenizer.from_pretrained(folder).eos_token_id
    documents = encode_documents(encoder(folder), texts)
    return bits_per_byte(model, documents, end_id=end_id, window=256).value


def show(side: str, row: dict[str, Any]) -> None:
    """Says how a run went."""
    print(f"{side}: {row['bits_per_byte']:.4f} bits per byte in {row['wall_seconds']:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
