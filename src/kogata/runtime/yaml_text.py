"""The one YAML reader: files and `--set` alike, YAML 1.2 without its traps, every mistake with its place.

`1e-3` is a number and `no` is text. Refused with line, column and remedy, because each would silently mean
something else: duplicate keys, aliases (an unquoted `*`), anchors, tags, merge keys, tabs as indentation, and
full-width punctuation, digits and spaces where half-width ones belong.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kogata.core.errors import EnvironmentProblem, RecipeError
from kogata.runtime import yaml_traps
from kogata.runtime.yaml_traps import decode_scalar

Path_ = tuple[str | int, ...]
"""Where a value lies: keys and list positions from the top."""

LARGEST_BYTES = 1 << 20
"""More is no recipe but data given by mistake."""


@dataclass
class Located:
    """A document's plain value, and where each part of it stands."""

    value: Any
    name: str
    """The file's name, or the option the text was given with."""
    marks: dict[Path_, tuple[int, int]] = field(default_factory=dict)
    """Path → line and column of the value, from 1."""
    key_marks: dict[Path_, tuple[int, int]] = field(default_factory=dict)
    """Path → line and column of the key."""

    def where(self, path: Path_ = (), *, key: bool = False) -> str:
        """Gives `file:line:column` of the nearest part that is there."""
        first, second = (self.key_marks, self.marks) if key else (self.marks, self.key_marks)
        while path:
            mark = first.get(path) or second.get(path)
            if mark:
                return f"{self.name}:{mark[0]}:{mark[1]}"
            path, first, second = path[:-1], self.key_marks, self.marks
        return self.name


def read_file(path: Path) -> tuple[str, Located]:
    """Reads a YAML file; returns its text and what it says.

    Raises:
        RecipeError: it is missing, no text, not UTF-8, or holds a mistake or trap.
        EnvironmentProblem: it may not be read.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise _missing(path) from None
    except IsADirectoryError:
        inside = sorted(item.name for item in path.glob("*.y*ml"))
        raise RecipeError(
            "this is a folder, not a recipe",
            where=str(path),
            found=f"in it: {', '.join(inside[:8])}" if inside else None,
            remedy=f"kogata run {path / inside[0]}" if inside else "name a recipe file",
        ) from None
    except OSError as error:
        raise EnvironmentProblem("the recipe cannot be read", where=str(path), found=str(error)) from None
    if len(content) > LARGEST_BYTES or b"\0" in content[:4096]:
        found = f"{len(content)} bytes" if len(content) > LARGEST_BYTES else "binary data (or UTF-16)"
        raise RecipeError(
            "this is no recipe",
            where=str(path),
            found=found,
            expected="a YAML file in UTF-8",
            remedy="`kogata new` writes a recipe; data is named in it under data.read",
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise RecipeError(
            "the recipe is not UTF-8",
            where=f"{path}:{line}",
            found=f"the byte 0x{content[error.start]:02x}",
            remedy="save it as UTF-8 in your editor",
        ) from None
    return text, read_text(text, str(path))


def _missing(path: Path) -> RecipeError:
    from kogata.core.registry import suggest

    folder = path.parent if path.parent.is_dir() else Path(".")
    here = sorted(item.name for item in folder.glob("*.y*ml"))
    near = suggest(path.name, here) or suggest(path.stem, [Path(name).stem for name in here])
    if near and near not in here:
        near = next(name for name in here if Path(name).stem == near)
    return RecipeError(
        "no such recipe",
        where=str(path),
        found=f"in {folder}: {', '.join(here[:8])}" if here else f"no recipe in {folder}",
        remedy=f"did you mean {str(folder / near)!r}?" if near else "`kogata new` writes one",
    )


def read_text(text: str, name: str) -> Located:
    """Reads one YAML document.

    Raises:
        RecipeError: a mistake or a trap, with line and column.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    text = text.replace("\r\n", "\n").replace("\r", "\n")
    source = yaml_traps.Source(text=text, name=name)
    yaml_traps.refuse_control_characters(source)
    try:
        node = YAML(typ="safe", pure=True).compose(text)
        reader = _Reader(source)
        value = reader.value(node, ()) if node is not None else None
    except MarkedYAMLError as error:
        raise yaml_traps.explain(error, source) from None
    except YAMLError as error:
        raise RecipeError("not YAML", where=name, found=str(error).splitlines()[0]) from None
    except RecursionError:
        raise RecipeError("nested too deeply", where=name) from None
    return Located(value=value, name=name, marks=reader.marks, key_marks=reader.key_marks)


def read_value(text: str, name: str) -> Any:
    """Reads one value as it may stand after a key, for `--set` and `--budget`; `name` is told in errors."""
    if not text.strip():
        raise RecipeError(
            "no value given", where=name, expected="NAME=VALUE", remedy="for nothing, write null"
        )
    try:
        return read_text(text, name).value
    except RecipeError as error:
        column = re.fullmatch(r":1:(\d+)", (error.where or "").removeprefix(name))
        where = f"{name} (column {column[1]} of the value)" if column and column[1] != "1" else name
        raise RecipeError(
            error.what, where=where, found=error.found, expected=error.expected, remedy=error.remedy
        ) from None


