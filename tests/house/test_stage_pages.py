"""The page of stages is written from their cards."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_is_as_the_cards_are() -> None:
    done = subprocess.run([sys.executable, "scripts/stage_pages.py", "--check"], cwd=ROOT)
    assert done.returncode == 0, "run `make docs`"
