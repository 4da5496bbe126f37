"""Imports go down only, stages do not know each other, and no circle of modules imports itself."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCES = Path(__file__).resolve().parents[2] / "src" / "kogata"
FLOORS = {"core": 0, "nn": 1, "engine": 2, "stages": 3, "runtime": 4, "report": 5, "serve": 5}
HEAVY = {
    "torch", "transformers", "tokenizers", "safetensors", "numpy", "scipy", "sklearn", "pandas", "polars",
    "pyarrow", "plotly", "matplotlib", "ray", "gguf", "xllamacpp", "peft", "optuna", "datasets",
    "huggingface_hub", "onnxruntime", "trafilatura", "resiliparse", "fastwarc", "PIL",
}  # fmt: skip
MODULES = sorted(SOURCES.rglob("*.py"))


def parts_of(path: Path) -> tuple[str, ...]:
    """Gives a file's module name without `kogata`: ('stages', 'data', 'read')."""
    parts = path.relative_to(SOURCES).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def floor_of(parts: tuple[str, ...]) -> int:
    """Gives the floor; what lies beside the folders (api, cli) is above them all."""
    return FLOORS.get(parts[0], 6) if parts else 6


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def imports_of(path: Path, *, module_level: bool) -> Iterator[tuple[int, str]]:
    """Yields (line, dotted name) of a file's imports; with `module_level` those that run on import."""
    stack: list[ast.AST] = list(ast.parse(path.read_text(encoding="utf-8")).body)
    while stack:
        node = stack.pop()
        if module_level and (
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or _is_type_checking(node)
        ):
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            for alias in node.names:
                inner = SOURCES.joinpath(*node.module.split(".")[1:], alias.name)
                is_module = node.module.split(".")[0] == "kogata" and (
                    inner.with_suffix(".py").exists() or inner.is_dir()
                )
                yield node.lineno, f"{node.module}.{alias.name}" if is_module else node.module
        stack.extend(ast.iter_child_nodes(node))


def ours(path: Path, *, module_level: bool) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yields (line, parts) of the imports of kogata's own modules."""
    for line, name in imports_of(path, module_level=module_level):
        first, *rest = name.split(".")
        if first == "kogata":
            yield line, tuple(rest)


def test_there_is_a_house() -> None:
    assert MODULES, f"no sources under {SOURCES}"


def test_imports_go_down_only() -> None:
    wrong = [
        f"{path.relative_to(SOURCES)}:{line} imports kogata.{'.'.join(name)}"
        for path in MODULES
        if parts_of(path)
        for line, name in ours(path, module_level=False)
        if name
        and floor_of(name) > floor_of(parts_of(path))  # `kogata` itself holds the release, and no more
    ]
    assert not wrong, "\n".join(wrong)


def test_stages_import_only_core_on_import_and_never_each_other() -> None:
    wrong: list[str] = []
    for path in sorted((SOURCES / "stages").rglob("*.py")):
        here = parts_of(path)
        for line, name in ours(path, module_level=True):
            if name[:1] not in {("core",), ("stages",)}:
                wrong.append(f"{path.relative_to(SOURCES)}:{line} imports kogata.{'.'.join(name)} on import")
        for line, name in ours(path, module_level=False):
            # A stage that is a folder of variants may import within that folder.
            own_folder = here if path.name == "__init__.py" else here[:-1]
            within = len(own_folder) > 2 and name[: len(own_folder)] == own_folder
            if name[:1] == ("stages",) and name != here and not within:
                wrong.append(f"{path.relative_to(SOURCES)}:{line} imports kogata.{'.'.join(name)}")
    assert not wrong, "\n".join(wrong)


def test_heavy_modules_are_imported_inside_functions() -> None:
    wrong = [
        f"{path.relative_to(SOURCES)}:{line} imports {name} on import"
        for path in MODULES
        if parts_of(path)[:1] not in {("nn",), ("engine",)}
        for line, name in imports_of(path, module_level=True)
        if name.split(".")[0] in HEAVY
    ]
    assert not wrong, "\n".join(wrong)


def test_core_needs_only_the_standard_library_and_pydantic() -> None:
    import sys

    wrong = [
        f"{path.relative_to(SOURCES)}:{line} imports {name}"
        for path in sorted((SOURCES / "core").rglob("*.py"))
        for line, name in imports_of(path, module_level=False)
        if name.split(".")[0] not in {*sys.stdlib_module_names, "pydantic", "pydantic_core", "kogata"}
    ]
    assert not wrong, "\n".join(wrong)


def test_no_circle_of_imports() -> None:
    known = {parts_of(path): path for path in MODULES}
    edges = {
        here: {name for _, name in ours(path, module_level=True) if name in known and name != here}
        for here, path in known.items()
    }
    done: set[tuple[str, ...]] = set()

    def walk(node: tuple[str, ...], trail: list[tuple[str, ...]]) -> None:
        if node in trail:
            circle = [*trail[trail.index(node) :], node]
            pytest.fail(" imports ".join(".".join(("kogata", *step)) for step in circle))
        if node in done:
            return
        for target in sorted(edges[node]):
            walk(target, [*trail, node])
        done.add(node)

    for node in sorted(edges):
        walk(node, [])


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCES)))
def test_files_stay_under_400_lines(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= 400, f"{path.relative_to(SOURCES)} has {lines} lines: it has two subjects, split it"
