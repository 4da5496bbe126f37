"""What the command line and Python both call: run, plan, report, compare, generate, stages, store, schema."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kogata.core.amounts import Cost
from kogata.core.errors import KogataError, RecipeError, Stopped
from kogata.core.receipt import Receipt, total_cost
from kogata.core.recipe import Plan
from kogata.core.recipe import Recipe as _Recipe
from kogata.runtime.folder import read_metrics
from kogata.runtime.ledger import read_receipts

if TYPE_CHECKING:
    from kogata.runtime.nodes import Nodes


class Recipe(_Recipe):
    """A recipe: a list of stages, a budget and a seed."""

    @classmethod
    def load(
        cls,
        path: str | Path | Mapping[str, Any],
        settings: Mapping[str, Any] | Sequence[str] = (),
        *,
        budget: Sequence[str] = (),
        seed: int | None = None,
        allow_plugins: bool = False,
    ) -> _Recipe:
        """Reads a recipe file, with settings changed as `--set` would.

        Raises:
            RecipeError: the file or a setting is wrong; says where and how to mend it.
        """
        from kogata.runtime.load import load_recipe

        return load_recipe(path, settings, budget=budget, seed=seed, allow_plugins=allow_plugins)


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run: its folder, plan, receipts and status."""

    path: Path
    plan: Plan | None
    receipts: list[Receipt]
    status: str = "done"

    def metrics(self) -> list[dict[str, Any]]:
        """Gives the rows of metrics.jsonl."""
        return read_metrics(self.path)

    def scores(self) -> dict[str, Any]:
        """Gives the facts of the last evaluation; empty without one."""
        found = [receipt.facts for receipt in self.receipts if receipt.kind == "scores" and receipt.facts]
        return found[-1] if found else {}

    def model(self) -> Path:
        """Gives the folder of the model: the exported one, else the trained one in the store.

        Raises:
            RecipeError: the run holds no model, or an adapter beside one.
        """
        adapter = adapter_folder(self.path)
        if adapter is not None:
            raise RecipeError(
                "the run made an adapter, no whole model",
                where=str(self.path),
                found=str(adapter),
                expected="a model",
                remedy="add `export` to the recipe, or set `merge: true` in train.finetune",
            )
        return model_folder(self.path)

    def cost(self, *, first: bool = False) -> Cost:
        """Adds what the run cost; with `first`, what reused artifacts first cost too."""
        return total_cost(self.receipts, first=first)


class _Silent:
    def event(self, name: str, **facts: Any) -> None: ...

    def close(self) -> None: ...


def plan(recipe: _Recipe, *, out: Path | None = None, processes: int = 1, nodes: Nodes | None = None) -> Plan:
    """Says what a recipe will cost, stage by stage, before anything runs. Writes nothing."""
    from kogata.runtime.invoke import plan_recipe

    return plan_recipe(recipe, out=out, processes=processes, nodes=nodes)


def run(
    recipe: _Recipe,
    *,
    out: Path | None = None,
    fresh: Sequence[str] = (),
    processes: int = 1,
    nodes: Nodes | None = None,
    screen: Any = None,
    started: float | None = None,
    hold_shares: bool = False,
) -> Run:
    """Runs a recipe in `runs/NAME` (or `out`) and returns its folder, plan and receipts.

    Over several computers (`nodes`) this is for the first of them; the others call `lend`.

    Raises:
        KogataError: see `kogata.core.errors`; the ledger holds the receipt of what failed.
    """
    from kogata.runtime.invoke import run_recipe

    path, made, receipts = run_recipe(
        recipe,
        out=out,
        fresh=frozenset(fresh),
        processes=processes,
        nodes=nodes,
        screen=screen or _Silent(),
        started=time.monotonic() if started is None else started,
        hold_shares=hold_shares,
        report=report,
    )
    return Run(path=path, plan=made, receipts=receipts)


def lend(recipe: _Recipe, *, nodes: Nodes, processes: int = 1, screen: Any = None) -> None:
    """Lends this computer's processes to a run whose first computer is another, until it is over.

    Raises:
        KogataError: what ended the run there, a recipe or release that differs, or that it is gone.
    """
    from kogata.runtime.invoke import lend_processes

    lend_processes(recipe, processes=processes, nodes=nodes, screen=screen or _Silent())


def report(folder: Path) -> Path:
    """Writes the report.html of a run, or of a comparison, from its files alone, and returns its path."""
    from kogata.report import comparison, page

    folder = Path(folder)
    write = comparison.write_comparison if comparison.is_one(folder) else page.write_report
    return write(folder)


