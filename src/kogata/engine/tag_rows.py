"""Rows of tokens with tags, or of a text with marked spans, as fields of an example; and what is wrong there.

Both become a text with spans: [start, end, label] in characters, the end exclusive, sorted, without overlap.
Rows of tokens keep the tokens' places besides; `plain` says that the tags were no B-/I-/O but one a token.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kogata.engine.conversation import Problem

Span = tuple[int, int, str]
"""Start and end in characters, the end exclusive, and the label."""

OUTSIDE = "O"
"""The tag of a token that belongs to nothing."""
_UNSPACED = re.compile(
    "[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u2e80-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef]"
)
"""Characters of scripts that set no spaces between words (not Korean), their punctuation too."""
_PREFIXED = re.compile(r"([BIESLU])[-_](.+)", re.S)
"""IOB2, and the schemes that tell an entity's end (E, L) and single tokens (S, U) besides."""
_ALONE = frozenset("SU")
_START = ("start", "start_offset", "begin", "start_char", "from")
_END = ("end", "end_offset", "stop", "end_char", "to")
_LABEL = ("label", "type", "entity", "entity_group", "tag", "category", "ラベル", "種別")
_SAID = ("text", "name", "word", "surface", "mention", "value")


def listed(value: Any) -> list[Any] | None:
    """Gives a field that holds a list: as it is, as JSON, or as words between spaces; None of others."""
    if isinstance(value, list | tuple):
        return list(value)
    if not isinstance(value, str):
        return None
    if not value.lstrip().startswith("["):
        return value.split()
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        return found if isinstance(found, list) else None
    return None


def unspaced(character: str) -> bool:
    """Says whether a character belongs to a script that sets no spaces between words."""
    return _UNSPACED.match(character) is not None


def within_word(text: str, place: int) -> bool:
    """Says whether a place lies between two letters, or two digits, of a script that sets spaces."""
    if not 0 < place < len(text):
        return False
    before, after = text[place - 1], text[place]
    if unspaced(before) or unspaced(after):
        return False
    return (before.isalpha() and after.isalpha()) or (before.isdigit() and after.isdigit())


