"""What in YAML silently means something else than was typed, and what a mistake is called."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Any

from kogata.core.errors import RecipeError

# Plain scalars

_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*(?:_[0-9]+)*)")
_BASED = re.compile(r"0x[0-9a-fA-F]+|0o[0-7]+")
_FLOAT = re.compile(r"[-+]?(?:[0-9]+(?:_[0-9]+)*\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_CONSTANTS: dict[str, Any] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip


def decode_scalar(text: str) -> Any:
    """Reads an unquoted word: nothing, a truth value, a number or text.

    `1e-3`, `1e5` and `.5` are numbers; `no`, `on`, `007` and `1.2.3` are text.
    """
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INTEGER.fullmatch(text):
        return int(text) if len(text) < 400 else text
    if _BASED.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text) and not re.match(r"[-+]?0[0-9_]", text):
        number = float(text)
        return number if abs(number) != float("inf") else text
    return text


# Places


@dataclass(frozen=True)
class Source:
    """A text and what it is called."""

    text: str
    name: str

    def line(self, number: int) -> str:
        """Gives a line, counted from 0; empty past the end."""
        lines = self.text.split("\n")
        return lines[number] if 0 <= number < len(lines) else ""

    def error(self, what: str, mark: Any, *, shift: int = 0, **parts: str | None) -> RecipeError:
        """Builds an error at a mark, moved right by `shift` characters."""
        return self.error_at(what, mark.line, mark.column + shift, **parts)

    def error_at(self, what: str, line: int, column: int, **parts: str | None) -> RecipeError:
        """Builds an error at a line and column, counted from 0."""
        return RecipeError(what, where=f"{self.name}:{line + 1}:{column + 1}", **parts)


def refuse_control_characters(source: Source) -> None:
    """Refuses what no text holds."""
    found = re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]", source.text)
    if found:
        before = source.text[: found.start()]
        raise source.error_at(
            "a control character in the text",
            before.count("\n"),
            len(before) - before.rfind("\n") - 1,
            found=f"U+{ord(found[0]):04X}",
            remedy="remove it; in text that needs it, write it as an escape in double quotes",
        )


def refuse_anchor_or_tag(source: Source, node: Any) -> None:
    """Refuses `&name`, `!tag` and the merge key: a recipe says everything where it stands."""
    mark = node.start_mark
    rest = source.line(mark.line)[mark.column :]
    if rest[:1] in ("&", "!"):
        kind = "an anchor" if rest[0] == "&" else "a tag"
        raise source.error(
            f"an unquoted {rest[0]!r}: in YAML this is {kind}, not text",
            mark,
            found=_shown(rest),
            remedy=f"quote it: {_quote_word(rest)}",
        )


# Full-width characters

WIDE = {
    "：": ":", "，": ",", "、": ",", "［": "[", "］": "]", "｛": "{", "｝": "}", "＃": "#", "－": "-",
    "“": '"', "”": '"', "＂": '"', "‘": "'", "’": "'", "＇": "'", "｀": "`", "\u3000": " ", "\u00a0": " ",
}  # fmt: skip
_NAMES = {"\u3000": "full-width space", "\u00a0": "no-break space", "“": "curly quote", "”": "curly quote"}
_AMOUNT = re.compile(r"[0-9][0-9.]*\s*[A-Za-z][A-Za-z0-9]*")
_SETTING = r"[A-Za-z_][\w.]*"


def half_width(text: str) -> bool:
    """Says whether a text holds none of the characters that are taken for YAML's own or for digits."""
    return not (set(text) & set(WIDE)) and unicodedata.normalize("NFKC", text) == text


def _refuse_wide(source: Source, node: Any, character: str) -> RecipeError:
    start, end = node.start_mark, node.end_mark
    for number in range(start.line, end.line + 1):
        column = source.line(number).find(character, start.column if number == start.line else 0)
        if column >= 0:
            return wide_error(source, number, column)
    return wide_error(source, start.line, start.column)


