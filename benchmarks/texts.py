"""Text for benchmarks of data, made anew each time and always the same: prose, manuals, web, and junk."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

PIECE = 4000
"""Characters of a document that is cut out of a longer text, at least; cut between paragraphs."""
TARGET_NOVELS = (5, 17, 29, 41)
"""Of the novels in alphabetical order: those a target is taken from, and nothing else."""
JUNK = ("spam", "html", "shuffled", "duplicated")

Row = dict[str, str]


def novels(data: Path, *, target: bool = False) -> list[Row]:
    """Gives pieces of novels, one of each novel in turn; `target`: of those that are in no pool."""
    files = sorted((data / "corpus" / "prose").glob("*.txt.gz"))
    chosen = [file for at, file in enumerate(files) if (at in TARGET_NOVELS) == target]
    return in_turn([_pieces(file.stem.split(".")[0], _text(file)) for file in chosen])


def heldout_novels(data: Path, size: int) -> list[Row]:
    """Gives so many bytes of the novels that are held out, the same of each, from its middle on."""
    files = sorted((data / "corpus" / "heldout").glob("val-fiction-*.txt.gz"))
    return in_turn([_from_middle(_pieces(file.stem.split(".")[0], _text(file))) for file in files], size)


def manuals(data: Path) -> list[Row]:
    """Gives pages of technical manuals, one of each manual in turn; long pages are cut."""
    files = sorted((data / "corpus" / "techdocs").glob("*.jsonl.gz"))
    return in_turn(
        [[piece for row in _rows(file) for piece in _pieces(row["id"], row["text"])] for file in files]
    )


def heldout_manuals(data: Path, size: int) -> list[Row]:
    """Gives so many bytes of manual pages that are held out."""
    files = sorted((data / "corpus" / "heldout").glob("val-tech-*.jsonl.gz"))
    pieces = [[piece for row in _rows(file) for piece in _pieces(row["id"], row["text"])] for file in files]
    return in_turn(pieces, size)


def speeches(data: Path) -> list[Row]:
    """Gives pieces of speeches, one of each in turn."""
    rows = _rows(data / "corpus" / "speech" / "us-presidential.jsonl.gz")
    return in_turn([_pieces(row["id"], row["text"]) for row in rows])


def heldout_speeches(data: Path, size: int) -> list[Row]:
    """Gives so many bytes of speeches that are held out."""
    rows = _rows(data / "corpus" / "heldout" / "val-speech-us-presidential.jsonl.gz")
    return in_turn([_pieces(row["id"], row["text"]) for row in rows], size)


def web(data: Path) -> list[Row]:
    """Gives documents of C4 and articles of web pages, in turn."""
    c4 = [{"id": row["id"], "text": row["text"]} for row in _rows(data / "web" / "c4-sample.jsonl.gz")]
    file = data / "web" / "article-extraction-benchmark" / "ground-truth.json.gz"
    found = json.loads(_text(file))
    articles = [{"id": f"article/{key[:12]}", "text": found[key]["articleBody"]} for key in sorted(found)]
    return in_turn([c4, [row for row in articles if row["text"].strip()]])


def spam(data: Path) -> list[Row]:
    """Gives unwanted mail."""
    rows = _rows(data / "corpus" / "masc" / "masc.jsonl.gz")
    return [{"id": row["id"], "text": row["text"]} for row in rows if row["genre"] == "spam"]


def stories_ja(data: Path) -> list[Row]:
    """Gives pieces of Japanese stories and essays, one of each in turn."""
    rows = _rows(data / "ja" / "aozora" / "aozora.train.jsonl.gz")
    return in_turn([_pieces(row["id"], row["text"]) for row in rows])


def manuals_ja(data: Path) -> list[Row]:
    """Gives pieces of a Japanese manual."""
    rows = _rows(data / "ja" / "docs" / "debian-handbook-ja.train.jsonl.gz")
    return [piece for row in rows for piece in _pieces(row["id"], row["text"])]


def html(data: Path, language: str = "en") -> list[Row]:
    """Gives pieces of pages as they were written, marks and scripts and all, one of each page in turn."""
    rows = [row for row in _rows(data / "web" / "docs-html-pages.jsonl.gz") if row["lang"] == language]
    pieces = [_cut(f"html/{row['id']}", row["html"]) for row in rows]
    if language != "en":
        return in_turn(pieces)
    files = sorted((data / "web" / "article-extraction-benchmark" / "html").glob("*.html.gz"))
    pieces += [_cut(f"html/{file.name[:12]}", _text(file)) for file in files]
    return in_turn(pieces)


def shuffled(rows: Iterable[Row], chance: random.Random, *, words: bool = True) -> list[Row]:
    """Gives documents with their words, or characters, in random order."""
    found = []
    for row in rows:
        parts = row["text"].split() if words else list(row["text"])
        chance.shuffle(parts)
        found.append({"id": f"shuffled/{row['id']}", "text": (" " if words else "").join(parts)})
    return found


def core_set_pool(data: Path, size: int, junk: bool) -> tuple[list[Row], dict[str, int]]:
    """Makes the pool of the core-set benchmark: 40 % novels, 25 % manuals, 15 % web, 20 % junk, by bytes.

    Without junk the other parts are what they are with it. The junk is a quarter each of spam, raw HTML,
    text with its words shuffled, and copies: documents of the pool four times over. Of spam there is little;
    where it does not reach, there is more raw HTML.

    Returns:
        Documents in random order, and the bytes of each part.
    """
    chance = random.Random("core set")
    parts = {
        "novels": take(novels(data), 0.40 * size),
        "manuals": take(manuals(data), 0.25 * size),
        "web": take(web(data), 0.15 * size),
    }
    if junk:
        clean = [row for rows in parts.values() for row in rows]
        quarter = 0.05 * size
        parts["spam"] = take(spam(data), quarter)
        parts["html"] = take(html(data), 2 * quarter - bytes_of(parts["spam"]))
        rest = novels(data)[len(parts["novels"]) :] + manuals(data)[len(parts["manuals"]) :]
        chance.shuffle(rest)
        parts["shuffled"] = take(shuffled(rest[:2000], chance), quarter)
        often = chance.sample(clean, len(clean))
        copies = [{**row, "id": f"{row['id']}#{time}"} for row in often for time in range(4)]
        parts["duplicated"] = take(copies, quarter)
    rows = [row for name in parts for row in parts[name]]
    chance.shuffle(rows)
    return rows, {name: bytes_of(part) for name, part in parts.items()}


def take(rows: Iterable[Row], size: float) -> list[Row]:
    """Takes documents from the first on, until so many bytes are reached."""
    found: list[Row] = []
    total = 0
    for row in rows:
        if total >= size:
            break
        found.append(row)
        total += len(row["text"].encode("utf-8"))
    return found


def in_turn(groups: list[list[Row]], size: float | None = None) -> list[Row]:
    """Takes one document of each group in turn, until all are taken, or so many bytes."""
    longest = max(map(len, groups), default=0)
    rows = (group[at] for at in range(longest) for group in groups if at < len(group))
    return list(rows) if size is None else take(rows, size)


def bytes_of(rows: Iterable[Row]) -> int:
    """Counts the bytes of documents' texts."""
    return sum(len(row["text"].encode("utf-8")) for row in rows)


def write(rows: Iterable[Row], path: Path) -> Path:
    """Writes documents as JSON lines."""
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return path


def _pieces(name: str, text: str) -> list[Row]:
    found: list[Row] = []
    part: list[str] = []
    size = 0
    for paragraph in text.split("\n\n"):
        part.append(paragraph)
        size += len(paragraph)
        if size >= PIECE:
            found.append({"id": f"{name}/{len(found)}", "text": "\n\n".join(part)})
            part, size = [], 0
    if part and (size > PIECE // 4 or not found) and "".join(part).strip():
        found.append({"id": f"{name}/{len(found)}", "text": "\n\n".join(part)})
    return found


def _cut(name: str, text: str) -> list[Row]:
    pieces = [text[at : at + PIECE] for at in range(0, len(text), PIECE)]
    return [{"id": f"{name}/{at}", "text": piece} for at, piece in enumerate(pieces) if piece.strip()]


def _from_middle(rows: list[Row]) -> list[Row]:
    return rows[len(rows) // 3 :]


def _text(path: Path) -> str:
    with gzip.open(path, "rt", encoding="utf-8", errors="replace") as file:
        return file.read()


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)
