"""What the rules of data.filter leave out: of clean text, and of junk, by bytes. Nothing is trained.

Clean: novels, manuals, web articles and C4, and Japanese stories and manuals. Junk: spam, pages as raw HTML
(English and Japanese), words in random order (in Japanese: characters), which stand in one line. Every family
judges all of it as one corpus, alone, with its defaults and the stage's own rules off; `own` is the stage
without families, `web` the four families for the web together. `classifier` learns from the edited text that
comes with Kogata, of which no work is in the corpus.

    python benchmarks/bench_filters.py --full [--data FOLDER]
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path
from typing import Any

import common
import texts

BYTES = {"quick": 100_000, "full": 600_000}
"""Of each part, at most."""
CLEAN = ("novels", "manuals", "web", "stories_ja", "manuals_ja")
JUNK = ("spam", "html", "html_ja", "shuffled", "shuffled_ja")
ARMS: dict[str, Any] = {
    "own": None,
    "gopher_quality": ["gopher_quality"],
    "gopher_repetition": ["gopher_repetition"],
    "c4": ["c4"],
    "fineweb": ["fineweb"],
    "web": ["gopher_quality", "gopher_repetition", "c4", "fineweb"],
    "prior": ["prior"],
    "classifier": {"classifier": {"keep": 0.7}},
}


def main() -> None:
    """Runs the arms and writes filters.json."""
    options = common.arguments(__doc__ or "", ("--data", {"help": "folder with corpus/, web/ and ja/"}))
    data = common.data_folder(options.data)
    if data is None:
        return
    parts = corpus(data, BYTES["full" if options.full else "quick"])
    sizes = {name: texts.bytes_of(rows) for name, rows in parts.items()}
    arms = {name: judged(parts, rules) for name, rules in ARMS.items()}
    for name, arm in arms.items():
        print(f"{name:18} clean {arm['clean']:.3f}, junk {arm['junk']:.3f}: {arm['parts']}", file=sys.stderr)
    result = {"bytes": sizes, "clean": CLEAN, "junk": JUNK, "arms": arms}
    common.write_result("filters" if options.full else "filters-quick", result)


def corpus(data: Path, size: int) -> dict[str, list[texts.Row]]:
    """Makes the parts, the same every time."""
    chance = random.Random("filters")
    ours = bundled()
    novels = [row for row in texts.novels(data) if row["id"].partition("/")[0] not in ours]
    manuals = [row for row in texts.manuals(data) if row["id"].rpartition("/")[0] not in ours]
    stories = [row for row in texts.stories_ja(data) if row["id"].rpartition("/")[0] not in ours]
    made = {
        "novels": novels,
        "manuals": manuals,
        "web": texts.web(data),
        "stories_ja": stories,
        "manuals_ja": texts.manuals_ja(data),
        "spam": texts.spam(data),
        "html": texts.html(data),
        "html_ja": texts.html(data, "ja"),
        "shuffled": texts.shuffled(novels[len(novels) // 2 :], chance),
        "shuffled_ja": texts.shuffled(stories[len(stories) // 2 :], chance, words=False),
    }
    return {name: texts.take(rows, size) for name, rows in made.items()}


def bundled() -> set[str]:
    """Names the works that the edited text that comes with Kogata was taken from."""
    import gzip
    import json

    content = (common.ROOT / "src" / "kogata" / "data" / "edited_texts.jsonl.gz").read_bytes()
    lines = gzip.decompress(content).decode("utf-8").split("\n")
    return {json.loads(line)["source"] for line in lines if line}


def judged(parts: dict[str, list[texts.Row]], rules: Any) -> dict[str, Any]:
    """Runs the stage over all parts together; gives the share of each one's bytes that went."""
    from kogata.core.artifact import Document
    from kogata.core.stage import Account
    from kogata.stages.data.filter import Filter

    own = [name for name in Filter.model_fields if name[:4] in ("min_", "max_")]
    settings = {} if rules is None else {**dict.fromkeys(own), "rules": rules}
    documents = [
        Document(row["id"], row["text"], source=part) for part, rows in parts.items() for row in rows
    ]
    random.Random(0).shuffle(documents)
    given = dict.fromkeys(parts, 0)
    for document in documents:
        given[document.source] += len(document.text.encode())
    kept = dict.fromkeys(parts, 0)
    account = Account()
    start = time.process_time()
    for document in Filter.model_validate({**settings, "processes": 1}).each(documents, account):
        kept[document.source] += len(document.text.encode())
    seconds = time.process_time() - start

    def gone(names: tuple[str, ...]) -> float:
        return 1 - sum(kept[name] for name in names) / sum(given[name] for name in names)

    return {
        "clean": gone(CLEAN),
        "junk": gone(JUNK),
        "parts": {name: round(gone((name,)), 4) for name in parts},
        "reasons": dict(sorted(account.reasons.items())),
        "cpu_seconds": seconds,
    }


if __name__ == "__main__":
    main()
