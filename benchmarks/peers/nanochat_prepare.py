"""Lays novels out as nanochat wants its text: parquet files of documents, the last one for validation.

Its loader fills each row of 257 tokens with whole documents and crops what is left over, so a novel in one
piece would be thrown away but for its first row. The novels are cut at the ends of lines into documents of
about a row's length, in a shuffled order, as its own data is.

    python nanochat_prepare.py TEXTS.json FOLDER
"""

import json
import random
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

PIECE = 950
"""Characters: with 4,096 entries a little less than a row."""


def pieces(text: str) -> list[str]:
    """Cuts a text at the ends of its lines, or of its words where a line is too long."""
    found, held = [], ""
    for line in text.splitlines(keepends=True):
        while len(line) > PIECE:
            cut = line.rfind(" ", 1, PIECE) + 1 or PIECE
            found += [held] if held else []
            held, line = line[:cut], line[cut:]
        if held and len(held) + len(line) > PIECE:
            found.append(held)
            held = ""
        held += line
    return [*found, held] if held else found


texts = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
folder = Path(sys.argv[2])
folder.mkdir(parents=True, exist_ok=True)
rows = [piece for text in texts for piece in pieces(text)]
assert "".join(rows) == "".join(texts)
random.Random(0).shuffle(rows)
for name, part in (("shard_00000", rows[:-256]), ("shard_00001", rows[-256:])):
    pq.write_table(pa.table({"text": part}), folder / f"{name}.parquet", row_group_size=1024)
print(json.dumps({"documents": len(rows)}))
