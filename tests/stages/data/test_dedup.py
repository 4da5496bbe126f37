"""data.dedup: copies go, the first stays, and held-out text is never trained on."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from dedup_bench import corpus_of, data_bench
from pydantic import ValidationError

from kogata.core.artifact import Document
from kogata.core.errors import DataError, Stopped
from kogata.core.receipt import Machine
from kogata.core.stage import Account, Share
from kogata.engine.dedup import minhash
from kogata.engine.text import read_corpus
from kogata.stages.data.dedup import Dedup


def kept(*given: Document) -> tuple[list[str], Account]:
    account = Account()
    return [document.id for document in Dedup().each(given, account)], account


def test_copies_go_whatever_their_form_and_white_space() -> None:
    text = "がぎぐ\n\nげご café"
    found, account = kept(
        Document("a", text),
        Document("b", unicodedata.normalize("NFD", text)),
        Document("c", "  がぎぐ げご\tcafé\n"),
        Document("d", "がぎぐげご café"),
    )
    assert found == ["a", "d"]
    assert account.reasons == {"copy": 2}
    assert [row["value"] for row in account.examples["copy"]] == ["of a", "of a"]
    assert (account.read, account.kept) == (4, 2)


def test_training_copies_of_heldout_documents_go() -> None:
    found, account = kept(
        Document("t", "test text", "test"),
        Document("h", "held text", "heldout"),
        Document("a", "held  text"),
        Document("b", "test text "),
        Document("c", "other"),
    )
    assert found == ["t", "h", "c"]
    assert account.reasons == {"copy of a held-out or test document": 2}


def test_heldout_documents_are_never_removed_and_late_copies_are_told() -> None:
    found, account = kept(
        Document("a", "same"), Document("h", "same", "heldout"), Document("i", "same", "heldout")
    )
    assert found == ["a", "h", "i"]
    assert account.extra == {"held_out_copies_left_in_train": 2}


JAPANESE = (
    "道がつづら折りになって、いよいよ天城峠に近づいたと思う頃、雨脚が杉の密林を白く染めながら、"
    "すさまじい早さで麓から私を追って来た。私は二十歳、高等学校の制帽をかぶっていた。"
)
CORPUS = [
    Document("t", "The test text, of some length, that nobody has to train on at all.", "test"),
    Document("h", "それは held text.", "heldout"),
    *(
        Document(f"x{at}", f"Number {at}: 吾輩は猫である。名前はまだ無い。 No two are the same {at * 7}.")
        for at in range(40)
    ),
    Document("a", "それは  held text."),
    Document("b", "Number 3: 吾輩は猫である。名前はまだ無い。  No two are the same 21."),
    Document("c", "Only here."),
]


def whole(
    folder: Path, *methods: object, given: dict[str, Any] | None = None, **more: Any
) -> tuple[Any, Any]:
    stage = Dedup.model_validate({"methods": list(methods), "memory": "1MiB"})
    bench = data_bench(folder, **more)
    slots = given or {"corpus": corpus_of(folder / "corpus", CORPUS, shard_bytes=1500), "earlier": None}
    return bench, stage.run(slots, bench)


def test_streaming_and_whole_leave_the_same(tmp_path: Path) -> None:
    streamed, account = kept(*CORPUS)
    bench, facts = whole(tmp_path, "heldout", "exact")
    found = [
        document.id for split in ("test", "heldout", "train") for document in read_corpus(bench.out, split)
    ]
    assert found == streamed
    assert facts["accounts"]["the stage"]["reasons"] == account.reasons
    assert facts["splits"]["train"]["documents"] == len(streamed) - 2
    assert facts["splits"] == read_facts(bench.out)


def read_facts(folder: Path) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for split in ("train", "heldout", "test"):
        texts = [document.text for document in read_corpus(folder, split)]
        sizes = {"bytes": sum(len(text.encode()) for text in texts), "characters": sum(map(len, texts))}
        found[split] = {"documents": len(texts), **sizes}
    return found


def test_a_held_out_copy_counts_wherever_it_stands() -> None:
    stage, account = Dedup.model_validate({"methods": ["heldout"]}), Account()
    given = [Document("a", "same"), Document("h", "same", "heldout"), Document("b", "same")]
    assert [document.id for document in stage.each(given, account)] == ["a", "h"]
    assert account.reasons == {"copy of a held-out or test document": 1}
    assert account.extra == {"held_out_copies_left_in_train": 1}


def test_the_clusters_file_says_what_duplicated_what(tmp_path: Path) -> None:
    near = "Number 7: 吾輩は猫である。名前はまだ無い。 No two are the same 49, they say."
    documents = [*CORPUS, Document("n", near), Document("m", near + " ")]
    given = {"corpus": corpus_of(tmp_path / "c", documents), "earlier": None}
    bench, facts = whole(tmp_path, "heldout", "exact", {"minhash": {"threshold": 0.7}}, given=given)
    rows = read_clusters(bench.out)
    by_kept = {row["kept"]: row for row in rows}
    assert (
        by_kept["h"]["dropped"] == [{"id": "a", "by": "heldout"}]
        and by_kept["h"]["from"] == "held out or test"
    )
    members = {member["id"]: member for member in by_kept["n"]["dropped"]}
    assert members["m"] == {"id": "m", "by": "exact"}
    assert members["x7"]["by"] == "minhash" and 0.7 <= members["x7"]["similarity"] < 1
    counts = facts["accounts"]["the stage"]["extra"]["clusters"]
    assert counts["clusters"] == len(rows)
    largest = max(rows, key=lambda row: len(row["dropped"]))
    told = counts["shown"][0]
    assert (
        told["kept"] == largest["kept"]
        and told["dropped"] == len(largest["dropped"]) == counts["largest"] - 1
    )
    assert told["ids"] == [member["id"] for member in largest["dropped"][:3]] and len(counts["shown"]) == 3
    assert sum(counts["dropped_by"].values()) == sum(len(row["dropped"]) for row in rows)
    left = {document.id for document in read_corpus(bench.out, "train")}
    assert left.isdisjoint(member["id"] for row in rows for member in row["dropped"])


def read_clusters(folder: Path) -> list[dict[str, Any]]:
    import zstandard

    raw = zstandard.ZstdDecompressor().stream_reader((folder / "clusters.jsonl.zst").read_bytes()).read()
    return [json.loads(line) for line in raw.decode().splitlines()]


@pytest.mark.parametrize("looks", [0, 1, 3, 6, 9, 14])
def test_a_stop_costs_no_more_than_a_shard_and_changes_nothing(looks: int, tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path / "corpus", CORPUS, shard_bytes=1500)
    given = {"corpus": corpus, "earlier": None}
    methods = ("heldout", "exact", {"lines": {"within": "corpus"}}, "minhash")
    first, facts = whole(tmp_path / "first", *methods, given=given)
    stage = Dedup.model_validate({"methods": list(methods), "memory": "1MiB"})
    stopped = data_bench(tmp_path / "second", stop_after=looks)
    with pytest.raises(Stopped):
        stage.run(given, stopped)
    noted = {path: path.stat().st_mtime_ns for path in stopped.checkpoints.glob("notes-?????/ids.bin")}
    bench, again = whole(tmp_path / "second", *methods, given=given)
    assert again == facts and looks + 1 < first.looks
    assert {path: path.stat().st_mtime_ns for path in noted} == noted, "what was noted is not noted again"
    for path in first.out.iterdir():
        assert (bench.out / path.name).read_bytes() == path.read_bytes()


@pytest.mark.timeout(300)
def test_several_processes_and_a_cluster_leave_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    near = [
        Document(f"n{at}", f"{at} " + " ".join(f"word{at // 3}x{w}" for w in range(60))) for at in range(30)
    ]
    documents = [*CORPUS, *near, Document("ja", JAPANESE), Document("ja2", JAPANESE + "それだけである。")]
    given = {"corpus": corpus_of(tmp_path / "corpus", documents, shard_bytes=4000), "earlier": None}
    methods = ["heldout", "exact", {"minhash": {"threshold": 0.7}}, {"lines": {"within": "corpus"}}]
    monkeypatch.setattr(minhash, "BYTES_PER_KEY", 2**15)  # so that a band's keys come in several parts

    def made(folder: Path, processes: int | str, spread: Any = None) -> tuple[dict[str, bytes], Any]:
        stage = Dedup.model_validate({"methods": methods, "memory": "1MiB", "processes": processes})
        bench = data_bench(folder)
        bench.spread = spread
        facts = stage.run(given, bench)
        return {path.name: path.read_bytes() for path in sorted(bench.out.iterdir())}, facts

    asked: list[tuple[str, int]] = []

    def spread(make: Any, batches: Any, seconds: float, late: Any) -> Any:
        work = make()
        for batch in batches:
            asked.append((type(batch[0]).__name__, len(batch)))
            yield work(batch)

    one = made(tmp_path / "one", 1)
    assert one[1]["accounts"]["the stage"]["reasons"]["near-duplicate"] >= 20
    assert made(tmp_path / "two", 2) == one
    assert made(tmp_path / "ray", "ray", spread) == one
    shards = len(list(given["corpus"].path.glob("*.zst")))
    bands = one[1]["accounts"]["the stage"]["extra"]["minhash"]["bands"]
    parts = -(-len(documents) * 2**15 // 2**20)
    assert parts > 1 and asked == [("Task", 1)] * shards + [("tuple", 1)] * (bands * parts * 8)


def test_what_an_earlier_corpus_holds_is_left_out(tmp_path: Path) -> None:
    long = " ".join(f"word{at}" for at in range(80))
    earlier = corpus_of(tmp_path / "old", [Document("old1", "Only  here."), Document("old2", long)])
    new = [*CORPUS, Document("like", long + " more"), Document("fresh", "Fresh and new, never seen before.")]
    given = {"corpus": corpus_of(tmp_path / "new", new), "earlier": earlier}
    bench, facts = whole(tmp_path, "heldout", "exact", "minhash", given=given)
    left = {document.id for document in read_corpus(bench.out, "train")}
    assert "c" not in left and "like" not in left and "fresh" in left
    assert not left & {"old1", "old2"}
    reasons = facts["accounts"]["the stage"]["reasons"]
    assert reasons["copy of a document of the earlier corpus"] == 1
    assert reasons["near-duplicate of a document of the earlier corpus"] == 1


def test_nothing_left_is_an_error_that_says_why(tmp_path: Path) -> None:
    documents = [
        Document("h", "same text", "heldout"),
        Document("a", "same text"),
        Document("b", "same  text"),
    ]
    given = {"corpus": corpus_of(tmp_path / "c", documents), "earlier": None}
    with pytest.raises(DataError, match="every training document") as error:
        whole(tmp_path, "heldout", "exact", given=given)
    assert "2 × copy of a held-out or test document" in (error.value.found or "")


def test_methods_decide_whether_it_streams(tmp_path: Path) -> None:
    assert Dedup().streams() and Dedup.model_validate({"methods": ["exact"]}).streams()
    assert not Dedup.model_validate({"methods": ["exact", "lines"]}).streams()
    with pytest.raises(ValidationError, match="twice"):
        Dedup.model_validate({"methods": ["exact", "exact"]})
    with pytest.raises(ValidationError, match="did you mean 'minhash'"):
        Dedup.model_validate({"methods": ["min_hash"]})


def test_much_text_takes_more_processes() -> None:
    facts = {"corpus": {"splits": {"train": {"documents": 10**5, "bytes": 10**9, "characters": 1}}}}
    near = Dedup.model_validate({"methods": ["minhash"]})
    resolved = near.resolve(facts, Machine(cores=4), Share(memory_bytes=2**33))
    assert isinstance(resolved.stage, Dedup) and resolved.stage.processes == 4
    assert resolved.stage.resolve(facts, Machine(cores=2), Share()).stage == resolved.stage
    more, alone = (
        stage.forecast({**facts, "earlier": None}, Machine(cores=4), Share()).cost
        for stage in (resolved.stage, Dedup.model_validate({"methods": ["minhash"], "processes": 1}))
    )
    assert (more.seconds or 0) < (alone.seconds or 0) and (more.cpu_seconds or 0) >= (alone.cpu_seconds or 0)
    assert (more.peak_bytes or 0) > (alone.peak_bytes or 0)
    assert Dedup().resolve(facts, Machine(cores=4), Share()).reasons["processes"].startswith("1: documents")


def test_forecast_counts_notes_and_the_memory_given() -> None:
    facts = {"corpus": {"splits": {"train": {"documents": 200_000, "bytes": 600_000_000, "characters": 1}}}}
    near = Dedup.model_validate({"methods": ["heldout", "exact", "minhash"], "memory": "300MiB"})
    made = near.forecast({**facts, "earlier": None}, Machine(), Share())
    assert made.cost.peak_bytes is not None and made.cost.peak_bytes < 2**30 and made.disk_bytes > 400_000_000
    streamed = Dedup().forecast({**facts, "earlier": None}, Machine(), Share())
    assert (streamed.cost.seconds or 0) < (made.cost.seconds or 0)