class _Reader:
    """Turns nodes into plain values, keeping their places."""

    def __init__(self, source: yaml_traps.Source) -> None:
        self.source = source
        self.marks: dict[Path_, tuple[int, int]] = {}
        self.key_marks: dict[Path_, tuple[int, int]] = {}

    def value(self, node: Any, path: Path_, *, flow: bool = False, item: bool = True) -> Any:
        """Gives a node's plain value.

        Args:
            node: of ruamel.yaml.
            path: where it lies.
            flow: whether it stands inside brackets or braces.
            item: whether it stands for itself or in a list, so that it may have been meant as `key: value`.
        """
        from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode

        mark = node.start_mark
        self.marks[path] = (mark.line + 1, mark.column + 1)
        yaml_traps.refuse_anchor_or_tag(self.source, node)
        if isinstance(node, ScalarNode):
            if node.style is not None:
                return node.value
            yaml_traps.refuse_plain(self.source, node, flow=flow, item=item)
            return decode_scalar(node.value)
        inside = flow or bool(node.flow_style)
        if isinstance(node, SequenceNode):
            return [
                self.value(child, (*path, index), flow=inside, item=not inside)
                for index, child in enumerate(node.value)
            ]
        assert isinstance(node, MappingNode)
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node, value_node)
            here = (*path, key)
            if key in found:
                first = self.key_marks[here]
                raise self.source.error(
                    f"the key {key!r} stands twice",
                    key_node.start_mark,
                    found=f"the first is in line {first[0]}",
                    remedy="remove one of the two",
                )
            self.key_marks[here] = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
            found[key] = self.value(value_node, here, flow=inside, item=False)
        return found

    def _key(self, node: Any, value_node: Any) -> str:
        from ruamel.yaml.nodes import ScalarNode

        yaml_traps.refuse_anchor_or_tag(self.source, node)
        if not isinstance(node, ScalarNode):
            raise self.source.error("a key must be a name", node.start_mark, found="a list or mapping")
        if node.style is None:
            yaml_traps.refuse_plain_key(self.source, node, value_node)
        return node.value


# Writing


def write_yaml(value: dict[str, Any], width: int = 100) -> str:
    """Writes plain values as YAML that `read_text` reads back equal; short parts on one line."""
    return "".join(f"{line}\n" for line in _block(value, width))


def _block(value: Any, width: int) -> list[str]:
    if isinstance(value, dict) and value:
        lines: list[str] = []
        for key, part in value.items():
            flow = f"{_scalar(str(key))}: {flow_yaml(part)}"
            # A list of mappings is easier to read and to edit with one entry a line.
            entries = isinstance(part, list) and any(isinstance(item, dict) for item in part)
            if not part or not isinstance(part, dict | list) or (len(flow) <= width and not entries):
                lines.append(flow)
            else:
                lines.append(f"{_scalar(str(key))}:")
                lines += [f"  {line}" for line in _block(part, width - 2)]
        return lines
    if isinstance(value, list | tuple) and value:
        lines = []
        for part in value:
            first, *rest = _entry(part, width - 2)
            lines += [f"- {first}", *(f"  {line}" for line in rest)]
        return lines
    return [flow_yaml(value)]


def _entry(part: Any, width: int) -> list[str]:
    if isinstance(part, dict) and len(part) == 1:
        return _block(part, width)
    flow = flow_yaml(part)
    return [flow] if len(flow) <= width else _block(part, width)


def flow_yaml(value: Any) -> str:
    """Writes a plain value on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_scalar(str(key))}: {flow_yaml(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(flow_yaml(part) for part in value) + "]"
    return _scalar(value)


_PLAIN = re.compile(r"(?:[^\W\d]|[./~])[\w./*+ ~%@-]*", re.ASCII)
_AMOUNT = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?[A-Za-df-z][A-Za-z]{0,2})+")
_PLAIN_WIDE = re.compile(r"[^\W\d][\w./* -]*")


def _scalar(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    text = str(value)
    plain = (
        _PLAIN.fullmatch(text)
        or _AMOUNT.fullmatch(text)
        or (_PLAIN_WIDE.fullmatch(text) and yaml_traps.half_width(text))
    )
    if plain and text == text.strip() and isinstance(decode_scalar(text), str):
        # Quoted all the same where other YAML readers (and people) would see a truth value or a number.
        if not re.fullmatch(r"(?i)y|n|yes|no|on|off|\.?inf|\.?nan", text):
            return text
    return _quoted(text)


def _quoted(text: str) -> str:
    out: list[str] = []
    for character in text:
        if character in '"\\':
            out.append("\\" + character)
        elif character in _ESCAPES:
            out.append(_ESCAPES[character])
        elif character.isprintable() or character == "\u3000":
            out.append(character)
        else:
            code = ord(character)
            out.append(f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")
    return '"' + "".join(out) + '"'


_ESCAPES = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}
