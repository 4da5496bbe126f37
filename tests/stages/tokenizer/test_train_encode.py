"""tokenizer.train and tokenizer.encode: only training text is learnt from, documents keep their bounds."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from kogata.core.artifact import Artifact, Document, Kind
from kogata.core.errors import DataError, RecipeError, Stopped
from kogata.core.receipt import Machine
from kogata.core.stage import Bench, Facts, Share, Stage
from kogata.engine.text import seal_documents
from kogata.engine.tokenizer import TextTokenizer
from kogata.engine.tokens import TokenStore
from kogata.stages.tokenizer.encode import Encode
from kogata.stages.tokenizer.train import Train

EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "data"


@dataclass
class FakeBench:
    """What these stages touch of a bench."""

    out: Path
    label: str = "stage"
    stop: bool = False
    tokens: int = 0
    seen: list[float] = field(default_factory=list)

    def stopping(self) -> bool:
        return self.stop

    def progress(self, done: float, total: float | None, **facts: Any) -> None:
        self.seen.append(done)

    def count(self, *, tokens: int | None = None, flops: float | None = None) -> None:
        self.tokens += tokens or 0


def sealed(folder: Path, documents: list[Document]) -> Artifact:
    folder.mkdir()
    return Artifact(kind=Kind.CORPUS, digest="c", path=folder, facts=seal_documents(documents, folder))


def run(stage: Stage, out: Path, kind: Kind, **given: Artifact) -> tuple[Artifact, FakeBench]:
    out.mkdir()
    bench = FakeBench(out)
    facts = stage.run(dict(given), bench)  # type: ignore[arg-type]
    json.dumps(facts)
    return Artifact(kind=kind, digest="d", path=out, facts=facts), bench


def stories() -> list[Document]:
    rows = gzip.decompress((EXAMPLES / "aozora" / "works.jsonl.gz").read_bytes()).decode().split("\n")
    japanese = [json.loads(row)["text"][:3000] for row in rows[:12] if row]
    english = gzip.decompress((EXAMPLES / "novels" / "Ward_Milly_1881.txt.gz").read_bytes()).decode()
    found = [Document(f"ja{n}", text) for n, text in enumerate(japanese)]
    found += [Document(f"en{n}", english[n * 5000 : n * 5000 + 5000]) for n in range(8)]
    return [
        Document("held", "ZZQZZQZZQ " * 500 + "held-out words 鰯鰯鰯", "heldout"),
        Document("empty-ish", " \n", "heldout"),
        *found,
    ]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("made")
    corpus = sealed(folder / "corpus", stories())
    tokenizer, _ = run(Train(vocab_size=800), folder / "tokenizer", Kind.TOKENIZER, corpus=corpus)
    tokens, bench = run(Encode(), folder / "tokens", Kind.TOKENS, corpus=corpus, tokenizer=tokenizer)
    return {"corpus": corpus, "tokenizer": tokenizer, "tokens": tokens, "bench": bench}


def test_facts_of_the_tokenizer(made: dict[str, Any]) -> None:
    facts = made["tokenizer"].facts
    assert facts["vocab_size"] == 800 and facts["end_id"] == 0 and facts["end_token"] == "<|endoftext|>"
    assert facts["pre"] == "qwen2" and facts["method"] == "bpe"
    assert 1.5 < facts["bytes_per_token"] < 4
    assert {path.name for path in made["tokenizer"].path.iterdir()} == {
        "tokenizer.json", "tokenizer_config.json"
    }  # fmt: skip


def test_the_tokenizer_never_sees_heldout_text(made: dict[str, Any]) -> None:
    vocabulary = json.loads((made["tokenizer"].path / "tokenizer.json").read_text(encoding="utf-8"))
    assert not [token for token in vocabulary["model"]["vocab"] if "ZZ" in token or "ZQ" in token]


def test_tokens_keep_documents_apart_and_say_what_they_are(made: dict[str, Any]) -> None:
    facts, tokenizer = made["tokens"].facts, TextTokenizer(made["tokenizer"].path)
    assert facts["vocab_size"] == 800 and facts["dtype"] == "uint16" and facts["end_id"] == 0
    assert facts["tokenizer_digest"] == tokenizer.digest == made["tokenizer"].facts["tokenizer_digest"]
    assert list(facts["splits"]) == ["train", "heldout"]
    for split in ("train", "heldout"):
        store = TokenStore.open(made["tokens"].path, split)
        texts = [document.text for document in stories() if document.split == split]
        assert [tokenizer.decode(store.document(n)[:-1].tolist()) for n in range(store.documents)] == texts
        assert all(store.document(n)[-1] == 0 for n in range(store.documents))
        assert facts["splits"][split] == {
            "documents": len(texts),
            "tokens": store.tokens,
            "bytes": sum(len(text.encode()) for text in texts),
        }
    assert made["bench"].tokens == sum(part["tokens"] for part in facts["splits"].values())
    for name in ("tokenizer.json", "tokenizer_config.json"):
        ours = (made["tokens"].path / "tokenizer" / name).read_bytes()
        assert ours == (made["tokenizer"].path / name).read_bytes()


def test_tokens_are_the_same_bytes_every_time(made: dict[str, Any], tmp_path: Path) -> None:
    again, _ = run(
        Encode(), tmp_path / "again", Kind.TOKENS, corpus=made["corpus"], tokenizer=made["tokenizer"]
    )
    for path in made["tokens"].path.rglob("*"):
        if path.is_file():
            assert (again.path / path.relative_to(made["tokens"].path)).read_bytes() == path.read_bytes()


def test_a_model_can_stand_where_the_tokenizer_does(made: dict[str, Any], tmp_path: Path) -> None:
    facts = {"vocab_size": 70_000, "end_id": 7}
    model = Artifact(kind=Kind.MODEL, digest="m", path=made["tokenizer"].path, facts=facts)
    tokens, _ = run(Encode(), tmp_path / "tokens", Kind.TOKENS, corpus=made["corpus"], tokenizer=model)
    assert tokens.facts["dtype"] == "uint32" and tokens.facts["end_id"] == 7
    assert TokenStore.open(tokens.path).document(0)[-1] == 7


def test_shakespeare_by_character(tmp_path: Path) -> None:
    path = next((EXAMPLES / "shakespeare").glob("*.txt.gz"))
    text = gzip.decompress(path.read_bytes()).decode()
    cut = int(len(text) * 0.9)
    corpus = sealed(tmp_path / "c", [Document("s", text[cut:], "heldout"), Document("s", text[:cut])])
    stage = resolved(Train(method="characters"), corpus.facts)
    tokenizer, _ = run(stage, tmp_path / "t", Kind.TOKENIZER, corpus=corpus)
    assert tokenizer.facts["vocab_size"] == 66 and tokenizer.facts["bytes_per_token"] == 1.0
    tokens, _ = run(Encode(), tmp_path / "k", Kind.TOKENS, corpus=corpus, tokenizer=tokenizer)
    assert tokens.facts["splits"]["train"]["tokens"] == cut + 1
    assert tokens.facts["splits"]["heldout"]["tokens"] == len(text) - cut + 1


def resolved(stage: Train, facts: Facts, **share: Any) -> Train:
    made = stage.resolve({"corpus": facts}, Machine(), Share(**share)).stage
    assert isinstance(made, Train)
    return made


@pytest.mark.parametrize(
    ("size", "seconds", "vocabulary"),
    [(1_000_000, None, 2048), (8_000_000, 240, 4096), (15_900_000, None, 4096),
     (30_000_000, 239, 4096), (30_000_000, 240, 8192), (30_000_000, None, 8192), (100_000_000, 120, 4096),
     (100_000_000, 600, 8192), (100_000_000, 7200, 8192), (100_000_000, None, 8192)],
)  # fmt: skip
def test_the_size_is_chosen_by_text_and_time(size: int, seconds: float | None, vocabulary: int) -> None:
    facts = {"splits": {"train": {"documents": 9, "bytes": size, "characters": size}}, "language_hint": "en"}
    found = Train().resolve({"corpus": facts}, Machine(), Share(budget_seconds=seconds))
    assert found.stage.vocab_size == vocabulary and found.stage.pre == "qwen2"  # type: ignore[attr-defined]
    assert found.reasons["vocab_size"].startswith(f"{vocabulary}: ")
    assert found.stage.resolve({"corpus": facts}, Machine(), Share()).stage == found.stage


def test_forecasts_have_the_shape_of_the_facts_and_are_near(made: dict[str, Any]) -> None:
    corpus = made["corpus"].facts
    stage = resolved(Train(vocab_size=800), corpus)
    told = stage.forecast({"corpus": corpus}, Machine(), Share()).facts
    assert set(told) <= set(made["tokenizer"].facts)
    told = Encode().forecast({"corpus": corpus, "tokenizer": made["tokenizer"].facts}, Machine(), Share())
    real = made["tokens"].facts
    assert set(told.facts) == set(real) and set(told.facts["splits"]) == set(real["splits"])
    assert told.facts["splits"]["train"]["tokens"] == pytest.approx(
        real["splits"]["train"]["tokens"], rel=0.15
    )
    assert told.facts["tokenizer_digest"] == real["tokenizer_digest"]


def test_settings_that_will_not_do() -> None:
    with pytest.raises(ValidationError, match="unknown method 'wordpiece'; expected one of bpe, characters"):
        Train(method="wordpiece")
    with pytest.raises(ValidationError, match="between 2 and 1,000,000"):
        Train(vocab_size=0)
    with pytest.raises(ValidationError):
        Train(pre="llama-bpe")  # type: ignore[arg-type]
    with pytest.raises(RecipeError) as caught:
        Train(vocab_size=100)
    assert caught.value.expected == "at least 257 (256 bytes and the end token), or auto"
    assert Train(vocab_size=100, method="characters").vocab_size == 100


def test_a_corpus_without_training_text_stops(tmp_path: Path) -> None:
    corpus = sealed(tmp_path / "c", [Document("h", "only held out", "heldout")])
    with pytest.raises(DataError, match="nothing to train a tokenizer on"):
        run(Train(), tmp_path / "t", Kind.TOKENIZER, corpus=corpus)


@pytest.mark.parametrize("stage", [Train(vocab_size=300), Encode()])
def test_asked_to_stop_they_stop(tmp_path: Path, made: dict[str, Any], stage: Stage) -> None:
    bench: Bench = FakeBench(tmp_path, stop=True)  # type: ignore[assignment]
    with pytest.raises(Stopped):
        stage.run({"corpus": made["corpus"], "tokenizer": made["tokenizer"]}, bench)
