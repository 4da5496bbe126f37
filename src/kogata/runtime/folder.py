"""A run's folder: chosen, frozen, kept up to date."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kogata.core.artifact import Artifact
from kogata.core.errors import ArtifactError, RecipeError
from kogata.core.receipt import Machine
from kogata.core.recipe import Plan, Recipe
from kogata.runtime.system import write_beside


@dataclass
class RunFolder:
    """`runs/NAME`: recipe.yaml, plan.json, receipts.jsonl, metrics.jsonl, report.html, exports."""

    path: Path
    run_id: str
    frozen: dict[str, Any] = field(default_factory=dict)
    """plan.json as an earlier invocation wrote it; empty at the first."""
    spent_seconds: float = 0.0
    """What invocations that were killed or stopped used of the time budget."""
    processes: int | None = None
    """How many share its training; None: as many as come."""

    @property
    def shares(self) -> dict[str, float]:
        return dict(self.frozen.get("shares", {}))

    @property
    def machine(self) -> Machine | None:
        parts = self.frozen.get("machine")
        return Machine.from_dict(parts) if parts else None

    def freeze(self, plan: Plan, shares: dict[str, float]) -> None:
        """Writes plan.json: the machine and the shares for good, the forecasts as they were first made."""
        if self.frozen:
            return
        self.frozen = {
            "id": self.run_id,
            "recipe": plan.recipe.to_dict(),
            "machine": plan.machine.to_dict(),
            "shares": shares,
            "steps": plan_rows(plan),
            "total": plan.total.to_dict(),
            "disk_bytes": plan.disk_bytes,
            "verdict": plan.verdict,
            "source": plan.recipe.source,
        }
        write_beside(self.path / "plan.json", _json(self.frozen))

    def beat(self, status: str, spent_seconds: float, invocation: str) -> None:
        """Notes how the invocation stands, so that time before a kill counts."""
        row = {"status": status, "spent_seconds": round(spent_seconds, 2), "invocation": invocation}
        row |= {} if self.processes is None else {"processes": self.processes}
        write_beside(self.path / "state.json", _json(row), sync=False)

    def join(self, processes: int, nodes: int = 1) -> None:
        """Notes how many processes share the training, of all nodes together.

        Another number than an unfinished run has is refused.

        Raises:
            RecipeError: what was trained so far goes on with as many processes as made it.
        """
        if self.processes not in (None, processes):
            each = f", {nodes} nodes with {processes // nodes} each" if nodes > 1 else ""
            raise RecipeError(
                "this run was begun with another number of processes",
                where=str(self.path),
                found=f"--processes {processes}{each}",
                expected=f"--processes {self.processes}, of all nodes, which goes on where it stopped",
                remedy="or begin anew in another folder: --out DIR",
            )
        self.processes = processes

    def leave(self) -> None:
        """Removes the folder again when nothing came of the run and nothing lies in it."""
        with suppress(OSError):
            self.path.rmdir()

    def add_metric(self, row: dict[str, Any]) -> None:
        """Appends a row to metrics.jsonl."""
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def set_metrics(self, label: str, rows: list[dict[str, Any]] | None) -> None:
        """Replaces a training stage's rows in metrics.jsonl (None: drops them)."""
        path = self.path / "metrics.jsonl"
        kept = [row for row in read_metrics(self.path) if row.get("stage") != label]
        if rows is None and not path.exists():
            return
        rows = [{**row, "stage": label} for row in rows or []]
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept + rows)
        write_beside(path, text.encode())

    def settle_metrics(self, label: str, rows: list[dict[str, Any]]) -> None:
        """Replaces a stage's rows by those it kept, with the times that were seen while it ran.

        Rows that a killed attempt wrote for steps that were taken again are dropped; what the clock said
        is no part of an artifact under a step budget, and stands only here.
        """
        seen = {row.get("step"): row for row in read_metrics(self.path) if row.get("stage") == label}
        self.set_metrics(label, [{**seen.get(row.get("step"), {}), **row} for row in rows])

    def deliver(self, artifact: Artifact) -> None:
        """Copies what was exported into the run folder: `hf` becomes `model/`, files keep their names."""
        for item in sorted(artifact.path.iterdir()):
            if item.name == "manifest.json":
                continue
            name = "model" if item.name == "hf" else item.name
            target = self.path / name
            mark = self.path / f".{name}.{uuid.uuid4().hex[:6]}"
            if item.is_dir():
                shutil.copytree(item, mark)
                if target.exists():
                    shutil.rmtree(target)
            else:
                shutil.copy2(item, mark)
            os.replace(mark, target)


def open_folder(recipe: Recipe, out: Path | None) -> tuple[RunFolder, str | None]:
    """Chooses the folder of a recipe: its own again, or the next free name when another recipe has it.

    Returns:
        The folder, and a line to say when the name was taken.
    """
    wanted = out if out is not None else Path("runs") / recipe.name
    asked = json.loads(json.dumps(recipe.to_dict()))
    number = 1
    while True:
        path = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        number += 1
        if not path.exists() or (path.is_dir() and not any(path.iterdir())):
            path.mkdir(parents=True, exist_ok=True)
            folder = RunFolder(path=path, run_id=uuid.uuid4().hex[:12])
            break
        if not path.is_dir():
            continue
        frozen = _read(path / "plan.json")
        if frozen and frozen.get("recipe") == asked:
            folder = RunFolder(path=path, run_id=frozen["id"], frozen=frozen)
            state = _read(path / "state.json") or {}
            if state.get("status") in ("running", "stopped"):
                folder.spent_seconds = float(state.get("spent_seconds", 0.0))
                folder.processes = state.get("processes")
            break
    note = f"{wanted} holds another recipe's run; this one goes to {path}" if path != wanted else None
    return folder, note


def plan_rows(plan: Plan) -> list[dict[str, Any]]:
    """Gives the plan's steps as plain values, for plan.json and `--json`."""
    return [
        {
            "label": item.step.label,
            "stage": item.step.name,
            "kind": item.kind,
            "inputs": item.inputs,
            "settings": item.stage.model_dump(mode="json"),
            "reasons": item.reasons,
            "forecast": item.forecast.cost.to_dict(),
            "facts": item.forecast.facts,
            "disk_bytes": item.forecast.disk_bytes,
            "share_seconds": item.share.seconds,
            "clocked": item.stage.clocked(item.share),
            "reused": item.reused,
            "fused_into": item.fused_into,
        }
        for item in plan.steps
    ]


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Reads the whole lines of a folder's metrics.jsonl."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=1).encode("utf-8", "surrogatepass")


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        raise ArtifactError(
            "the run's file is damaged", where=str(path), remedy="remove the run's folder and run again"
        ) from None
