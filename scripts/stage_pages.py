"""Writes docs/stages.md from the stages' own cards; with --check only says whether it is as they are."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "stages.md"
sys.path.insert(0, str(ROOT / "src"))

HEAD = """# Stages

Every technique with its settings, as `kogata stages NAME` shows it. This page is written by
`make docs` from the stages' own cards; change those.
"""


def cell(text: str | None) -> str:
    """Puts a text into a table cell."""
    return " ".join((text or "").split()).replace("|", "\\|")


def default_of(text: str | None) -> str:
    """Writes a default as code; a setting without one must be given."""
    return "must be given" if text is None else f"`{cell(text)}`"


def page() -> str:
    """Gives the page as it must read."""
    from kogata.report.cards import all_cards

    parts = [HEAD]
    for card in all_cards():
        takes = ", ".join(f"{slot}: {kinds}" for slot, kinds in card.takes.items()) or "nothing"
        parts.append(f"## {card.name}\n\n{card.summary}\n")
        if card.body:
            parts.append(f"{card.body}\n")
        parts.append(f"Takes {takes}. Makes {card.makes}.\n")
        parts.append("\n".join(f"- **{name}**: {text}" for name, text in card.sections.items()) + "\n")
        if card.settings:
            rows = [
                f"| `{one.name}` | {cell(one.type)} | {default_of(one.default)} | {cell(one.description)} |"
                for one in card.settings
            ]
            head = "| setting | takes | default | |\n| --- | --- | --- | --- |"
            parts.append("\n".join([head, *rows]) + "\n")
    return "\n".join(parts)


def main(arguments: list[str]) -> int:
    """Writes the page, or with --check returns 1 when it is out of date."""
    text = page()
    if "--check" in arguments:
        return int(not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text)
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
