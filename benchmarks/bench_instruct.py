"""Instruction rows with planted noise: what the default selection finds, and what training on the rest takes.

Of 2,000 rows of a public mixture of instruction sets (p3-mix: prompt and response) a quarter is noise, in
three equal parts: answers swapped with one another, answers of 20 characters and more cut off somewhere
between a fifth and four fifths, and copies of other rows, half of them with one word of the prompt changed.
Which row is which is known to this script alone. Parts:

    noise   rows of any length: caught are planted rows that are ruled out, alarms are others that are
    train   rows with prompts up to 250 characters: SmolLM2-135M on the whole noisy set, and on what the
            default selection leaves of it, one pass each, same settings, rate and seed; how many rows a step
            has is left to the stage, which takes fewer where there are fewer. Seconds are those of choosing
            and training; loss is of the answers of clean rows set apart, by one code for all arms.
            `--control` adds an arm: as much by chance.

    python benchmarks/bench_instruct.py --full [--part noise|train] [--rows FOLDER] [--control]
"""

from __future__ import annotations

import gzip
import json
import random
import statistics
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import common

ROWS, NOISE = 2_000, 0.25
SHORTEST_CUT = 20
"""Characters of an answer that is cut off, before it is."""
MOST_PROMPT = 250
"""Characters of a prompt in training: so that three seeds end within 20 minutes."""
HELDOUT = 200
QUICK_ROWS, QUICK_HELDOUT = 1_000, 50
METHOD = {"lora": {"rank": 16, "alpha": 32, "top": "third"}}
RATE = 1e-3
TIMED = ("data.select", "train.finetune")
ARMS: dict[str, dict[str, Any] | None] = {"whole": None, "selected": {}}


def main() -> None:
    """Runs the parts and writes instruct.json."""
    options = common.arguments(
        __doc__ or "",
        ("--part", {"choices": ["noise", "train"], "help": "only this part"}),
        ("--rows", {"help": "folder with train.jsonl.gz and val.jsonl.gz (instruction, response)"}),
        ("--seeds", {"type": int, "help": "how many; for --full 5 of noise and 3 of training, else 1"}),
        ("--control", {"action": "store_true", "help": "train on as much by chance, too"}),
    )
    source = rows_folder(options.rows)
    if source is None:
        return
    full = options.full
    result: dict[str, Any] = {"rows": ROWS, "noise_share": NOISE}
    if options.part != "train":
        count = options.seeds or (5 if full else 1)
        result["noise"] = noise(read_rows(source / "train.jsonl.gz"), list(range(count)))
    if options.part != "noise":
        count = options.seeds or (3 if full else 1)
        rows = [read_rows(source / f"{name}.jsonl.gz", MOST_PROMPT) for name in ("train", "val")]
        sizes = (ROWS, HELDOUT) if full else (QUICK_ROWS, QUICK_HELDOUT)
        arms: dict[str, dict[str, Any] | None] = dict(ARMS)
        if options.control:
            arms["chance"] = {"method": "random"}
        result["train"] = train(rows[0], rows[1], sizes, list(range(count)), arms)
    name = "instruct" if full else "instruct-quick"
    common.write_result("-".join([name, *([options.part] if options.part else [])]), result)


def rows_folder(given: str | None) -> Path | None:
    """Finds the rows; says so and gives None where there are none."""
    data = None if given else common.data_folder(None)
    place = Path(given) if given else data and data / "finetune" / "p3-mix"
    if place and (place / "train.jsonl.gz").is_file() and (place / "val.jsonl.gz").is_file():
        return place
    print("no rows, nothing measured: --rows FOLDER with train.jsonl.gz and val.jsonl.gz", file=sys.stderr)
    return None


