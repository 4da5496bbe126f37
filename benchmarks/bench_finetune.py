"""Fine-tuning SmolLM2-135M on GSM8K rows: LoRA against TRL with peft, every weight against HF Trainer.

Both sides train on the same token ids, mask, rank and rate, which stays the same throughout, in float32, with
the same batches in the same order (`plain`), the peer also in batches of like length (`grouped`) and, TRL,
end to end in rows of 512 tokens (`packed`), which it may choose instead. The rows are batches of like length
out of a pool of 400, so that `grouped` pads as little as it does on a whole data set.
Tokens per second are of non-padding tokens, from the end of the first step to the end of the last: building,
loading and the first step's warming up are counted on neither side. Peak memory is the whole process's.
Held-out loss is computed by one code for both sides. Parts:

    lora    tokens per second, memory, losses: ours, TRL plain, grouped and packed
    full    the same for every weight: ours in 6 GiB, Trainer plain, Trainer grouped
    top     three epochs: the top third of the layers, whose inputs are kept; all layers; TRL plain
    memory  LoRA within 1.2 GiB for the whole process
    kill    SIGKILL at a random moment, resumed: the same adapter, bit for bit?
    same    our adapter in peft, our merged model in transformers: the same logits?
    bf16    both methods with products in bf16, the peers under autocast (only where a processor has such)
    large   a random model of 1 billion weights within 5 GiB (only when asked for: needs 9 GB of disk)

Parts run at different times are kept side by side in the result: each has its date and commit.

    python benchmarks/bench_finetune.py --full [--part lora] [--rows FILE.jsonl.gz]
"""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import common

PARTS = ("lora", "full", "top", "memory", "kill", "same", "bf16")
MODEL = "smollm2"
RANK, ALPHA, BATCH = 16, 32, 8
RATES = {"lora": 1e-3, "full": 1e-4}
POOL, HELDOUT = 400, 24
SETTINGS = {"lora": ("plain", "grouped", "packed"), "full": ("plain", "grouped")}
OURS = {"kogata": "fp32", "kogata_bf16": "bf16"}
"""Our sides, and the format of their products."""
PEER = ["torch==2.13.0", "transformers==5.23.0", "accelerate", "numpy"]
PEER += ["peft==0.21.2", "trl==1.16.0", "datasets==5.2.0"]


def main() -> None:
    """Runs the parts and writes finetune.json."""
    options = common.arguments(
        __doc__ or "",
        ("--part", {"action": "append", "choices": [*PARTS, "large"], "help": "only this part; repeatable"}),
        ("--rows", {"help": "JSON lines with question and answer, gzipped"}),
    )
    source = rows_file(options.rows)
    name = "finetune" if options.full else "finetune-quick"
    with common.empty_store() as folder:
        work = Work(folder, source, 48 if options.full else 16)
        result = earlier(name)
        about = {"rows": source.name, "train_rows": work.count, "tokens": work.tokens}
        parts = options.part or (PARTS if options.full else ("lora", "kill", "same"))
        repeats = 3 if options.full else 1

        def keep(part: str, found: dict[str, Any]) -> None:
            result[part] = {"date": common.now(), "commit": common.commit(), **about, **found}
            common.write_result(name, result)
            print(f"{part}: {json.dumps(brief(found))}", file=sys.stderr)

        methods = [part for part in ("lora", "full") if part in parts]
        for method, found in versus(work, methods, repeats):
            keep(method, found)
        for part, run in (
            ("top", top), ("memory", memory), ("kill", kill), ("same", same), ("large", large)
        ):  # fmt: skip
            if part in parts:
                keep(part, run(work))
        if "bf16" in parts:
            keep("bf16", bf16(work, result))


def earlier(name: str) -> dict[str, Any]:
    """Gives the parts that an earlier call wrote."""
    path = common.RESULTS / f"{name}.json"
    held = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return {part: held[part] for part in (*PARTS, "large") if part in held}


def rows_file(given: str | None) -> Path:
    """Finds the rows."""
    corpus = common.corpus_folder(None)
    places = [Path(given)] if given else []
    places += [corpus.parent / "finetune" / "gsm8k" / "train.jsonl.gz"] if corpus else []
    for place in places:
        if place.is_file():
            return place
    raise SystemExit("no rows: --rows FILE.jsonl.gz (GSM8K's training file, gzipped)")


