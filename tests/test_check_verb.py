"""`kogata check`: a newcomer's table, a recipe, the screen and JSON, mistakes with a remedy, exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from small_encoders import write_small_encoder
from small_tables import tickets, write_csv, write_jsonl, write_xlsx

from kogata import cli

Call = Callable[..., tuple[int, str, str]]
HEADER = ("番号", "問合せ文", "返事")
ASKED = ("--columns", "prompt=問合せ文,completion=返事")


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)  # A parallel run of the tests sets it.

    def run(*words: object) -> tuple[int, str, str]:
        code = cli.main([str(word) for word in words])
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.mark.parametrize("form", ["csv", "xlsx"])
def test_a_table_in_japanese_is_told_row_by_row(call: Call, tmp_path: Path, form: str) -> None:
    rows = [HEADER, *tickets(), ("T99", "空の返事", ""), *tickets(2)]
    if form == "csv":
        write_csv(tmp_path / "a.csv", rows, "cp932")
    else:
        write_xlsx(tmp_path / "a.xlsx", rows)
    code, out, err = call("check", f"a.{form}", *ASKED, "--group", "番号")
    assert code == 2 and not err, "a row cannot be used"
    assert "63 rows, 1 cannot be used" in out and "completion: prompt ← 問合せ文, completion ← 返事" in out
    assert "✗ 1 of 63 rows (1.6 %) cannot be used: completion is empty" in out
    assert f"a.{form}:62 · field 返事 · found" in out
    assert "! 2 rows (3.2 %) are copies of another" in out and "20, whose rows stay in one split" in out
    assert "1 problem, " in out and "remedy  fill it in, or leave the row out" in out
    code, out, _ = call("check", f"a.{form}", *ASKED, "--json")
    found = json.loads(out)
    assert code == 2 and found["rows"] == 63 and found["unusable"] == 1 and found["problems"] == 1
    assert found["columns"][f"a.{form}"] == {
        "form": "completion",
        "roles": {"prompt": "問合せ文", "completion": "返事"},
        "unused": ["番号"],
    }
    assert found["findings"][0]["rows"][0]["source"] == f"a.{form}:62"
    assert found["facts"]["splits"]["train"]["examples"] == 62


def test_a_number_is_no_text(call: Call, tmp_path: Path) -> None:
    """A wrong type is named with row, field and remedy; an answer and a spreadsheet's cell may be digits."""
    write_jsonl(tmp_path / "a.jsonl", [{"text": "猫が鳴く。"}, {"text": 3}])
    code, out, _ = call("check", "a.jsonl")
    assert code == 2 and "2 rows, 1 cannot be used" in out and "1 of 2 rows (50.0 %) cannot be used" in out
    assert "a.jsonl:2 · field text · found a number: 3 · expected a text" in out and "in quotes" in out
    write_jsonl(tmp_path / "b.jsonl", [{"text": 3}])
    code, out, err = call("check", "b.jsonl")
    assert code == 2 and "b.jsonl:1" in err and "a number: 3" in err and "in quotes" in err
    write_jsonl(tmp_path / "c.jsonl", [{"prompt": "一足す一は？", "completion": 2}])
    code, out, _ = call("check", "c.jsonl")
    assert code == 0 and "1 row," in out and "1 rows" not in out
    write_xlsx(tmp_path / "d.xlsx", [("質問", "回答"), (119, "消防")])
    assert call("check", "d.xlsx")[0] == 0


def test_good_rows_end_with_zero(call: Call, tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [("質問", "回答"), *[row[1:] for row in tickets()]])
    code, out, err = call("check", "a.csv")
    assert (code, err) == (0, "") and "✓ nothing wrong found" in out and "60 rows, all can be used" in out


def test_labels_lengths_and_a_model(call: Call, tmp_path: Path) -> None:
    write_small_encoder(tmp_path / "encoder")
    rows = [{"text": f"my card is lost {'please ' * (n % 50)}", "label": "ab"[n % 2]} for n in range(60)]
    write_jsonl(tmp_path / "a.jsonl", rows)
    code, out, _ = call("check", "a.jsonl", "--model", "encoder")
    assert code == 0 and "2 labels, rows in training" in out and "a text encoder: no chat format" in out
    assert "tokens a row: half up to" in out and "beyond" in out and "their ends are not read" in out


def test_other_files_are_compared(call: Call, tmp_path: Path) -> None:
    long = "The parcel with order number {} has left our warehouse in the north and will arrive on Monday."
    for name, start in (("a.csv", 0), ("b.csv", 100)):
        rows = [(f"Where is parcel {n}?", long.format(n)) for n in range(start, start + 3)]
        write_csv(tmp_path / name, [("question", "answer"), *rows])
    with (tmp_path / "b.csv").open("a", encoding="utf-8") as file:
        file.write("Where is parcel 1?,another answer\n")
    code, out, _ = call("check", "a.csv", "--heldout", "b.csv")
    assert code == 0 and "split heldout" in out and "nearly copies of a row in another split" in out
    assert "1 training row has a question or a group that other files hold out" in out


def test_a_recipe_says_columns_and_model_itself(call: Call, tmp_path: Path) -> None:
    write_csv(tmp_path / "rows.csv", [HEADER, *tickets()])
    columns = {"prompt": "問合せ文", "completion": "返事"}
    read = {"path": "rows.csv", "columns": columns, "heldout": 0.1}
    recipe = {"name": "a", "stages": [{"data.read": read}]}
    (tmp_path / "a.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    code, out, _ = call("check", "a.yaml")
    assert code == 0 and "split train" in out and "54 rows" in out and "split heldout" in out
    code, _, err = call("check", "a.yaml", "--group", "番号")
    assert code == 2 and "a recipe says itself" in err and "change group in data.read" in err


def test_texts_are_checked_too(call: Call, tmp_path: Path) -> None:
    (tmp_path / "novel.txt").write_text("吾輩は猫である。名前はまだ無い。" * 20, encoding="cp932")
    code, out, _ = call("check", "novel.txt")
    assert code == 0 and "1 row, all can be used" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["check"], ["DATA"]),
        (["check", "none.csv"], ["no such file, folder or pattern"]),
        (["check", "a.csv"], ["which columns hold", "columns: {prompt: 問合せ文", "--columns ROLE=HEADER"]),
        (["check", "a.csv", "--columns", "prompt=問合せ,completion=返事"], ["did you mean '問合せ文'?"]),
        (["check", "a.csv", "--columns", "問合せ文"], ["a column without its header"]),
        (["check", "a.csv", "--columns", "ask=問合せ文"], ["ask", "prompt"]),
        (["check", "a.csv", *ASKED, "--heldout", "0.9"], ["a share is a number from 0 to 0.5"]),
        (["check", "a.csv", *ASKED, "--context", "0"], ["--context"]),
        (["check", "a.csv", *ASKED, "--model", "minlm"], ["no such model", "did you mean 'minilm'"]),
        (["check", "a.csv", *ASKED, "--modle", "x"], ["did you mean --model?"]),
        (["check", "a.csv", "b.yaml"], ["one recipe is checked at a time"]),
    ],
    ids=lambda words: " ".join(words[1:])[:40] if words[0] == "check" else None,
)
def test_mistakes_have_a_remedy(words: list[str], said: list[str], call: Call, tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [HEADER, *tickets(9)])
    code, out, err = call(*words)
    assert code == 2 and not out
    assert all(piece in err for piece in said), err