def read_rows(path: Path, most: int | None = None) -> list[dict[str, str]]:
    """Reads the rows whose prompt has at most so many characters."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    made = [{"prompt": row["instruction"], "completion": row["response"]} for row in rows]
    return [row for row in made if most is None or len(row["prompt"]) <= most]


def planted(rows: list[dict[str, str]], count: int, seed: int) -> tuple[list[dict[str, str]], list[str]]:
    """Draws rows and damages a quarter of them.

    Returns:
        the rows, copies behind what they are copies of, and what each is: clean, swapped, cut or copy.
    """
    chance = random.Random(seed)
    each = round(count * NOISE / 3)
    made = [dict(row) for row in chance.sample(rows, count - each)]
    kinds = ["clean"] * len(made)
    order = list(range(len(made)))
    chance.shuffle(order)
    for at in [at for at in order if len(made[at]["completion"]) >= SHORTEST_CUT][:each]:
        answer = made[at]["completion"]
        end = chance.randrange(len(answer) // 5, 4 * len(answer) // 5 + 1)
        made[at]["completion"], kinds[at] = answer[: max(3, end)].rstrip(), "cut"
    swapped = [at for at in order if kinds[at] == "clean"][:each]
    answers = [made[at]["completion"] for at in swapped]
    for place, at in enumerate(swapped):
        others = (answers[(place + step) % len(answers)] for step in range(1, len(answers)))
        made[at]["completion"] = next(answer for answer in others if answer != answers[place])
        kinds[at] = "swapped"
    copied = [at for at in order if kinds[at] == "clean"][:each]
    behind: dict[int, list[dict[str, str]]] = {}
    for number, at in enumerate(copied):
        row = dict(made[at])
        if number % 2:
            words = row["prompt"].split(" ")
            place = chance.randrange(len(words))
            words[place] += chance.choice([".", ",", " the", " "])
            row["prompt"] = " ".join(words)
        behind.setdefault(chance.randrange(at, len(made)), []).append(row)
    found: list[tuple[dict[str, str], str]] = []
    for at, row in enumerate(made):
        found += [(row, kinds[at]), *((copy, "copy") for copy in behind.get(at, []))]
    return [row for row, _ in found], [kind for _, kind in found]


def write(rows: list[dict[str, str]], path: Path) -> str:
    """Writes JSON lines; gives the path."""
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(lines, encoding="utf-8")
    return str(path)


def noise(rows: list[dict[str, str]], seeds: list[int]) -> dict[str, Any]:
    """Counts, for every seed, what the default selection rules out of each kind."""
    found = []
    with common.empty_store() as folder:
        for seed in seeds:
            made, kinds = planted(rows, ROWS, seed)
            read = {"path": write(made, folder / f"noisy-{seed}.jsonl"), "kind": "examples", "heldout": 0}
            stages = [{"data.read": read}, {"data.select": {}}]
            path = common.recipe(folder, f"noise-{seed}", {"seed": seed, "stages": stages})
            common.kogata("run", str(path), cwd=folder)
            receipts = receipts_of(folder / "runs" / path.stem)
            row = {"seed": seed, **judged(chosen(receipts), kinds)}
            row["select_seconds"] = common.stage_seconds(receipts, "data.select")
            print(f"noise, seed {seed}: {row}", file=sys.stderr)
            found.append(row)
    middle = {name: statistics.median(row[name] for row in found) for name in ("caught", "alarms")}
    return {"seeds": found, **middle, "reached": middle["caught"] >= 0.8 and middle["alarms"] <= 0.1}


def receipts_of(run: Path) -> list[Any]:
    """Reads a run's receipts."""
    from kogata.runtime.ledger import read_receipts

    return read_receipts(run)


def chosen(receipts: list[Any]) -> list[dict[str, Any]]:
    """Reads what data.select wrote of every row, in order."""
    import zstandard

    place = next(Path(receipt.path or "") for receipt in receipts if receipt.stage == "data.select")
    with zstandard.open(place / "scores.jsonl.zst", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def judged(rows: list[dict[str, Any]], kinds: list[str]) -> dict[str, Any]:
    """Gives the share of planted noise and of other rows that were ruled out, by kind and reason too."""
    if len(rows) != len(kinds):
        raise SystemExit(f"{len(rows)} rows were read, {len(kinds)} were written")
    out = [row["score"] is None for row in rows]
    of_kind = Counter(kinds)
    gone = Counter(kind for kind, is_out in zip(kinds, out, strict=True) if is_out)
    reasons = Counter(
        f"{kind}: {row['reason'].partition(':')[0]}"
        for kind, row in zip(kinds, rows, strict=True)
        if row.get("reason")
    )
    bad = sum(gone[kind] for kind in gone if kind != "clean")
    return {
        "caught": bad / sum(count for kind, count in of_kind.items() if kind != "clean"),
        "alarms": gone["clean"] / of_kind["clean"],
        "by_kind": {kind: gone[kind] / count for kind, count in sorted(of_kind.items())},
        "reasons": dict(sorted(reasons.items())),
        "kept_rows": sum(row["kept"] for row in rows),
    }


def train(
    rows: list[dict[str, str]],
    clean: list[dict[str, str]],
    sizes: tuple[int, int],
    seeds: list[int],
    arms: dict[str, dict[str, Any] | None],
) -> dict[str, Any]:
    """Trains every arm with every seed, in turn, the order changing, and gives raw values and ratios."""
    count, heldout = sizes
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in arms}
    with common.empty_store() as folder:
        write(random.Random(1).sample(clean, heldout), folder / "heldout.jsonl")
        scorer = Scorer(folder, write(rows[:2], folder / "two.jsonl"))
        base = scorer.score(None)
        for seed in seeds:
            made, kinds = planted(rows, count, seed)
            write(made, folder / f"noisy-{seed}.jsonl")
            for name in list(arms)[:: 1 if seed % 2 == 0 else -1]:
                row = run_arm(folder, name, arms[name], seed)
                adapter = Path(row.pop("path"))
                row |= {"heldout_loss": scorer.score(adapter), "seed": seed}
                if arms[name] is not None:
                    row |= judged(row.pop("chosen"), kinds)
                print(f"train, seed {seed}, {name}: {row}", file=sys.stderr)
                found[name].append(row)
    return {
        "rows": count,
        "heldout_rows": heldout,
        "most_prompt_characters": MOST_PROMPT,
        "method": METHOD,
        "rate": RATE,
        "base_heldout_loss": base,
        "arms": found,
        "verdict": {name: against(found[name], found["whole"]) for name in arms if name != "whole"},
    }


