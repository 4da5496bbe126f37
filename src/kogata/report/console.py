"""What the command line prints: results on stdout, errors on stderr, a bug of ours admitted."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from kogata.core.errors import KogataError, Stopped


def emit(as_json: bool, data: Any, view: Any) -> None:
    """Prints a result on standard output: JSON, or what people read (text or something rich can show)."""
    if as_json:
        print(json.dumps(data, ensure_ascii=False, indent=1, default=str))
    elif isinstance(view, str):
        print(view)
    else:
        from rich.console import Console

        if sys.stdout.isatty():
            Console(highlight=False).print(view)
            return
        width = int(os.environ["COLUMNS"]) if os.environ.get("COLUMNS", "").isdigit() else 120
        console = Console(width=width, highlight=False, no_color=True, force_terminal=False)
        with console.capture() as captured:
            console.print(view)
        print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def show_error(error: KogataError, as_json: bool) -> None:
    """Shows an error's parts on stderr; with `--json` as JSON on stdout."""
    if as_json:
        print(json.dumps({"error": error.to_dict()}, ensure_ascii=False, indent=1))
        return
    colours = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    red, bold, dim, plain = ("\033[31m", "\033[1m", "\033[2m", "\033[0m") if colours else ("",) * 4
    head = "stopped" if isinstance(error, Stopped) else "error"
    lines = [f"{red}{bold}{head}{plain} {bold}{error.what}{plain}"]
    for label in ("where", "found", "expected", "remedy"):
        text = getattr(error, label)
        if text:
            name = "at" if label == "where" else label
            lines.append(f"  {dim}{name:>8}{plain}  {text}".replace("\n", "\n" + " " * 12))
    print("\n".join(lines), file=sys.stderr)


def show_bug(error: BaseException, as_json: bool) -> None:
    """Admits a bug of ours and says where its traceback lies."""
    import tempfile
    import traceback

    text = "".join(traceback.format_exception(error))
    with tempfile.NamedTemporaryFile(
        "w", prefix="kogata-bug-", suffix=".txt", delete=False, encoding="utf-8"
    ) as file:
        file.write(text)
    short = f"{type(error).__name__}: {error}"
    if as_json:
        facts = {"type": "Bug", "what": short, "where": file.name}
        print(json.dumps({"error": facts}, ensure_ascii=False, indent=1))
    print(f"this is our bug, not yours: {short}\n  the traceback lies in {file.name}", file=sys.stderr)
    if os.environ.get("KOGATA_DEBUG"):
        print(text, file=sys.stderr)
