"""A bench, a model and a corpus for the tests of evaluate and export."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from small_models import small_spec, write_small_model

from kogata.core.artifact import Artifact, Document, Kind
from kogata.core.receipt import Machine
from kogata.core.stage import Share
from kogata.engine.text import CorpusWriter

MACHINE = Machine(cores=2, gemm_flops=1e11, gemm_small_flops=8e10, stream_bytes=1e10, watts=(10, 30))
ENGLISH = "It was late in the evening when the old man came to the house and he did not see her. "
JAPANESE = "むかし、ある所に猫がいて、いつも海辺のござに座っていたということである。"


@dataclass
class FakeBench:
    """Records what a stage says."""

    out: Path
    share: Share = field(default_factory=Share)
    said: list[str] = field(default_factory=list)
    counted: dict[str, float] = field(default_factory=dict)
    asked_to_stop: bool = False

    def log(self, text: str) -> None:
        self.said.append(text)

    def progress(self, done: float, total: float | None, **facts: Any) -> None:
        assert done >= 0 and (total is None or total >= 0)

    def stopping(self) -> bool:
        return self.asked_to_stop

    def count(self, **amounts: float) -> None:
        for name, amount in amounts.items():
            self.counted[name] = self.counted.get(name, 0) + amount


def bench_in(out: Path, **more: Any) -> Any:
    """Makes a bench; typed loosely, for it has only what these two stages touch."""
    return FakeBench(out, **more)


def small_given(folder: Path, *, family: str = "qwen3", text: str = ENGLISH, **more: Any) -> dict[str, Any]:
    """Writes a small random model and a corpus; gives the slots of both stages."""
    model, corpus = folder / "model", folder / "corpus"
    spec = small_spec(family, **more)
    write_small_model(model, spec)
    corpus.mkdir()
    writer = CorpusWriter(corpus)
    for number in range(12):
        split = "heldout" if number < 6 else "train"
        writer.write(Document(str(number), f"{number}. " + text * (number % 3 + 1), split))
    facts = {
        "spec": spec.to_dict(), "architecture": spec.family, "parameters": spec.parameters(),
        "vocab_size": spec.vocab_size, "context": spec.context, "end_id": 0,
    }  # fmt: skip
    return {
        "model": Artifact(kind=Kind.MODEL, digest="m", path=model, facts=facts),
        "corpus": Artifact(kind=Kind.CORPUS, digest="c", path=corpus, facts=writer.close()),
    }


def facts_of(given: dict[str, Artifact]) -> dict[str, Any]:
    """Gives the facts by slot, as planning sees them."""
    return {slot: dict(artifact.facts) for slot, artifact in given.items()}
