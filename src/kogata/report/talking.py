"""The terminal's side of `kogata chat`: reads a line, writes the answer as it comes."""

from __future__ import annotations

import sys
from typing import Any

from kogata.core.errors import KogataError
from kogata.report.console import show_error

HINT = "an empty line or Ctrl-D ends it · /new begins anew · Ctrl-C stops an answer"


def talk(conversation: Any, name: str) -> None:
    """Talks until the input ends; without a terminal every line is a question, and answers alone are written.

    Args:
        conversation: a `kogata.engine.talk.Talk`.
        name: the model's, as the user wrote it.
    """
    shown = sys.stdin is not None and sys.stdin.isatty()
    if shown:
        print(f"{name}: {conversation.renderer.template.said}\n{HINT}", file=sys.stderr)
    while True:
        try:
            asked = input("\n> " if shown else "").strip()
        except EOFError:
            return
        if not asked:
            if shown:
                return
            continue
        if asked == "/new":
            conversation.again()
            continue
        answer(conversation, asked, stay=shown)


def answer(conversation: Any, asked: str, *, stay: bool) -> None:
    """Writes one answer; with `stay` a question that cannot be answered ends nothing."""
    lost = conversation.forgotten
    try:
        for piece in conversation.say(asked):
            print(piece, end="", flush=True)
    except KeyboardInterrupt:
        if not stay:
            raise
    except KogataError as error:
        if not stay:
            raise
        show_error(error, False)
        return
    print(flush=True)
    if conversation.forgotten > lost:
        print("(the beginning no longer fits into the model's context)", file=sys.stderr)
