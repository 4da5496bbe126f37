"""Kogata trains the best language model your budget allows, with a receipt for every step.

    run = kogata.run(kogata.Recipe.load("recipe.yaml", {"train.pretrain.lr": 0.02}))
    print(run.path, run.receipts[-1].cost)

Everything here is loaded when it is first used: `import kogata` imports neither torch nor pydantic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from kogata.api import Recipe, Run, chat, check, compare, generate, load_run, plan, run, schema
    from kogata.core.amounts import Budget, Cost
    from kogata.core.errors import KogataError
    from kogata.core.receipt import Receipt
    from kogata.core.recipe import Plan
    from kogata.core.registry import registry
    from kogata.core.stage import Stage
    from kogata.starter import new

_WHERE = {
    "run": "api",
    "check": "api",
    "plan": "api",
    "compare": "api",
    "load_run": "api",
    "generate": "api",
    "chat": "api",
    "schema": "api",
    "Run": "api",
    "Recipe": "api",
    "Plan": "core.recipe",
    "Budget": "core.amounts",
    "Cost": "core.amounts",
    "Receipt": "core.receipt",
    "Stage": "core.stage",
    "registry": "core.registry",
    "KogataError": "core.errors",
    "new": "starter",
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
    "chat",
    "check",
    "compare",
    "generate",
    "load_run",
    "new",
    "plan",
    "registry",
    "run",
    "schema",
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