def against(arm: list[dict[str, Any]], whole: list[dict[str, Any]]) -> dict[str, Any]:
    """Compares an arm with the noisy whole, seed by seed."""
    from kogata.core.statistics import paired

    gap = paired([row["heldout_loss"] for row in arm], [row["heldout_loss"] for row in whole])
    share = statistics.median(a["seconds"] / w["seconds"] for a, w in zip(arm, whole, strict=True))
    return {
        "loss_gap": gap.to_dict(),
        "time_share": share,
        "reached": gap.mean <= 0 and share <= 0.5,
    }


def run_arm(folder: Path, name: str, select: dict[str, Any] | None, seed: int) -> dict[str, Any]:
    """Chooses, where the arm does, and trains."""
    read = {"path": str(folder / f"noisy-{seed}.jsonl"), "kind": "examples", "heldout": 0, "as": "rows"}
    stages: list[dict[str, Any]] = [{"data.read": read}, {"model.read": {"name": "smollm2"}}]
    examples = "rows"
    if select is not None:
        stages.append({"data.select": {"as": "chosen", "use": {"corpus": "rows"}, **select}})
        examples = "chosen"
    settings = {"method": METHOD, "lr": RATE, "epochs": 1, "use": {"examples": examples}}
    stages.append({"train.finetune": settings})
    path = common.recipe(folder, f"{name}-{seed}", {"seed": seed, "stages": stages})
    common.kogata("run", str(path), cwd=folder)
    receipts = receipts_of(folder / "runs" / path.stem)
    trained = next(receipt for receipt in receipts if receipt.stage == "train.finetune")
    row = {
        "seconds": common.stage_seconds(receipts, *TIMED),
        "select_seconds": common.stage_seconds(receipts, "data.select"),
        "tokens": trained.facts["training"]["tokens"],
        "steps": trained.facts["training"]["steps"],
        "path": str(trained.path),
    }
    return row if select is None else {**row, "chosen": chosen(receipts)}


class Scorer:
    """Computes the loss of the held-out answers.

    Args:
        folder: where `heldout.jsonl` lies.
        rows: a file of rows to train on, of which nothing is looked at.
    """

    def __init__(self, folder: Path, rows: str) -> None:
        from kogata.engine.rendered import render_rows

        read = {"path": rows, "kind": "examples", "heldout": str(folder / "heldout.jsonl")}
        stages = [{"data.read": read}, {"model.read": {"name": "smollm2"}}]
        path = common.recipe(folder, "score", {"stages": stages})
        common.kogata("run", str(path), cwd=folder)
        made = {item.stage: Path(item.path or "") for item in receipts_of(folder / "runs" / "score")}
        self.model = made["model.read"]
        self.heldout = render_rows(made["data.read"], self.model, context=1024).heldout

    def score(self, adapter: Path | None) -> float:
        """Gives nats per token of the answers, of the model with an adapter or alone."""
        from kogata.engine.adapters import merge, put_on
        from kogata.engine.convert import load_decoder
        from kogata.engine.looks import heldout_loss, look_rows
        from kogata.nn.kernels import Kernels
        from kogata.nn.packed import PackedHidden

        decoder = load_decoder(self.model)
        if adapter is not None:
            merge(put_on(decoder, adapter))
        packed = PackedHidden(decoder, Kernels.build())
        return heldout_loss(packed, self.heldout, look_rows(self.heldout, 10**9))


if __name__ == "__main__":
    main()