def compare(recipe: _Recipe, **options: Any) -> Any:
    """Compares variants of a recipe over paired seeds; see `kogata.runtime.compare.compare`."""
    from kogata.runtime.compare import compare as run_comparison

    return run_comparison(recipe, run=run, report=report, **options)


def load_run(folder: Path) -> Run:
    """Opens the folder of a run that was made earlier."""
    folder = Path(folder)
    if not (folder / "receipts.jsonl").exists():
        raise RecipeError("not a run's folder", where=str(folder), expected="a folder with receipts.jsonl")
    return Run(path=folder, plan=None, receipts=read_receipts(folder))


def model_folder(path: Path) -> Path:
    """Finds the model in a run's folder: `model/`, else the last model artifact its ledger names."""
    if (path / "model" / "config.json").exists():
        return path / "model"
    if (path / "receipts.jsonl").exists():
        made = [receipt for receipt in read_receipts(path) if receipt.kind == "model" and receipt.path]
        if made and Path(made[-1].path or "").exists():
            return Path(made[-1].path or "")
        raise RecipeError("the run holds no model yet", where=str(path), remedy="run its recipe to the end")
    return path


def adapter_folder(path: Path) -> Path | None:
    """Finds the adapter that a run trained on its model; None where there is none, or it was merged."""
    if (path / "model" / "config.json").exists() or not (path / "receipts.jsonl").exists():
        return None
    made = [receipt for receipt in read_receipts(path) if receipt.kind in ("model", "adapter")]
    last = Path(made[-1].path or "") if made and made[-1].kind == "adapter" else None
    return last if last is not None and last.exists() else None


def check(data: Any, **options: Any) -> Any:
    """Says what is wrong with rows before anything is trained; see `kogata.runtime.checking.check`."""
    from kogata.runtime.checking import check as check_rows

    return check_rows(data, **options)


def generate(
    model: str,
    prompt: str = "",
    *,
    tokens: int = 100,
    temperature: float = 0.8,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
) -> Iterator[str]:
    """Continues a prompt piece by piece. `model` is a run, a folder, a .gguf file or a hub name.

    The model is loaded before this returns: what is wrong with it is said before any text.
    """
    from kogata.engine.generate import generate_text
    from kogata.engine.load import load_model

    place = Path(model)
    if place.is_dir():
        loaded = load_model(model_folder(place), adapter=adapter_folder(place))
    else:
        loaded = load_model(model)
    return generate_text(
        loaded, prompt, max_tokens=tokens, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed
    )


def chat(
    model: str,
    *,
    system: str | None = None,
    tokens: int = 512,
    temperature: float = 0.7,
    seed: int = 0,
) -> Any:
    """Opens a conversation: `chat(model).say("…")` gives the answer piece by piece.

    `model` is a run, a folder, an adapter's folder, a .gguf file or a hub name.
    """
    from kogata.engine.adapters import is_adapter
    from kogata.engine.load import load_model
    from kogata.engine.talk import Talk, renderer_of

    place = Path(model)
    if place.is_dir():
        adapter = place if is_adapter(place) else adapter_folder(place)
        loaded = load_model(model_folder(place), adapter=None if adapter == place else adapter)
    else:
        loaded, adapter = load_model(model), None
    renderer = renderer_of(loaded, adapter)
    return Talk(loaded, renderer, system=system, tokens=tokens, temperature=temperature, seed=seed)


def stages() -> list[str]:
    """Lists the names of all stages."""
    from kogata.core.registry import registry

    return registry.stage_names()


def store_list() -> list[dict[str, Any]]:
    """Lists what the store holds, newest first."""
    from kogata.runtime.store import Store

    return Store().entries()


def store_remove(name: str) -> int:
    """Removes one object from the store; returns the bytes freed."""
    from kogata.runtime.store import Store

    return Store().remove(name)


def store_free(amount: int | None = None) -> int:
    """Frees partial work, then the oldest artifacts up to `amount` bytes; returns the bytes freed."""
    from kogata.runtime.store import Store

    return Store().free(amount)


def schema() -> dict[str, Any]:
    """Gives the JSON Schema of a recipe file."""
    from kogata.runtime.schema import schema as recipe_schema

    return recipe_schema()


__all__ = [
    "KogataError",
    "Recipe",
    "Run",
    "Stopped",
    "chat",
    "check",
    "compare",
    "generate",
    "lend",
    "load_run",
    "model_folder",
    "plan",
    "report",
    "run",
    "schema",
    "stages",
    "store_free",
    "store_list",
    "store_remove",
]