def joined(tokens: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """Writes tokens as a text: with spaces between, but not beside a script that sets none (Japanese …).

    Returns:
        the text, and each token's start and end in it.
    """
    text, places = "", []
    for token in tokens:
        if text and not unspaced(text[-1]) and not unspaced(token[0]):
            text += " "
        places.append((len(text), len(text) + len(token)))
        text += token
    return text, places


def tagged_fields(tokens: Any, tags: Any, names: tuple[str, str]) -> tuple[dict[str, Any], int] | Problem:
    """Makes the fields of a row of tokens with tags.

    Args:
        tokens, tags: as the row holds them.
        names: their headers, for problems.

    Returns:
        the fields, and how many entities began with I-, as IOB1 writes them.
    """
    words, given = listed(tokens), listed(tags)
    for value, found, name, one in ((tokens, words, names[0], "tokens"), (tags, given, names[1], "tags")):
        if found is None:
            return _problem(
                name,
                f"{one} are no list",
                _short(value),
                f'a list of {one}, such as ["Anna", "lives", "in", "Kyoto"]'
                if one == "tokens"
                else 'a list of tags, such as ["B-PER", "O", "O", "B-LOC"]',
                f"give the {one} as a list, or as words between spaces",
            )
    assert words is not None and given is not None
    if not words:
        return _problem(names[0], "no tokens", "an empty list", "one token at least", "leave the row out")
    if len(words) != len(given):
        return _problem(
            names[1],
            "tokens and tags differ in number",
            f"{len(words)} tokens, {len(given)} tags",
            "one tag a token",
            "give every token its tag, O where it belongs to nothing",
        )
    for place, word in enumerate(words):
        if not isinstance(word, str) or not word.strip():
            return _problem(
                f"{names[0]}[{place}]",
                "a token that is no word",
                _short(word),
                "a text that is not empty",
                "take token and tag out, or write the token as a text",
            )
    for place, tag in enumerate(given):
        if not isinstance(tag, str) or not tag.strip():
            number = isinstance(tag, int)
            return _problem(
                f"{names[1]}[{place}]",
                "tags are numbers" if number else "a tag is empty",
                _short(tag),
                "names, such as B-PER, I-PER and O",
                "write the names that the numbers stand for" if number else "write O where there is nothing",
            )
    text, places = joined([word.strip() for word in words])
    tags = [tag.strip() for tag in given]
    fields: dict[str, Any] = {"text": text, "tokens": [list(place) for place in places]}
    prefixed = [_PREFIXED.fullmatch(tag) for tag in tags]
    if not any(prefixed) and any(tag != OUTSIDE for tag in tags):
        spans = [[*place, tag] for place, tag in zip(places, tags, strict=True)]
        return {**fields, "spans": spans, "plain": True}, 0
    for place, (tag, match) in enumerate(zip(tags, prefixed, strict=True)):
        if match is None and tag != OUTSIDE:
            return _problem(
                f"{names[1]}[{place}]",
                "a tag without B- or I- among others with them",
                _short(tag),
                "O, B-… or I-…",
                "write one scheme: IOB2 (B-, I-, O), or one plain tag a token",
            )
    spans, begun = _spans_of(places, prefixed)
    return {**fields, "spans": [list(span) for span in spans]}, begun


def _spans_of(
    places: Sequence[tuple[int, int]], tags: Sequence[re.Match[str] | None]
) -> tuple[list[Span], int]:
    """Joins tags to spans as readers of CoNLL do: an I- that continues nothing of its kind begins one."""
    found: list[Span] = []
    open_, begun = False, 0
    for (start, end), match in zip(places, tags, strict=True):
        if match is None:
            open_ = False
            continue
        kind, label = match[1], match[2]
        goes_on = open_ and kind in "IEL" and found[-1][2] == label
        if goes_on:
            found[-1] = (found[-1][0], end, label)
        else:
            begun += kind == "I"
            found.append((start, end, label))
        open_ = kind not in _ALONE and kind not in "EL"
    return found, begun


def marked_fields(raw: str, text: str, value: Any, name: str, plain: Callable[[str], str]) -> Any:
    """Makes the fields of a text with spans; or says what is wrong with them, as a `Problem`.

    Args:
        raw: the text as the row holds it, which the places are of.
        text: the text with its line ends made plain.
        value: the spans: objects with start, end and label, or lists of these three; or JSON of that.
        name: their header.
        plain: what makes a beginning of `raw` one of `text`.
    """
    given = [] if value in (None, "") else listed(value)
    if given is None or any(isinstance(item, str) for item in given):
        return _problem(
            name,
            "spans are no list",
            _short(value),
            '[{"start": 0, "end": 4, "label": "PER"}, …], or [[0, 4, "PER"], …]',
            "give the spans of each row as a list, [] where there are none",
        )
    found: list[Span] = []
    for number, item in enumerate(given):
        read = _span(item, f"{name}[{number}]", raw)
        if isinstance(read, Problem):
            return read
        start, end, label = read
        found.append((len(plain(raw[:start])), len(plain(raw[:end])), label))
    found = sorted(set(found))
    for before, after in zip(found, found[1:], strict=False):
        if after[0] < before[1]:
            shown = " and ".join(f"{text[s:e]!r} ({s}–{e}, {label})" for s, e, label in (before, after))
            return _problem(
                name,
                "overlapping spans",
                shown,
                "spans that share no character",
                "keep one of them: a character has one label, and nested ones cannot be learned",
            )
    return {"text": text, "spans": [list(span) for span in found]}


def _span(item: Any, name: str, text: str) -> Span | Problem:
    """Reads one span; white space at its ends does not belong to it."""
    said = None
    if isinstance(item, Mapping):
        place = item.get("span") or item.get("offsets")
        start, end = _first(item, _START), _first(item, _END)
        if isinstance(place, list | tuple) and len(place) == 2:
            start, end = place
        label, said = _first(item, _LABEL), _first(item, _SAID)
    elif isinstance(item, list | tuple) and len(item) == 3:
        start, end, label = item
    else:
        start = end = label = None
    start, end = (int(v) if isinstance(v, float) and v.is_integer() else v for v in (start, end))
    whole = all(isinstance(v, int) and not isinstance(v, bool) for v in (start, end))
    if not whole or not isinstance(label, str) or not label.strip():
        return _problem(
            name,
            "a span that cannot be read",
            _short(item),
            '{"start": 0, "end": 4, "label": "PER"}, or [0, 4, "PER"]',
            "give start and end as whole numbers and the label as a text",
        )
    assert isinstance(start, int) and isinstance(end, int)
    if not 0 <= start <= end <= len(text):
        return _problem(
            name,
            "a span outside of the text",
            f"{start}–{end} ({label})",
            f"places from 0 to {len(text)}, the end behind the start",
            "count characters from 0, the end behind the last one; not bytes, not UTF-16 units",
        )
    if isinstance(said, str) and said and said.strip() != text[start:end].strip():
        return _problem(
            name,
            "a span that holds another text than it says",
            f"{text[start:end]!r} at {start}–{end}",
            repr(said),
            "count characters from 0 in the text as it stands in the row",
        )
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    if start == end:
        return _problem(
            name, "an empty span", f"{start}–{end} ({label})", "some characters", "take the span out"
        )
    return start, end, label.strip()


def _first(item: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((item[name] for name in names if item.get(name) is not None), None)


def are_spans(values: Sequence[Any]) -> bool:
    """Says whether a column holds lists of spans: some list, and nothing else in it."""
    lists = [listed(value) for value in values if value not in (None, "")]
    items = [item for found in lists for item in found or ()]
    return bool(lists) and None not in lists and bool(items) and all(map(_looks_like_span, items))


def _looks_like_span(item: Any) -> bool:
    if isinstance(item, Mapping):
        return ("span" in item or _first(item, _START) is not None) and _first(item, _LABEL) is not None
    return isinstance(item, list | tuple) and len(item) == 3 and isinstance(item[2], str)


def are_tagged(tokens: Sequence[Any], tags: Sequence[Any]) -> bool:
    """Says whether two columns hold tokens and their tags: lists, or as many words in both, in most rows."""
    pairs = [(listed(a), listed(b)) for a, b in zip(tokens, tags, strict=True)]
    if not any(isinstance(v, list | tuple) or str(v).lstrip().startswith("[") for v in [*tokens, *tags]):
        # Words between spaces: one word beside one label, in every row, is another matter.
        alike = [a is not None and b is not None and len(a) == len(b) > 0 for a, b in pairs]
        return sum(alike) > len(pairs) / 2 and any(len(a or ()) > 1 for a, _ in pairs)
    fit = sum(a is not None and b is not None for a, b in pairs)
    return fit > len(pairs) / 2


def _problem(field: str, reason: str, found: str, expected: str, remedy: str) -> Problem:
    return Problem(field=field, reason=reason, found=found, expected=expected, remedy=remedy)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:79] + "…"
