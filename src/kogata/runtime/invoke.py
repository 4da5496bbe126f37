"""One invocation: the machine, the folder, the plan, the runner, the report; in this order, by the clock."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from kogata.core.errors import KogataError, RecipeError, Stopped
from kogata.core.receipt import Machine, Receipt
from kogata.core.recipe import Plan, Recipe
from kogata.runtime.folder import RunFolder, open_folder
from kogata.runtime.ledger import Ledger
from kogata.runtime.lend import lend
from kogata.runtime.load import dump_recipe
from kogata.runtime.machine import machine_profile
from kogata.runtime.meter import Meter
from kogata.runtime.nodes import Hub, Nodes, gathered
from kogata.runtime.plan import MEMORY_RESERVE, Context, make_plan, refuse, share_time
from kogata.runtime.run import Runner
from kogata.runtime.signals import listening
from kogata.runtime.store import Store
from kogata.runtime.system import available_memory, write_beside
from kogata.runtime.workers import Group


def plan_recipe(
    recipe: Recipe, *, out: Path | None = None, processes: int = 1, nodes: Nodes | None = None
) -> Plan:
    """Plans a recipe without writing anything but the machine's profile."""
    frozen = _frozen(recipe, out)
    context = _context(recipe, frozen.machine if frozen else None, processes, nodes or Nodes())
    if frozen:
        context.run_id, context.shares = frozen.run_id, frozen.shares
    return make_plan(context)


def run_recipe(
    recipe: Recipe,
    *,
    out: Path | None,
    fresh: frozenset[str],
    processes: int,
    nodes: Nodes | None,
    screen: Any,
    started: float,
    hold_shares: bool,
    report: Callable[[Path], Path],
) -> tuple[Path, Plan, list[Receipt]]:
    """Runs a recipe from plan to report.

    Args:
        processes: of each computer.
        nodes: where this computer stands among several; the first of them runs the recipe.
        started: when the process started, on time.monotonic's scale; the time budget runs from there.
        hold_shares: give elastic stages their planned share and no more.
        report: writes report.html from a run's folder.
    """
    _refuse_torchrun()
    before = time.monotonic()
    machine = machine_profile(say=lambda text: screen.event("note", text=text))

    def say(text: str) -> None:
        screen.event("note", text=text)

    with gathered(nodes or Nodes(), recipe, processes, machine.device, say) as hub:
        # The first measurement of a machine and the wait for others are shown, not counted.
        started += time.monotonic() - before
        return _run(
            recipe, machine, out=out, fresh=fresh, processes=processes, hub=hub, screen=screen,
            started=started, hold_shares=hold_shares, report=report,
        )  # fmt: skip


def lend_processes(recipe: Recipe, *, processes: int, nodes: Nodes, screen: Any) -> None:
    """Lends this computer's processes to the run of another until that run is over."""
    _refuse_torchrun()

    def say(text: str) -> None:
        screen.event("note", text=text)

    machine = machine_profile(say=say)
    lend(recipe, nodes, processes, machine.cores, machine.device, say)


def _run(
    recipe: Recipe,
    machine: Machine,
    *,
    out: Path | None,
    fresh: frozenset[str],
    processes: int,
    hub: Hub | None,
    screen: Any,
    started: float,
    hold_shares: bool,
    report: Callable[[Path], Path],
) -> tuple[Path, Plan, list[Receipt]]:
    folder, note = open_folder(recipe, out)
    nodes = hub.nodes if hub else Nodes()
    folder.join(processes * nodes.count, nodes.count)
    if note:
        screen.event("note", text=note)
    context = _context(recipe, folder.machine or machine, processes, nodes)
    context.run_id = folder.run_id
    context.shares = folder.shares
    invocation = uuid.uuid4().hex[:12]
    ledger = Ledger(folder.path, invocation)
    started -= folder.spent_seconds

    def spent() -> float:
        return time.monotonic() - started

    group = Group(folder.path, context.machine.cores)
    group.hub = hub
    status = "failed"
    runner: Runner | None = None
    try:
        if not context.shares:
            share_time(context)
        plan = make_plan(context)
        screen.event("plan", plan=plan)
        refuse(plan)
        folder.freeze(plan, context.shares)
        write_beside(folder.path / "recipe.yaml", dump_recipe(_resolved(plan)).encode())
        group.warm = context.warm
        if group.warm:
            group.ready(1)
        asked: list[int] = hub.asked if hub else []
        with Meter(machine=context.machine) as meter, listening(asked):
            runner = Runner(
                context=context,
                folder=folder,
                ledger=ledger,
                group=group,
                meter=meter,
                screen=screen,
                deadline=started + recipe.budget.time if recipe.budget.time else None,
                hold_shares=hold_shares,
                fresh=_labels(recipe, fresh),
                spent=spent,
                invocation=invocation,
                asked_to_stop=asked,
            )
            receipts = runner.run()
        _write_replay(folder, plan, receipts)
        group.close()
        report(folder.path)
        status = "done"
        screen.event("done", path=folder.path, receipts=receipts, status=status, seconds=spent())
        return folder.path, plan, receipts
    except KogataError as error:
        status = "stopped" if isinstance(error, Stopped) else "failed"
        if runner is not None and runner.receipts:
            report(folder.path)
        raise
    finally:
        if folder.frozen:
            folder.beat(status, spent(), invocation)
        else:
            folder.leave()
        group.drop() if status != "done" else group.close()


