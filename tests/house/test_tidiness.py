"""What is tracked names no machine, registry host or workplace; links lead somewhere; examples are small."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Written in pieces, so that this file does not find itself.
FORBIDDEN = [
    re.compile(piece)
    for piece in (
        r"\bpypi" + r"\.org",
        r"pythonhosted" + r"\.org",
        r"npm" + r"js\.org",
        r"download\.pytorch" + r"\.org",
        r"proxy\.golang" + r"\.org",
        r"(?<![\w.~-])/wo" + r"rk/",
        r"(?<![\w.~-])/ro" + r"ot/",
        r"(?<![\w.~-])/tmp/ko" + r"gata",
        r"bash_" + r"jobs",
        r"before-" + r"stop",
        r"\bissues sh" + r"ow\b",
        r"\.libr" + r"ary/",
    )
]
BINARY = {".gz", ".png", ".zst", ".bin", ".npy", ".safetensors", ".gguf", ".parquet"}


def tracked() -> list[Path]:
    """Lists the files git knows; without git, the sources."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_host_path_or_tool_of_a_workplace() -> None:
    wrong: list[str] = []
    for path in tracked():
        if path.suffix in BINARY:
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            wrong += [
                f"{path.relative_to(ROOT)}:{number} has {found.group(0)!r}"
                for pattern in FORBIDDEN
                if (found := pattern.search(line))
            ]
    assert not wrong, "\n".join(wrong)


def test_nothing_large_is_tracked() -> None:
    allowed = {".gz"}
    wrong = [
        f"{path.relative_to(ROOT)}: {path.stat().st_size} bytes"
        for path in tracked()
        if path.stat().st_size > (500_000 if path.suffix not in allowed else 900_000)
    ]
    assert not wrong, "\n".join(wrong)
    data = sum(path.stat().st_size for path in tracked() if (ROOT / "examples" / "data") in path.parents)
    assert data < 5_000_000


def test_every_example_folder_has_its_notice() -> None:
    for folder in sorted((ROOT / "examples" / "data").iterdir()):
        assert (folder / "NOTICE").is_file(), f"{folder.name} needs a NOTICE with source and licence"


def test_every_japanese_work_keeps_its_credit_line() -> None:
    import gzip
    import json

    bundled = ROOT / "src" / "kogata" / "data" / "edited_texts.jsonl.gz"
    for path in [bundled, *sorted((ROOT / "examples" / "data").glob("aozora*/*.jsonl.gz"))]:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        rows = [row for row in rows if row.get("language", "ja") == "ja"]
        assert rows and all("青空文庫" in row["credit"] and "入力" in row["credit"] for row in rows)


# Links

_FENCE = re.compile(r"^```.*?^```", re.M | re.S)
_LINK = re.compile(r"(?<!\\)\[[^\]]*\]\(\s*<?([^)\s>]+)>?[^)]*\)")


def anchors_of(text: str) -> set[str]:
    """Gives the anchors of a page's headings, as code hosts make them."""
    found = set()
    for heading in re.findall(r"^#+ (.+)$", _FENCE.sub("", text), re.M):
        bare = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        found.add(re.sub(r"[^\w\- ]", "", bare).replace(" ", "-"))
    return found


def pages() -> list[Path]:
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md")]
    return sorted(found)


@pytest.mark.parametrize("page", pages(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in _LINK.findall(_FENCE.sub("", text)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = unquote(target).partition("#")
        place = (page.parent / name).resolve() if name else page
        assert place.exists(), f"{page.relative_to(ROOT)} links to {target}"
        assert place.is_relative_to(ROOT), f"{page.relative_to(ROOT)} links outside the project: {target}"
        if anchor and place.suffix == ".md":
            assert anchor in anchors_of(place.read_text(encoding="utf-8")), (
                f"{page.name}: no heading #{anchor}"
            )


def test_the_japanese_readme_says_what_the_english_one_says() -> None:
    english, japanese = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.ja.md"))
    for what, pattern in {
        "sections": r"^(## )",
        "figures": r"<!-- figure: (.*?) -->",
        "pages": r"\]\(((?:docs|examples|benchmarks)/[^)]*)\)",
        "stages": r"^\|.*`((?:data|train)\.\w+)`",
    }.items():
        there, here = (sorted(re.findall(pattern, text, re.M)) for text in (english, japanese))
        there, here = (there, here) if what == "sections" else (sorted(set(there)), sorted(set(here)))
        assert here == there, f"{what} differ: {set(there) ^ set(here) or (len(there), len(here))}"


def test_every_page_is_reached_from_the_readme() -> None:
    linked = set(re.findall(r"\]\(docs/([\w.-]+\.md)", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert {page.name for page in (ROOT / "docs").glob("*.md")} <= linked
