"""What tokens keep beside the ids: each document's source and named numbers; nothing where nothing is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_bench import TrainingBench

from kogata.core.artifact import Artifact, Document, Kind
from kogata.core.errors import ArtifactError, DataError
from kogata.core.stage import Account, Stage
from kogata.engine.text import seal_documents
from kogata.engine.tokens import TokenStore
from kogata.stages.data.read import Read
from kogata.stages.tokenizer.encode import Encode
from kogata.stages.tokenizer.train import Train

TEXTS = ["once upon a time", "むかし、ある所に", "a town by the sea", "道がつづら折り"]


def documents(**meta: list[Any]) -> list[Document]:
    found = [Document("h", TEXTS[0] + TEXTS[1], "heldout", meta={"group": "英"} if "group" in meta else {})]
    for number, text in enumerate(TEXTS):
        held = {name: values[number] for name, values in meta.items() if values[number] is not None}
        found.append(Document(str(number), text, meta=held))
    return found


def made(stage: Stage, folder: Path, kind: Kind, **given: Artifact) -> Artifact:
    bench = TrainingBench(folder)
    return Artifact(kind=kind, digest="x", path=bench.out, facts=stage.run(dict(given), bench))


def encode(folder: Path, given: list[Document], **settings: Any) -> Artifact:
    place = folder / "corpus"
    place.mkdir(parents=True)
    corpus = Artifact(kind=Kind.CORPUS, digest="c", path=place, facts=seal_documents(given, place))
    tokenizer = made(Train(method="characters"), folder / "tokenizer", Kind.TOKENIZER, corpus=corpus)
    return made(Encode(**settings), folder / "tokens", Kind.TOKENS, corpus=corpus, tokenizer=tokenizer)


def names(artifact: Artifact) -> set[str]:
    return {path.name for path in artifact.path.iterdir()}


def test_sources_lie_beside_the_ids(tmp_path: Path) -> None:
    tokens = encode(tmp_path, documents(group=["英", "日", "英", None]))
    store = TokenStore.open(tokens.path)
    order = list(tokens.facts["sources"])
    assert store.sources is not None and store.columns is None
    assert [order[number] for number in store.sources] == ["英", "日", "英", "other"]
    assert tokens.facts["sources"]["英"] == {
        "documents": 2,
        "tokens": len(store.document(0)) + len(store.document(2)),
    }
    held = TokenStore.open(tokens.path, "heldout")
    assert held.sources is not None and [order[number] for number in held.sources] == ["英"]


def test_of_one_source_the_files_are_what_they_always_were(tmp_path: Path) -> None:
    plain = encode(tmp_path / "plain", documents())
    one = encode(tmp_path / "one", documents(group=["英"] * 4))
    assert names(plain) == names(one) and "sources" not in one.facts
    for name in ("train-00000.bin", "train-00000.idx.npy", "heldout-00000.bin"):
        assert (plain.path / name).read_bytes() == (one.path / name).read_bytes()
    assert TokenStore.open(plain.path).sources is None


def test_columns_lie_beside_the_ids(tmp_path: Path) -> None:
    given = documents(年=[1881, 1915, 1927, 1926], grade=[1, 2.5, 3, 4])
    tokens = encode(tmp_path, given, columns=["grade", "年"])
    store = TokenStore.open(tokens.path)
    assert store.columns is not None and tokens.facts["columns"] == ["grade", "年"]
    assert store.columns[:, 0].tolist() == [1, 2.5, 3, 4] and store.columns[:, 1].tolist()[0] == 1881
    assert "heldout-00000.columns.npy" not in names(tokens)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([1, 2, None, 4], "document 2"),
        ([1, "二", 3, 4], "holds no number"),
        ([1, True, 3, 4], "holds no number"),
        ([1, float("nan"), 3, 4], "holds no number"),
    ],
)
def test_a_column_that_is_missing_or_no_number(tmp_path: Path, values: list[Any], told: str) -> None:
    with pytest.raises(DataError, match=told) as caught:
        encode(tmp_path, documents(grade=values), columns=["grade"])
    assert "grade" in str(caught.value)


def test_what_does_not_belong_together_is_refused(tmp_path: Path) -> None:
    tokens = encode(tmp_path, documents(group=["英", "日", "英", "日"]))
    np.save(tokens.path / "train-00000.sources.npy", np.zeros(3, dtype="<u2"))
    with pytest.raises(ArtifactError, match="do not belong together"):
        TokenStore.open(tokens.path)


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_numbers_of_the_user_s_own_rows_go_along(tmp_path: Path, form: str) -> None:
    rows = [
        {"text": f"{text}{number}", "年": 1900 + number, "grade": number / 4}
        for number, text in enumerate(TEXTS)
    ]
    file = tmp_path / f"rows.{form}"
    if form == "jsonl":
        file.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    elif form == "csv":
        lines = [f'"{row["text"]}",{row["年"]},{row["grade"]}' for row in rows]
        file.write_text("\n".join(["text,年,grade", *lines]), encoding="utf-8")
    else:
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    read = Read(path=str(file), heldout=0.0, numbers=["年", "grade", "none"])
    found = list(read.each((), Account()))
    assert [document.meta for document in found] == [{"年": 1900.0 + n, "grade": n / 4} for n in range(4)]
    tokens = encode(tmp_path / form, [documents()[0], *found], columns=["年"])
    store = TokenStore.open(tokens.path)
    assert store.columns is not None and store.columns[:, 0].tolist() == [1900, 1901, 1902, 1903]
    assert all(not document.meta for document in Read(path=str(file), heldout=0.0).each((), Account()))


def test_what_is_no_number_is_left_out_and_then_missed(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    held = [1.5, "2", True, None, "二", float("nan"), 10**400, [3]]
    rows = [{"text": f"{at} {TEXTS[0]}", "grade": value} for at, value in enumerate(held)]
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    found = list(Read(path=str(file), heldout=0.0, numbers=["grade"]).each((), Account()))
    assert [document.meta for document in found] == [{"grade": 1.5}, {"grade": 2.0}, *({} for _ in held[2:])]
    with pytest.raises(DataError, match="lacks the column 'grade'") as caught:
        encode(tmp_path / "made", found, columns=["grade"])
    assert "numbers: [grade]" in (caught.value.remedy or "")
    with pytest.raises(ValueError, match="no meaning for examples"):
        Read(path=str(file), kind="examples", numbers=["grade"])