def _frozen(recipe: Recipe, out: Path | None) -> RunFolder | None:
    """Finds the folder an earlier run of this very recipe left; creates nothing."""
    wanted = out if out is not None else Path("runs") / recipe.name
    if not (wanted / "plan.json").exists():
        return None
    folder, note = open_folder(recipe, out)
    if folder.frozen:
        return folder
    folder.path.rmdir()
    return None


def _context(recipe: Recipe, machine: Machine | None, processes: int, nodes: Nodes) -> Context:
    machine = machine or machine_profile()
    if processes < 1 or processes > 64:
        raise RecipeError("--processes takes a number from 1 to 64", found=str(processes))
    free = available_memory()
    return Context(
        recipe=recipe,
        machine=machine,
        store=Store(),
        processes=processes * nodes.count,
        nodes=nodes.count,
        memory_bytes=int(free * (1 - MEMORY_RESERVE)) if free else None,
    )


def _labels(recipe: Recipe, fresh: frozenset[str]) -> frozenset[str]:
    from kogata.core.registry import suggest

    known = {step.label for step in recipe.stages} | {step.name for step in recipe.stages}
    for name in sorted(fresh - known):
        near = suggest(name, known)
        raise RecipeError(
            f"--fresh names {name!r}, which is no stage of this recipe",
            expected=f"one of {', '.join(sorted(known))}",
            remedy=f"did you mean {near!r}?" if near else None,
        )
    return fresh


def _resolved(plan: Plan) -> Recipe:
    """Gives the recipe with every `auto` the plan chose."""
    steps = tuple(replace(item.step, stage=item.stage) for item in plan.steps)
    return replace(plan.recipe, stages=steps)


def _write_replay(folder: RunFolder, plan: Plan, receipts: list[Receipt]) -> None:
    """Writes recipe.yaml as it was run: settings resolved, steps taken, no clock needed to replay it."""
    by_label = {receipt.label: receipt for receipt in receipts if receipt.parent is None}
    steps = []
    for item in plan.steps:
        receipt = by_label[item.step.label]
        settings = {**receipt.settings, **item.stage.steps_taken(receipt.facts)}
        stage = type(item.stage).model_validate({k: v for k, v in settings.items() if v is not None})
        steps.append(replace(item.step, stage=stage))
    text = dump_recipe(replace(plan.recipe, stages=tuple(steps), plugins=_copy_plugins(folder, plan.recipe)))
    write_beside(folder.path / "recipe.yaml", text.encode())


def _copy_plugins(folder: RunFolder, recipe: Recipe) -> tuple[str, ...]:
    """Copies plug-in files beside the run's recipe, which names them there."""
    names = []
    for source in recipe.plugin_files():
        shutil.copyfile(source, folder.path / source.name)
        names.append(source.name)
    return tuple(names)


def _refuse_torchrun() -> None:
    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise RecipeError(
            "kogata starts its own processes and was itself started by torchrun",
            remedy=f"kogata run RECIPE --processes {os.environ.get('WORLD_SIZE', '2')}",
        )