def wide_error(source: Source, line: int, column: int) -> RecipeError:
    """Builds the error for a full-width character at a place, counted from 0."""
    character = source.line(line)[column : column + 1]
    name = _NAMES.get(character, "full-width character")
    half = WIDE.get(character, "")
    shown = f"{character!r} (U+{ord(character):04X})" if character else "the end of the text"
    instead = {":": "':' and a space", " ": "an ordinary space"}.get(half, repr(half))
    return source.error_at(
        f"a {name} where YAML needs a half-width one"
        if half != " "
        else f"a {name} where YAML needs a space",
        line,
        column,
        found=f"{shown} in {_shown(source.line(line).strip())}",
        expected=instead,
        remedy=f"type {instead}; if it is part of a text, put the whole text in double quotes",
    )


def refuse_plain(source: Source, node: Any, *, flow: bool, item: bool) -> None:
    """Refuses an unquoted value that was meant as something else."""
    text: str = node.value
    if text.isascii() and "\t" not in text:
        if item:
            _refuse_missing_space(source, node, text)
        return
    if text[0] in "［｛“”＂｀\u3000\u00a0" or (text[0] in "‘’＇" and text[-1] in "‘’＇"):
        raise _refuse_wide(source, node, text[0])
    if text[-1] in "\u3000\u00a0":
        raise _refuse_wide(source, node, text[-1])
    comment = re.search(r"[ \u3000\u00a0]＃|[\u3000\u00a0]#", text)
    if comment:
        raise _refuse_wide(source, node, comment[0][0] if comment[0][0] != " " else "＃")
    if flow and ("，" in text or re.search(r"[A-Za-z0-9]、[A-Za-z0-9]", text)):
        raise _refuse_wide(source, node, "，" if "，" in text else "、")
    spaced = re.match(_SETTING + r":([\u3000\u00a0])", text, re.ASCII)
    if spaced:
        raise _refuse_wide(source, node, spaced[1])
    several = node.start_mark.line != node.end_mark.line and text.strip() != source.line(node.start_mark.line)
    if "：" in text and (
        (item and re.match(_SETTING + "：", text, re.ASCII))
        or (several and re.search(r"(?:^|\s)" + _SETTING + "：", text, re.ASCII))
    ):
        raise _refuse_wide(source, node, "：")
    narrow = unicodedata.normalize("NFKC", text).strip()
    if narrow != text and (not isinstance(decode_scalar(narrow), str) or _AMOUNT.fullmatch(narrow)):
        at = next(index for index, one in enumerate(text) if unicodedata.normalize("NFKC", one) != one)
        raise source.error(
            "full-width digits or letters where half-width ones are needed",
            node.start_mark,
            shift=at,
            found=text,
            expected=narrow,
            remedy=f"type {narrow}; if it is meant as text, put it in double quotes",
        )
    if item:
        _refuse_missing_space(source, node, text)


def refuse_plain_key(source: Source, node: Any, value_node: Any) -> None:
    """Refuses an unquoted key that was meant as something else."""
    text: str = node.value
    wide = next((one for one in text if one in WIDE), None)
    if wide:
        raise _refuse_wide(source, node, wide)
    if text == "<<":
        raise source.error("a merge key '<<' is not used in recipes", node.start_mark, remedy="write it out")
    if text.endswith(":") or re.match(_SETTING + r":[{\[]", text) or (":" in text and value_node.value == ""):
        raise _no_space(source, node, text)
    narrow = unicodedata.normalize("NFKC", text)
    if narrow != text and narrow.isascii():
        raise source.error(
            "a key in full-width letters",
            node.start_mark,
            found=text,
            expected=narrow,
            remedy=f"type {narrow}; if it is meant so, put it in double quotes",
        )


def _refuse_missing_space(source: Source, node: Any, text: str) -> None:
    if re.match(_SETTING + r":(?!//)\S", text, re.ASCII) and not re.match(r"[A-Za-z]:[\\/]", text):
        raise _no_space(source, node, text)


def _no_space(source: Source, node: Any, text: str) -> RecipeError:
    at = text.index(":")
    return source.error(
        "no space after ':'",
        node.start_mark,
        shift=at,
        found=_shown(text),
        expected=f"{text[:at]}: {text[at + 1 :]}".rstrip(),
        remedy="put a space after the ':'; if it is meant as text, put it in double quotes",
    )


# Mistakes the parser finds

