"""Fine-tuning SmolLM2-135M on GSM8K rows: LoRA against TRL with peft, every weight against HF Trainer.

Both sides train on the same token ids, mask, rank, rate and schedule, float32, rows of the same batches in
the same order (`plain`), the peer also in batches of like length (`grouped`) and, TRL, end to end in rows of
512 tokens (`packed`), which it may choose instead.
Tokens per second are of non-padding tokens, from the end of the first step to the end of the last: building,
loading and the first step's warming up are counted on neither side. Peak memory is the whole process's.
Held-out loss is computed by one code for both sides. Parts:

    lora    tokens per second, memory, losses: ours, TRL plain, grouped and packed
    full    the same for every weight: ours in 6 GiB, Trainer plain, Trainer grouped
    top     three epochs: the top third of the layers, whose inputs are kept, against all layers
    memory  LoRA within 1.2 GiB for the whole process
    kill    SIGKILL at a random moment, resumed: the same adapter, bit for bit?
    same    our adapter in peft, our merged model in transformers: the same logits?
    large   a random model of 1 billion weights within 5 GiB (only when asked for: needs 9 GB of disk)

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
from pathlib import Path
from typing import Any

import common

PARTS = ("lora", "full", "top", "memory", "kill", "same")
RANK, ALPHA, BATCH = 16, 32, 8
RATES = {"lora": 1e-3, "full": 1e-4}
HELDOUT = 8
SETTINGS = {"lora": ("plain", "grouped", "packed"), "full": ("plain", "grouped")}
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
    with common.empty_store() as folder:
        work = Work(folder, source, 32 if options.full else 16)
        result: dict[str, Any] = {"rows": source.name, "train_rows": work.count, "tokens": work.tokens}
        parts = options.part or (PARTS if options.full else ("lora", "kill", "same"))
        repeats = 3 if options.full else 1
        if "lora" in parts or "full" in parts:
            methods = [name for name in ("lora", "full") if name in parts]
            result |= versus(work, methods, repeats)
        for name, run in (
            ("top", top), ("memory", memory), ("kill", kill), ("same", same), ("large", large)
        ):  # fmt: skip
            if name in parts:
                result[name] = run(work)
                print(f"{name}: {json.dumps(brief(result[name]))}", file=sys.stderr)
    name = "finetune" if options.full else "finetune-quick"
    common.write_result("-".join([name, *(options.part or [])]), result)


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
            rows = [json.loads(line) for _, line in zip(range(count + HELDOUT), file, strict=False)]
        renamed = [{"prompt": row["question"], "completion": row["answer"]} for row in rows]
        for name, some in (("train", renamed[:count]), ("heldout", renamed[count:])):
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in some)
            (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
        path = common.recipe(folder, "read", {"stages": self.reading(heldout=str(folder / "heldout.jsonl"))})
        common.kogata("run", str(path), cwd=folder)
        made = {item.stage: Path(item.path or "") for item in receipts(folder / "runs" / "read")}
        self.model = made["model.read"]
        self._render(made["data.read"])

    def reading(self, heldout: Any = 0) -> list[dict[str, Any]]:
        """Gives the stages before training."""
        path = str(self.folder / "train.jsonl")
        read = {"path": path, "kind": "examples", "heldout": heldout}
        return [{"data.read": read}, {"model.read": {"name": "smollm2"}}]

    def _render(self, examples: Path) -> None:
        from kogata.engine.rendered import render_rows
        from kogata.engine.rows import RowSampler

        rendered = render_rows(examples, self.model, context=2048)
        rows, self.heldout = rendered.train, rendered.heldout
        assert len(rows) == self.count
        order = RowSampler(rows, batch=BATCH, micro=1024, seed=0).order(range(len(rows)))
        self.lengths: list[int] = []
        self.rows = self.folder / "rows.jsonl"
        with self.rows.open("w", encoding="utf-8") as file:
            for row in order:
                start, stop = int(rows.offsets[row]), int(rows.offsets[row + 1])
                ids = rows.ids[start:stop].tolist()
                self.lengths.append(len(ids))
                counts = rows.weights[start - row : stop - row - 1].tolist()
                labels = [-100, *(one if count else -100 for one, count in zip(ids[1:], counts, strict=True))]
                file.write(json.dumps({"input_ids": ids, "labels": labels}) + "\n")
        self.tokens = sum(self.lengths)
        self.ids = [rows.ids[int(rows.offsets[row]) : int(rows.offsets[row]) + 96].tolist() for row in (0, 1)]

    def train(self, name: str, budget: dict[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
        """Fine-tunes once with Kogata; gives what it took and where the result lies."""
        stages = [*self.reading(), {"train.finetune": {"batch": BATCH, "warmup": 0, **settings}}]
        parts = {"seed": 0, "stages": stages} | ({"budget": budget} if budget else {})
        path = common.recipe(self.folder, name, parts)
        common.kogata("run", str(path), "--fresh", "train.finetune", cwd=self.folder)
        run = self.folder / "runs" / name
        receipt = next(item for item in receipts(run) if item.stage == "train.finetune")
        from kogata.runtime.folder import read_metrics

        rows = read_metrics(run)
        assert receipt.cost is not None and receipt.forecast is not None
        tokens = [row["tokens"] for row in rows]
        step_tokens = [after - before for before, after in zip([0, *tokens], tokens, strict=False)]
        return {
            "step_ends": [row["seconds"] for row in rows],
            "step_tokens": step_tokens,
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


def receipts(run: Path) -> list[Any]:
    """Reads a run's receipts."""
    from kogata.runtime.ledger import read_receipts

    return read_receipts(run)