class Work:
    """Rows, model and token ids that all parts share.

    Args:
        folder: an empty one.
        source: the rows, JSON lines with question and answer.
        count: rows that are trained on.
    """

    def __init__(self, folder: Path, source: Path, count: int) -> None:
        self.folder, self.count = folder, count
        with gzip.open(source, "rt", encoding="utf-8") as file:
            rows = [json.loads(line) for _, line in zip(range(POOL + HELDOUT), file, strict=False)]
        renamed = [{"prompt": row["question"], "completion": row["answer"]} for row in rows]
        pool, heldout = renamed[:POOL], renamed[POOL:]
        self._write("heldout", heldout)
        self._write("train", pool)
        self._write("train", alike(pool, self._read("pool").train, count))
        rendered = self._read("read")
        self.heldout = rendered.heldout
        self._order(rendered.train)

    def _write(self, name: str, rows: list[dict[str, str]]) -> None:
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (self.folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")

    def _read(self, name: str) -> Any:
        """Renders the rows as they lie now; every one must be there."""
        from kogata.engine.rendered import render_rows

        stages = self.reading(heldout=str(self.folder / "heldout.jsonl"))
        path = common.recipe(self.folder, name, {"stages": stages})
        common.kogata("run", str(path), cwd=self.folder)
        made = {item.stage: Path(item.path or "") for item in receipts(self.folder / "runs" / name)}
        self.model = made["model.read"]
        rendered = render_rows(made["data.read"], self.model, context=2048)
        assert len(rendered.train) == (POOL if name == "pool" else self.count)
        return rendered

    def reading(self, heldout: Any = 0) -> list[dict[str, Any]]:
        """Gives the stages before training."""
        path = str(self.folder / "train.jsonl")
        read = {"path": path, "kind": "examples", "heldout": heldout}
        return [{"data.read": read}, {"model.read": {"name": MODEL}}]

    def _order(self, rows: Any) -> None:
        """Writes the rows as the peers take them: in our order, and in batches of like length."""
        from kogata.engine.rows import RowSampler

        sampler = RowSampler(rows, batch=BATCH, micro=1024, seed=0)
        self._lengths = [int(rows.offsets[row + 1] - rows.offsets[row]) for row in range(len(rows))]
        self._taken = sampler.order
        self.tokens = sum(self._lengths)
        by_length = sorted(range(len(rows)), key=self._lengths.__getitem__)
        batches = [by_length[start : start + BATCH] for start in range(0, len(rows), BATCH)]
        random.Random(0).shuffle(batches)
        orders = {
            "plain": sampler.order(range(len(rows))),
            "grouped": [row for some in batches for row in some],
        }
        for name, order in orders.items():
            with (self.folder / f"{name}.jsonl").open("w", encoding="utf-8") as file:
                for row in order:
                    file.write(json.dumps(labelled(rows, row)) + "\n")
        self.ids = [rows.ids[int(rows.offsets[row]) : int(rows.offsets[row]) + 96].tolist() for row in (0, 1)]

    def step_tokens(self, steps: int) -> list[int]:
        """Counts the tokens of each step, on each side up to a row's last trained one."""
        taken = self._taken(range(steps * BATCH))
        return [
            sum(self._lengths[row] for row in taken[at * BATCH : (at + 1) * BATCH]) for at in range(steps)
        ]

    def train(self, name: str, budget: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
        """Fine-tunes once with Kogata; gives what it took and where the result lies."""
        chosen = {"batch": BATCH, "warmup": 0, "precision": "fp32", **settings}
        stages = [*self.reading(), {"train.finetune": chosen}]
        parts = {"seed": 0, "stages": stages} | ({"budget": budget} if budget else {})
        path = common.recipe(self.folder, name, parts)
        common.kogata("run", str(path), "--fresh", "train.finetune", cwd=self.folder)
        run = self.folder / "runs" / name
        receipt = next(item for item in receipts(run) if item.stage == "train.finetune")
        from kogata.runtime.folder import read_metrics

        rows = read_metrics(run)
        assert receipt.cost is not None and receipt.forecast is not None
        return {
            "step_ends": [row["seconds"] for row in rows],
            "step_tokens": self.step_tokens(len(rows)),
            "losses": [row["loss"] for row in rows],
            "peak_bytes": max(item.cost.peak_bytes or 0 for item in receipts(run) if item.cost),
            "stage_peak_bytes": receipt.cost.peak_bytes,
            "stage_seconds": receipt.cost.seconds,
            "forecast_seconds": receipt.forecast.seconds,
            "forecast_peak_bytes": receipt.forecast.peak_bytes,
            "hold": receipt.facts["training"]["hold"],
            "path": str(receipt.path),
        }

    def score(self, place: Path) -> float:
        """Computes the loss of the held-out answers, of a model or of the base with an adapter."""
        from kogata.engine.adapters import is_adapter, merge, put_on
        from kogata.engine.convert import load_decoder
        from kogata.engine.looks import heldout_loss, look_rows
        from kogata.nn.kernels import Kernels
        from kogata.nn.packed import PackedHidden

        adapter = is_adapter(place)
        decoder = load_decoder(self.model if adapter else place)
        if adapter:
            merge(put_on(decoder, place))
        packed = PackedHidden(decoder, Kernels.build())
        return heldout_loss(packed, self.heldout, look_rows(self.heldout, 10**9))


def alike(pool: list[dict[str, str]], rows: Any, count: int) -> list[dict[str, str]]:
    """Takes batches of like length, from short to long evenly, and mixes their rows."""
    by_length = sorted(range(len(pool)), key=lambda row: int(rows.offsets[row + 1] - rows.offsets[row]))
    whole, wanted = len(pool) // BATCH, count // BATCH
    starts = [int((number + 0.5) * whole / wanted) * BATCH for number in range(wanted)]
    found = [row for start in starts for row in by_length[start : start + BATCH]]
    random.Random(0).shuffle(found)
    return [pool[row] for row in found]


def labelled(rows: Any, row: int) -> dict[str, list[int]]:
    """Gives a row as token ids and labels."""
    start, stop = int(rows.offsets[row]), int(rows.offsets[row + 1])
    ids = rows.ids[start:stop].tolist()
    counts = rows.weights[start - row : stop - row - 1].tolist()
    labels = [-100, *(one if count else -100 for one, count in zip(ids[1:], counts, strict=True))]
    return {"input_ids": ids, "labels": labels}


def receipts(run: Path) -> list[Any]:
    """Reads a run's receipts."""
    from kogata.runtime.ledger import read_receipts

    return read_receipts(run)


def rate(row: dict[str, Any], first: int = 1, last: int | None = None) -> float:
    """Gives tokens per second of the steps from `first` (counted from 0) to before `last`."""
    ends, tokens = row["step_ends"][:last], row["step_tokens"][:last]
    return sum(tokens[first:]) / (ends[-1] - ends[first - 1])


def versus(work: Work, methods: list[str], repeats: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Runs ours and the peers in turn, in another order every time; gives what is known after each turn."""
    arms: dict[str, dict[str, list[dict[str, Any]]]] = {
        method: {"kogata": [], **{name: [] for name in SETTINGS[method]}} for method in methods
    }
    for repeat in range(repeats):
        for method in methods:
            sides = ["kogata", *SETTINGS[method]]
            if method == "full" and repeat:
                # Of every weight, the peer's slower setting is run once: it is no bar.
                sides = ["kogata", max(SETTINGS["full"], key=lambda name: rate(arms["full"][name][0]))]
            for side in sides if repeat % 2 == 0 else sides[::-1]:
                row = one(work, method, side, repeat)
                arms[method][side].append(row)
                said = f"{row['tokens_per_second']:.1f} tokens/s, {row['peak_bytes'] / 2**30:.2f} GiB"
                print(f"{method} {side}: {said}, held-out {row['heldout_loss']:.4f}", file=sys.stderr)
            yield method, ratios(method, arms[method])


def ratios(method: str, sides: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Sets the medians of the sides against each other."""
    middle = {
        side: statistics.median(row["tokens_per_second"] for row in rows) for side, rows in sides.items()
    }
    peaks = {side: statistics.median(row["peak_bytes"] for row in rows) for side, rows in sides.items()}
    best = max(SETTINGS[method], key=lambda name: middle[name])
    ours, plain = sides["kogata"][0]["losses"], sides["plain"][0]["losses"]
    return {
        "arms": sides,
        "best_setting": best,
        "speed_over_plain": middle["kogata"] / middle["plain"],
        "speed_over_best": middle["kogata"] / middle[best],
        "memory_share_of_plain": peaks["kogata"] / peaks["plain"],
        "first_loss_gap": abs(ours[0] - plain[0]),
        "curve_gap": max(abs(a - b) for a, b in zip(ours, plain, strict=True)),
    }


def one(work: Work, method: str, side: str, repeat: int) -> dict[str, Any]:
    """Trains one side once and scores it."""
    name = f"{method}-{side}-{repeat}"
    if side in OURS:
        chosen: Any = {"lora": {"rank": RANK, "alpha": ALPHA}} if method == "lora" else method
        budget = {"memory": "6GiB"} if method == "full" else None
        more = {"method": chosen, "lr": RATES[method], "decay": 0, "epochs": 1, "precision": OURS[side]}
        row = work.train(name, budget, **more)
        place = Path(row.pop("path"))
    else:
        place = work.folder / name
        script = str(common.ROOT / "benchmarks" / "peers" / "hf_finetune.py")
        rows = work.folder / ("grouped.jsonl" if side.startswith("grouped") else "plain.jsonl")
        words = [method, side, str(work.model), str(rows), str(place), str(RATES[method]), "1", str(BATCH)]
        row = common.run_peer(common.environment("trl", PEER), script, *words, cwd=work.folder)
    return {**row, "tokens_per_second": rate(row), "heldout_loss": work.score(place)}


def bf16(work: Work, before: dict[str, Any]) -> dict[str, Any]:
    """Both methods with products in bf16, the peers' under autocast, and the peers' best in float32, in turn.

    What counts is ours, as it comes on such a processor, over the quickest of all the peer's settings.
    """
    from kogata.runtime.machine import machine_profile

    if not machine_profile().bf16_flops:
        return {"left_out": "this processor has no fast 16-bit products"}
    return {method: halves(work, method, before.get(method, {})) for method in ("lora", "full")}


def halves(work: Work, method: str, before: dict[str, Any]) -> dict[str, Any]:
    """Runs ours and every setting of the peer once, then ours and the peer's quickest once more."""
    peers = [f"{name}_bf16" for name in SETTINGS[method]] + [before.get("best_setting", "grouped")]
    arms: dict[str, list[dict[str, Any]]] = {name: [] for name in ("kogata_bf16", *peers)}
    for turn, names in enumerate((list(arms), None)):
        best = max(peers, key=lambda name: speed_of(arms[name])) if names is None else ""
        for side in names or [best, "kogata_bf16"]:
            arms[side].append(one(work, method, side, 20 + turn))
            row = arms[side][-1]
            said = f"{row['tokens_per_second']:.1f} tokens/s, {row['peak_bytes'] / 2**30:.2f} GiB"
            print(f"{method} {side}: {said}, held-out {row['heldout_loss']:.4f}", file=sys.stderr)
    best = max(peers, key=lambda name: speed_of(arms[name]))
    peaks = {side: statistics.mean(row["peak_bytes"] for row in rows) for side, rows in arms.items()}
    return {
        "arms": arms,
        "best_setting": best,
        "speed_over_best": speed_of(arms["kogata_bf16"]) / speed_of(arms[best]),
        "speed_over_plain": speed_of(arms["kogata_bf16"]) / speed_of(arms["plain_bf16"]),
        "memory_share_of_plain": peaks["kogata_bf16"] / peaks["plain_bf16"],
        "heldout_loss": {side: rows[0]["heldout_loss"] for side, rows in arms.items()},
    }


def speed_of(rows: list[dict[str, Any]]) -> float:
    """Gives the mean tokens per second."""
    return statistics.mean(row["tokens_per_second"] for row in rows)


def top(work: Work) -> dict[str, Any]:
    """Three epochs with the top third of the layers, and with all of them; one of TRL's beside, plain."""
    plain = one(work, "lora", "plain", 9)
    found: dict[str, Any] = {"plain": plain}
    steps = -(-work.count // BATCH)
    for name, layers in (("third", "third"), ("all", "all")):
        method = {"lora": {"rank": RANK, "alpha": ALPHA, "top": layers}}
        row = work.train(f"top-{name}", method=method, lr=RATES["lora"], epochs=3)
        row["heldout_loss"] = work.score(Path(row.pop("path")))
        row["later_tokens_per_second"] = rate(row, first=steps)
        row["tokens_per_second"] = rate(row)
        found[name] = row
    third, theirs = found["third"], plain["tokens_per_second"]
    found["later_over_plain"] = third["later_tokens_per_second"] / theirs
    found["whole_over_plain"] = third["tokens_per_second"] / theirs
    found["loss_ratio"] = third["heldout_loss"] / found["all"]["heldout_loss"]
    return found


def memory(work: Work) -> dict[str, Any]:
    """LoRA within 1.2 GiB for everything that the run starts, reading the model included."""
    with common.empty_store():
        budget = {"memory": "1.2GiB"}
        row = work.train("small", budget, method={"lora": {"rank": RANK}}, lr=RATES["lora"], epochs=1)
        row["heldout_loss"] = work.score(Path(row.pop("path")))
    row["tokens_per_second"] = rate(row)
    return row | {"budget_bytes": round(1.2 * 2**30), "fits": row["peak_bytes"] <= 1.2 * 2**30}


def kill(work: Work) -> dict[str, Any]:
    """Kills a run at a random moment of its training and starts it again; each arm has a store of its own."""
    from kogata.core.artifact import sha256_of

    chance = random.Random(20261124)
    few = work.folder / "few.jsonl"
    lines = (work.folder / "train.jsonl").read_text(encoding="utf-8").splitlines(True)
    few.write_text("".join(lines[:8]), encoding="utf-8")
    stages = [{"data.read": {"path": str(few), "kind": "examples", "heldout": 0.2}}]
    stages += [{"model.read": {"name": MODEL}}]
    method = {"lora": {"rank": RANK, "top": "third"}}
    stages += [{"train.finetune": {"batch": 2, "epochs": 2, "checkpoint_every": 1, "method": method}}]
    digests, starts, seconds, moment = [], [], 0.0, None
    for name in ("whole", "killed"):
        with common.empty_store() as folder:
            path = common.recipe(folder, name, {"seed": 0, "stages": stages})
            start = time.perf_counter()
            starts.append(until_done(path, folder, moment))
            seconds = time.perf_counter() - start
            made = next(r for r in receipts(folder / "runs" / name) if r.stage == "train.finetune")
            digests.append(sha256_of(Path(made.path or "") / "adapter_model.safetensors"))
        moment = moment or chance.uniform(0.6, 0.9) * seconds
    identical = digests[0] == digests[1]
    return {"identical": identical, "starts": starts, "killed_at_seconds": moment, "digests": digests}


def until_done(recipe: Path, folder: Path, moment: float | None) -> int:
    """Runs a recipe, killed once when a moment is given; gives how often it was started."""
    words = [sys.executable, "-m", "kogata.cli", "run", str(recipe), "--json"]
    for starts in (1, 2):
        process = subprocess.Popen(
            words, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
        )
        try:
            _, errors = process.communicate(timeout=moment if moment and starts == 1 else 600)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            continue
        if process.returncode:
            raise SystemExit(errors.decode()[-3000:])
        return starts
    raise SystemExit("a run that was killed and resumed did not end")


def same(work: Work) -> dict[str, Any]:
    """Compares logits: our decoder, peft with our adapter, transformers with our merged model."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from kogata.engine.adapters import merged_folder, put_on
    from kogata.engine.convert import load_decoder

    row = work.train("same", method={"lora": {"rank": RANK}}, lr=RATES["lora"], steps=2)
    adapter = Path(row["path"])
    merged = work.folder / "merged"
    merged_folder(work.model, adapter, merged)
    ids = torch.tensor([line[: min(map(len, work.ids))] for line in work.ids])

    def theirs(place: Path) -> Any:
        return AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32).eval()

    with torch.no_grad():
        ours = put_on(load_decoder(work.model), adapter)(ids)
        base = theirs(work.model)(ids).logits
        loaded = PeftModel.from_pretrained(theirs(work.model), adapter).eval()(ids).logits
        plain = theirs(merged)(ids).logits
    size = float(ours.abs().max())
    return {
        "changed": float((base - ours).abs().max()) / size,
        "peft_gap": float((loaded - ours).abs().max()) / size,
        "merged_gap": float((plain - ours).abs().max()) / size,
        "logits_size": size,
    }


def large(work: Work) -> dict[str, Any]:
    """A few steps of a random model of a billion weights within 5 GiB."""
    from kogata.engine.convert import save_decoder
    from kogata.nn.decoder import Decoder
    from kogata.nn.spec import ModelSpec

    sizes = {"vocab_size": 49152, "layers": 20, "width": 2048, "heads": 32, "kv_heads": 8, "ffn_width": 5504}
    spec = ModelSpec.of_family("llama", **sizes, tied=True, norm_eps=1e-5, context=2048)
    place = work.folder / "large"
    save_decoder(Decoder(spec, seed=0), place, tokenizer_files_from=work.model)
    stages = [work.reading()[0], {"model.read": {"name": str(place)}}]
    stages += [{"train.finetune": {"lr": 1e-3, "batch": 2, "steps": 4, "warmup": 0}}]
    parts = {"seed": 0, "budget": {"memory": "5GiB"}, "stages": stages}
    path = common.recipe(work.folder, "billion", parts)
    common.kogata("run", str(path), cwd=work.folder)
    run = work.folder / "runs" / "billion"
    from kogata.runtime.folder import read_metrics

    return {
        "parameters": spec.parameters(),
        "losses": [row["loss"] for row in read_metrics(run)],
        "peak_bytes": {item.stage: item.cost.peak_bytes for item in receipts(run) if item.cost},
        "hold": receipts(run)[-1].facts["training"]["hold"],
    }


def brief(found: dict[str, Any]) -> dict[str, Any]:
    """Leaves out what is long."""
    return {name: value for name, value in found.items() if not isinstance(value, (dict, list))}


if __name__ == "__main__":
    main()