_EXPLAINED: list[tuple[str, str, str]] = [
    (
        "mapping values are not allowed",
        "a ':' where no setting can begin",
        "check the indentation of this line and the one above; put text that contains ': ' in double quotes",
    ),
    ("unexpected end of stream", "a quote is not closed", "close it"),
    (
        "expected <block end>",
        "the indentation does not match the lines above",
        "begin every entry of one list or mapping in the same column",
    ),
    (
        "<document start>",
        "the indentation does not match the lines above",
        "begin every entry of one list or mapping in the same column",
    ),
    (
        "could not find expected ':'",
        "a line without ':'",
        "write NAME: VALUE, with a space after the ':'",
    ),
    ("but found another document", "a second document begins", "a recipe is one document: remove the '---'"),
    (
        "sequence entries are not allowed",
        "a '- ' where no list can begin",
        "put it on a line of its own, or write the list as [a, b]",
    ),
    (
        "expected a comment or a line break",
        "text on the line of '|' or '>'",
        "begin the text on the next line, or put it in double quotes",
    ),
]


def explain(error: Any, source: Source) -> RecipeError:
    """Turns the parser's complaint into ours: the place that is to be changed, and how."""
    problem: str = error.problem or str(error)
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return RecipeError("not YAML", where=source.name, found=problem)
    first = error.context_mark.line if error.context_mark is not None else mark.line
    # A key with a full-width colon makes the parser stumble only on the line after it.
    before = (
        first - 1 if first and re.match(r"\s*(?:- )?[\w.]+：", source.line(first - 1), re.ASCII) else first
    )
    wide = _first_wide(source, before, mark.line)
    if wide:
        return wide_error(source, *wide)
    line = source.line(mark.line)
    character = line[mark.column : mark.column + 1]
    if character == "\t" or ("\t" in line[: mark.column] and not line[: mark.column].strip()):
        return source.error_at(
            "a tab where YAML needs spaces",
            mark.line,
            line.index("\t"),
            found=_shown(repr(line)[1:-1]),
            expected="spaces",
            remedy="replace each tab by two spaces",
        )
    if "alias" in problem or "alias" in (error.context or "") or character in ("*", "%", "@", "`"):
        word = line[mark.column :] if character in ("*", "%", "@", "`") else line[max(0, mark.column - 1) :]
        meaning = (
            ": in YAML this is an alias, not text" if word[:1] == "*" else ": YAML keeps this sign for itself"
        )
        return source.error(
            f"an unquoted {word[:1]!r}{meaning}",
            mark,
            found=_shown(word),
            remedy=f"quote it: {_quote_word(word)}",
        )
    opened = re.search(r"expected ',' or '([}\]])'", problem)
    if opened and error.context_mark is not None:
        return source.error(
            f"a '{'{' if opened[1] == '}' else '['}' that is not closed, or a missing comma",
            error.context_mark,
            found=_shown(source.line(first)[error.context_mark.column :]),
            expected=f"',' or '{opened[1]}' before line {mark.line + 1}, column {mark.column + 1}",
            remedy="close it, or put ',' between the entries",
        )
    for piece, what, remedy in _EXPLAINED:
        if piece in problem:
            begin = error.context_mark if what in ("a quote is not closed", "a line without ':'") else mark
            begin = begin or mark
            return source.error(what, begin, found=_shown(source.line(begin.line).strip()), remedy=remedy)
    return source.error(
        f"not YAML: {problem}",
        mark,
        found=_shown(line.strip()) or None,
        remedy="if it is meant as text, put it in double quotes",
    )


def _first_wide(source: Source, first: int, last: int) -> tuple[int, int] | None:
    """Finds the first full-width sign outside quotes and comments in some lines."""
    for number in range(first, last + 1):
        line = source.line(number)
        bare = re.sub(r'"[^"]*"|\'[^\']*\'|(?:^|\s)#.*', lambda found: "x" * len(found[0]), line)
        at = [index for index, one in enumerate(bare) if one in WIDE and one not in "、－’‘"]
        if at:
            return number, at[0]
    return None


def _shown(text: str, width: int = 60) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _quote_word(text: str) -> str:
    word = re.split(r"\s+#|[,\]}](?:\s|$)|\s*$", text, maxsplit=1)[0]
    return f'"{word}"' if "'" in word else f"'{word}'"
