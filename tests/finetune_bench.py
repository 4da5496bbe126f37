"""Examples and a small model for tests of fine-tuning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from small_models import small_spec, write_small_model

from kogata.core.artifact import Artifact, Kind
from kogata.core.receipt import Machine
from kogata.engine.examples import Example, ExamplesWriter

MACHINE = Machine(cores=1, gemm_flops=80e9, gemm_small_flops=60e9, compiler=True)
COLOURS = {"sky": "blue", "grass": "green", "snow": "white", "coal": "black", "空": "青い", "雪": "白い"}


def write_examples(folder: Path, rows: list[dict[str, Any]] | None = None, heldout: int = 3) -> Artifact:
    """Writes rows of prompt and completion, half of them Japanese."""
    things = list(COLOURS.items())
    if rows is None:
        rows = [
            {"prompt": f"{thing} {number}?", "completion": f"{thing}: {colour}"}
            for number in range(4)
            for thing, colour in things
        ]
    folder.mkdir(parents=True)
    writer = ExamplesWriter(folder)
    for number, fields in enumerate(rows):
        split = "heldout" if number >= len(rows) - heldout else "train"
        form: Any = "messages" if "messages" in fields else "text" if "text" in fields else "completion"
        writer.write(
            Example(id=str(number), form=form, source=f"rows.jsonl:{number + 1}", fields=fields), split
        )
    return Artifact(kind=Kind.EXAMPLES, digest="examples", path=folder, facts=writer.close())


def write_model(folder: Path, **sizes: Any) -> Artifact:
    """Writes a small random model."""
    spec = small_spec("llama", **{"tied": True, "layers": 3, "width": 32, **sizes})
    decoder = write_small_model(folder, spec)
    facts = {
        "spec": decoder.spec.to_dict(),
        "architecture": "llama",
        "parameters": decoder.spec.parameters(),
        "vocab_size": decoder.spec.vocab_size,
        "context": decoder.spec.context,
        "end_id": 0,
        "source": None,
    }
    return Artifact(kind=Kind.MODEL, digest="model", path=folder, facts=facts)