def rate(row: dict[str, Any], first: int = 1, last: int | None = None) -> float:
    """Gives tokens per second of the steps from `first` (counted from 0) to before `last`."""
    ends, tokens = row["step_ends"][:last], row["step_tokens"][:last]
    return sum(tokens[first:]) / (ends[-1] - ends[first - 1])


def versus(work: Work, methods: list[str], repeats: int) -> dict[str, Any]:
    """Runs ours and the peers in turn, in another order every time."""
    python = common.environment("trl", PEER)
    found: dict[str, dict[str, list[dict[str, Any]]]] = {
        method: {"kogata": [], **{name: [] for name in SETTINGS[method]}} for method in methods
    }
    for repeat in range(repeats):
        for method in methods:
            sides = ["kogata", *SETTINGS[method]]
            if method == "full" and repeat:
                # Of every weight, the peer's slower setting is run once: it is no bar.
                sides = ["kogata", max(SETTINGS["full"], key=lambda name: rate(found["full"][name][0]))]
            for side in sides if repeat % 2 == 0 else sides[::-1]:
                row = one(work, method, side, repeat, python)
                found[method][side].append(row)
                said = f"{row['tokens_per_second']:.1f} tokens/s, {row['peak_bytes'] / 2**30:.2f} GiB"
                print(f"{method} {side}: {said}, held-out {row['heldout_loss']:.4f}", file=sys.stderr)
    result: dict[str, Any] = {}
    for method, sides in found.items():
        speeds = {side: [row["tokens_per_second"] for row in rows] for side, rows in sides.items()}
        middle = {side: statistics.median(rows) for side, rows in speeds.items()}
        best = max(SETTINGS[method], key=lambda name: middle[name])
        peaks = {side: statistics.median(row["peak_bytes"] for row in rows) for side, rows in sides.items()}
        result[method] = {
            "arms": sides,
            "best_setting": best,
            "speed_over_plain": middle["kogata"] / middle["plain"],
            "speed_over_best": middle["kogata"] / middle[best],
            "memory_share_of_plain": peaks["kogata"] / peaks["plain"],
            "first_loss_gap": abs(sides["kogata"][0]["losses"][0] - sides["plain"][0]["losses"][0]),
        }
    return result


def one(work: Work, method: str, side: str, repeat: int, python: Path) -> dict[str, Any]:
    """Trains one side once and scores it."""
    name = f"{method}-{side}-{repeat}"
    if side == "kogata":
        chosen: Any = {"lora": {"rank": RANK, "alpha": ALPHA}} if method == "lora" else method
        budget = {"memory": "6GiB"} if method == "full" else None
        row = work.train(name, budget, method=chosen, lr=RATES[method], epochs=1)
        place = Path(row.pop("path"))
        # Of the same rows in the same order; what stands behind the last trained token is in neither count.
        starts = range(0, work.count, BATCH)
        row["step_tokens"] = [sum(work.lengths[start : start + BATCH]) for start in starts]
    else:
        place = work.folder / name
        script = str(common.ROOT / "benchmarks" / "peers" / "hf_finetune.py")
        words = [method, side, str(work.model), str(work.rows), str(place), str(RATES[method]), "1"]
        words.append(str(BATCH))
        row = common.run_peer(python, script, *words, cwd=work.folder)
    return {**row, "tokens_per_second": rate(row), "heldout_loss": work.score(place)}


def top(work: Work) -> dict[str, Any]:
    """Three epochs with the top third of the layers, and with all of them."""
    found: dict[str, Any] = {}
    steps = -(-work.count // BATCH)
    for name, layers in (("third", "third"), ("all", "all")):
        method = {"lora": {"rank": RANK, "alpha": ALPHA, "top": layers}}
        row = work.train(f"top-{name}", method=method, lr=RATES["lora"], epochs=3)
        row["heldout_loss"] = work.score(Path(row.pop("path")))
        row["later_tokens_per_second"] = rate(row, first=steps)
        row["tokens_per_second"] = rate(row)
        found[name] = row
    found["loss_ratio"] = found["third"]["heldout_loss"] / found["all"]["heldout_loss"]
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
    stages += [{"model.read": {"name": "smollm2"}}]
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
