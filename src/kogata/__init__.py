"""Kogata trains the best language model your budget allows, with a receipt for every step.

    run = kogata.run(kogata.load("recipe.yaml", {"train.pretrain.lr": 0.02}))
    print(run.path, run.receipts[-1].cost)

Everything here is loaded when it is first used: `import kogata` imports neither torch nor pydantic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from kogata.api import Run, compare, generate, load, new, plan, run, schema, write_report
    from kogata.core.amounts import Budget, Cost
    from kogata.core.errors import KogataError
    from kogata.core.receipt import Receipt
    from kogata.core.recipe import Plan, Recipe
    from kogata.core.registry import registry
    from kogata.core.stage import Stage

_WHERE = {
    "run": "api",
    "plan": "api",
    "compare": "api",
    "load": "api",
    "new": "api",
    "generate": "api",
    "schema": "api",
    "write_report": "api",
    "Run": "api",
    "Recipe": "core.recipe",
    "Plan": "core.recipe",
    "Budget": "core.amounts",
    "Cost": "core.amounts",
    "Receipt": "core.receipt",
    "Stage": "core.stage",
    "registry": "core.registry",
    "KogataError": "core.errors",
}
"""Name → the module it is loaded from."""

__all__ = [
    "Budget",
    "Cost",
    "KogataError",
    "Plan",
    "Receipt",
    "Recipe",
    "Run",
    "Stage",
    "compare",
    "generate",
    "load",
    "new",
    "plan",
    "registry",
    "run",
    "schema",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'kogata' has no attribute {name!r}; it has {', '.join(__all__)}")
    from importlib import import_module

    found = getattr(import_module(f"kogata.{_WHERE[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
