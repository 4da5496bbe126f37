"""The command line: results on stdout, progress on stderr, exit codes, mistakes with a remedy."""

from __future__ import annotations

import errno
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fabricated_run import receipts, write_run

from kogata import api, cli
from kogata.core.errors import DataError, EnvironmentProblem, Refused, Stopped
from kogata.runtime.nodes import Nodes

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Calls the command line in this process: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.delenv("COLUMNS", raising=False)  # A parallel run of the tests sets it.

    def run(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(arguments)
        out, err = capsys.readouterr()
        return code, out, err

    return run


def fails(error: BaseException) -> Callable[..., Any]:
    def raise_it(*_: Any, **__: Any) -> Any:
        raise error

    return raise_it


# Help and mistakes


def test_help_names_every_verb(call: Call) -> None:
    code, out, err = call("--help")
    assert code == 0 and not err
    for verb in cli.VERBS:
        assert f"\n  {verb} " in out
    code, out, err = call()
    assert code == 2 and "usage" in out


@pytest.mark.parametrize("verb", list(cli.VERBS))
def test_every_verb_explains_itself(verb: str, call: Call, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        call(verb, "--help")
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert f"usage: kogata {verb}" in out and (verb == "schema" or "--json" in out)


def test_the_release_is_told(call: Call) -> None:
    from kogata import __version__

    assert call("--version") == (0, f"kogata {__version__}\n", "")


QUICKSTART = Path(__file__).resolve().parents[1] / "examples" / "quickstart.yaml"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rnu", "r.yaml"], ["unknown verb 'rnu'", "did you mean `kogata run`?"]),
        (["r.yaml"], ["kogata run r.yaml"]),
        (["run", "r.yaml", "--proceses", "2"], ["--proceses", "did you mean --processes?"]),
        (["run", "r.yaml", "--lr", "0.02"], ["--lr", "--set STAGE.lr=VALUE"]),
        (["run", "r.yaml", "--learning-rate=1"], ["--learning-rate", "--set STAGE.learning_rate=VALUE"]),
        (["run"], ["RECIPE"]),
        (["run", "r.yaml", "--seed", "x"], ["--seed", "'x'"]),
        (["run", "r.yaml", "--processes", "0"], ["at least 1"]),
        (["run", "r.yaml", "--node", "2"], ["--node", "did you mean --nodes?"]),
        (["run", "a.yaml", "b.yaml"], ["b.yaml"]),
        (["store", "lsit"], ["did you mean 'list'?"]),
        (["compare", "r.yaml", "--match", "tims"], ["did you mean 'time'?"]),
        (["store", "rm"], ["nothing named"]),
        (["run", "missing.yaml"], ["missing.yaml"]),
        (["report", "missing"], ["not a run's folder", "missing"]),
        (["stages", "data.raed"], ["data.read"]),
        (["plan", str(QUICKSTART), "--set", "n_embd=64"], ["did you mean 'train.pretrain.model.width'?"]),
        (
            ["plan", str(QUICKSTART), "--set", "vocab_size=20"],
            ["too small for single bytes", "--set vocab_size=20", "at least 257", "method: characters"],
        ),
        (["new", "quikstart"], ["did you mean 'quickstart'?"]),
        (["new", "--data", "nowhere/*.txt"], ["nowhere/*.txt"]),
    ],
    ids=lambda value: " ".join(value)[:40],
)
def test_mistakes_exit_2_with_a_remedy(arguments: list[str], words: list[str], call: Call) -> None:
    code, out, err = call(*arguments)
    assert code == 2 and out == "", (out, err)
    for word in words:
        assert word in err, err
    assert "Traceback" not in err
    code, out, err = call(*arguments, "--json")
    assert code == 2 and err == ""
    assert json.loads(out)["error"]["what"]


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (Refused("the budget cannot hold this", found="5min", remedy="raise it"), 3, ["error", "raise it"]),
        (Stopped("stopped by Ctrl-C", remedy="the same command goes on"), 130, ["stopped", "goes on"]),
        (KeyboardInterrupt(), 130, ["stopped"]),
        (DataError("bad row", where="a.csv:3", found="x\ny"), 2, ["a.csv:3", "x\n" + " " * 12 + "y"]),
        (OSError(errno.ENOSPC, "x"), 2, ["the disk is full", "free some space"]),
        (PermissionError(errno.EACCES, "x", "store"), 2, ["no permission", "store", "KOGATA_HOME"]),
        (FileNotFoundError(errno.ENOENT, "x", "lost"), 1, ["our bug", "FileNotFoundError"]),
        (ZeroDivisionError("division by zero"), 1, ["our bug", "ZeroDivisionError", "traceback"]),
    ],
    ids=["refused", "stopped", "ctrl-c", "data", "full", "forbidden", "lost", "bug"],
)
def test_exit_codes(
    error: BaseException, code: int, words: list[str], call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "store_list", fails(error))
    found, out, err = call("store")
    assert found == code and out == ""
    for word in words:
        assert word in err, err
    found, out, _ = call("store", "--json")
    assert found == code and json.loads(out)["error"]


def test_a_stop_by_sigterm_keeps_its_own_code(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = Stopped("stopped by SIGTERM")
    stopped.exit_code = 143
    monkeypatch.setattr(api, "store_list", fails(stopped))
    assert call("store")[0] == 143


def test_a_bug_leaves_its_traceback_in_a_file(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "store_list", fails(ZeroDivisionError("division by zero")))
    _, _, err = call("store")
    place = Path(err.rsplit(" in ", 1)[1].strip())
    assert "ZeroDivisionError" in place.read_text(encoding="utf-8")
    place.unlink()


def test_torchrun_is_refused_with_the_right_command(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("TORCHELASTIC_RUN_ID", "none"), ("RANK", "1"), ("WORLD_SIZE", "4")):
        monkeypatch.setenv(name, value)
    code, out, err = call("run", "r.yaml")
    assert code == 2 and "kogata run r.yaml --processes 4" in err and not out


# Verbs


def test_run_prints_the_result_and_hands_on_what_was_asked(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def load(path: str, settings: list[str], **rest: Any) -> str:
        asked.update(path=path, settings=settings, **rest)
        return "the recipe"

    def run(recipe: str, *, screen: Any, **rest: Any) -> Any:
        asked.update(recipe=recipe, **rest)
        screen.event("note", text="at work")
        return SimpleNamespace(path=Path("runs/novels"), status="done", receipts=receipts())

    monkeypatch.setattr(api.Recipe, "load", load)
    monkeypatch.setattr(api, "run", run)
    options = ["--set", "train.pretrain.lr=0.02", "--set", "data.read.path=a b", "--budget", "time=5min",
               "--seed", "3", "--out", "here", "--fresh", "evaluate", "--processes", "2"]  # fmt: skip
    code, out, err = call("run", "r.yaml", *options)
    assert code == 0
    assert asked.pop("started") <= cli.STARTED
    assert asked == {
        "path": "r.yaml", "settings": ["train.pretrain.lr=0.02", "data.read.path=a b"],
        "budget": ["time=5min"], "seed": 3, "allow_plugins": False,
        "recipe": "the recipe", "out": Path("here"), "fresh": ["evaluate"],
        "processes": 2, "nodes": Nodes(),
    }  # fmt: skip
    assert "at work" in err and "at work" not in out
    for words in (
        "1.731 bits per byte", "58.4% ± 0.7%", "4.21M parameters", "3min42s", "3.11–8.43kJ",
        "runs/novels/model-q8_0.gguf  4.67MiB", "runs/novels/report.html", "kogata generate",
    ):  # fmt: skip
        assert words in out, words
    assert all(line == line.rstrip() for line in out.splitlines())
    code, out, err = call("run", "r.yaml", "--json", "--quiet")
    found = json.loads(out)
    assert code == 0 and err == ""
    assert found["status"] == "done" and found["highlights"]["bits_per_byte"] == 1.7312
    assert [row["label"] for row in found["receipts"]][-1] == "export"


def test_a_node_that_is_not_the_first_lends_its_processes(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(api.Recipe, "load", lambda path, settings, **rest: "the recipe")
    monkeypatch.setattr(api, "run", None)
    monkeypatch.setattr(api, "lend", lambda recipe, *, screen, **rest: asked.update(recipe=recipe, **rest))
    words = ["run", "r.yaml", "--nodes", "3", "--node-rank", "2", "--rendezvous", "10.0.0.1:29400"]
    code, out, _ = call(*words, "--json")
    assert code == 0 and json.loads(out) == {"node": 2, "status": "done"}
    place = Nodes(count=3, rank=2, host="10.0.0.1", port=29400)
    assert asked == {"recipe": "the recipe", "nodes": place, "processes": 1}
    code, out, err = call(*words[:-2])
    assert code == 2 and "--rendezvous" in err and "HOST:PORT" in err and not out


def test_report_writes_the_page_again(call: Call, tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "novels")
    code, out, _ = call("report", "runs/novels")
    assert code == 0 and out == "runs/novels/report.html\n"
    assert (tmp_path / "runs/novels/report.html").stat().st_size > 20_000
    code, out, _ = call("report", "runs/novels", "--json")
    assert json.loads(out) == {"path": "runs/novels/report.html"}


def test_generate_streams_and_reads_a_pipe(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def generate(model: str, prompt: str, **rest: Any) -> Any:
        seen.append((model, prompt, rest))
        return iter([" of", " the 猫"])

    monkeypatch.setattr(api, "generate", generate)
    arguments = ["generate", "runs/novels", "--tokens", "5", "--temperature", "0", "--seed", "7"]
    code, out, _ = call(*arguments, "The end")
    assert code == 0 and out == "The end of the 猫\n"
    assert seen[-1] == ("runs/novels", "The end", {"tokens": 5, "temperature": 0.0, "seed": 7})
    monkeypatch.setattr(sys, "stdin", io.StringIO("From a pipe\n"))
    assert call(*arguments)[1] == "From a pipe of the 猫\n"
    code, out, _ = call(*arguments, "x", "--json")
    assert json.loads(out) == {"prompt": "x", "text": " of the 猫"}


def test_a_model_that_is_not_there_is_said_before_any_text(call: Call) -> None:
    code, out, err = call("generate", "nowhere", "The end")
    assert code == 2 and out == "" and "no such model" in err and "nowhere" in err


class FakeTalk:
    """Answers with what it was asked."""

    def __init__(self) -> None:
        self.messages: list[dict[str, str]] = []
        self.forgotten = 0

    def say(self, text: str) -> Any:
        self.messages += [{"role": "user", "content": text}, {"role": "assistant", "content": f"{text}!"}]
        return iter([text, "!"])

    def again(self) -> None:
        self.messages.clear()


def test_chat_answers_a_question_a_pipe_and_json(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def chat(model: str, **rest: Any) -> FakeTalk:
        seen.append((model, rest))
        return FakeTalk()

    monkeypatch.setattr(api, "chat", chat)
    code, out, _ = call("chat", "runs/support", "荷物は？", "--system", "s", "--tokens", "5", "--seed", "7")
    assert code == 0 and out == "荷物は？!\n"
    assert seen == [("runs/support", {"system": "s", "tokens": 5, "temperature": 0.7, "seed": 7})]
    monkeypatch.setattr(sys, "stdin", io.StringIO("one\n\n二\n/new\nthree\n"))
    assert call("chat", "m")[1] == "one!\n二!\nthree!\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO("one\n二\n"))
    found = json.loads(call("chat", "m", "--json")[1])["messages"]
    assert [message["content"] for message in found] == ["one", "one!", "二", "二!"]


def test_compare_reads_the_values_to_try(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    gap = {"mean": -0.0312, "low": -0.041, "high": -0.02, "pairs": 3}
    score = {
        "mean": 1.7,
        "half_width": 0.01,
        "values": [1.7, 1.7, 1.7],
        "difference": gap,
        "verdict": "better",
    }
    rows = [
        {"variant": "as it stands", "measures": {"bits_per_byte": {"mean": 1.73, "half_width": None}}},
        {
            "variant": "train.pretrain.lr=0.01",
            "measures": {"bits_per_byte": score, "peak_bytes": {"mean": 2.0**30}},
        },
    ]

    def compare(recipe: Any, *, screen: Any, **rest: Any) -> Any:
        asked.update(rest)
        found = {"name": "novels", "seeds": [0, 1, 2], "match": "time", "judged_by": "bits_per_byte"}
        return SimpleNamespace(to_dict=lambda: found | {"rows": rows}, path=Path("runs/novels-compare"))

    monkeypatch.setattr(api.Recipe, "load", lambda *_, **__: "recipe")
    monkeypatch.setattr(api, "compare", compare)
    options = [
        "--set",
        "train.pretrain.lr=0.01,1e-3",
        "--set",
        "a.b=[1, 2],{c: 3, d: 4}",
        "--without",
        "data.dedup",
    ]
    code, out, _ = call("compare", "r.yaml", *options, "--seeds", "5", "--match", "steps")
    assert code == 0, out
    assert asked["settings"] == {"train.pretrain.lr": [0.01, 0.001], "a.b": [[1, 2], {"c": 3, "d": 4}]}
    assert asked["without"] == ["data.dedup"] and asked["seeds"] == 5 and asked["match"] == "steps"
    page = str(Path("runs/novels-compare/report.html"))
    for words in ("-0.0312 [-0.0410, -0.0200]", "better", "1.7000 ± 0.0100", "1GiB", "as it stands", page):
        assert words in out, out
    code, out, _ = call("compare", "r.yaml", *options, "--json")
    assert json.loads(out)["rows"][1]["variant"] == "train.pretrain.lr=0.01"
    assert call("compare", "r.yaml", "--set", "lr")[0] == 2


def test_stages_and_cards(call: Call) -> None:
    code, out, _ = call("stages")
    assert code == 0 and "data.read" in out
    code, out, _ = call("stages", "data.read")
    assert code == 0
    for words in ("pays when", "hurts when", "heldout", "must be given"):
        assert words in out
    cards = json.loads(call("stages", "--json")[1])
    assert {card["name"] for card in cards} >= {"data.read"}
    assert json.loads(call("stages", "data.read", "--json")[1])["settings"]


def test_store_lists_and_frees(call: Call, fresh_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call("store")[1] == "the store is empty\n"
    assert json.loads(call("store", "list", "--json")[1]) == []
    row = {
        "object": "abc",
        "kind": "model",
        "stage": "train.pretrain",
        "bytes": 2**20,
        "made": "2026-11-24T04:31",
    }
    monkeypatch.setattr(api, "store_list", lambda: [row | {"seconds": 12.3, "keys": []}])
    out = call("store")[1]
    assert "abc" in out and "1MiB" in out and "12.3s" in out
    asked: list[Any] = []
    monkeypatch.setattr(api, "store_free", lambda amount: asked.append(amount) or 4096)
    assert call("store", "free", "--bytes", "2GiB")[1] == "freed 4KiB\n" and asked == [2 * 2**30]
    code, _, err = call("store", "free", "--bytes", "2")
    assert code == 2 and "unit" in err


def test_doctor_looks_without_changing(call: Call, fresh_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kogata.runtime import machine

    found = {"device": "cpu", "gemm_flops": 1.84e11, "gemm_small_flops": 1e11, "stream_bytes": 1.7e10,
             "text_bytes": 1.6e6, "cpu_share": 0.99}  # fmt: skip
    monkeypatch.setattr(machine, "_probe", lambda cores, device, bf16: found)
    code, out, _ = call("doctor", "--json")
    checks = {check["name"]: check for check in json.loads(out)}
    assert {"python", "torch", "llama.cpp", "C++ compiler", "memory", "store"} <= set(checks)
    assert checks["speed"]["found"] == "products 184GFLOP/s, copying 17GB/s, text on one core 1.6MB/s"
    assert code == (2 if any(check["state"] == "bad" for check in checks.values()) else 0)
    assert not (fresh_home / "store").exists()


def test_doctor_says_when_the_computer_cannot_be_measured(
    call: Call, fresh_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kogata.runtime import machine

    def torchless(cores: int, device: str, bf16: bool) -> Any:
        raise EnvironmentProblem("torch is not installed", remedy="install Kogata with its dependencies")

    monkeypatch.setattr(machine, "_probe", torchless)
    code, out, _ = call("doctor", "--json")
    checks = {check["name"]: check for check in json.loads(out)}
    assert code == 2 and checks["speed"] | {"found": ""} == {
        "name": "speed", "state": "bad", "found": "", "remedy": "install Kogata with its dependencies",
    }  # fmt: skip


# Starting from an example


@pytest.mark.parametrize("example", ["quickstart", "japanese", "shakespeare"])
def test_new_writes_a_recipe_whose_data_are_found(example: str, call: Call, tmp_path: Path) -> None:
    from kogata.core.paths import expand_input
    from kogata.runtime.yaml_text import read_file

    code, out, err = call("new", example)
    assert code == 0 and f"kogata run {example}.yaml" in out, err
    path = tmp_path / f"{example}.yaml"
    assert "#" in path.read_text(encoding="utf-8")
    recipe = read_file(path)[1].value
    settings = recipe["stages"][0]["data.read"]
    assert expand_input(str(tmp_path / settings["path"]))
    code, _, err = call("new", example)
    assert code == 2 and "there already" in err


def test_new_takes_data_and_model(call: Call, tmp_path: Path) -> None:
    from kogata.runtime.yaml_text import read_file

    folder = tmp_path / "私の 文書"
    folder.mkdir()
    (folder / "a.txt").write_text("吾輩は猫である。", encoding="utf-8")
    arguments = [
        "new",
        "--data",
        str(folder),
        "--model",
        "HuggingFaceTB/SmolLM2-135M",
        "--out",
        "sub/mine.yaml",
    ]
    code, out, err = call(*arguments, "--json")
    assert code == 0 and json.loads(out) == {"path": "sub/mine.yaml"}, err
    recipe = read_file(tmp_path / "sub/mine.yaml")[1].value
    names = [next(iter(stage)) for stage in recipe["stages"]]
    assert names[:4] == ["data.read", "data.filter", "data.dedup", "model.read"]
    assert names[4:] == ["tokenizer.encode", "train.pretrain", "evaluate", "export"]
    assert recipe["stages"][0]["data.read"] == {"path": "../私の 文書", "heldout": 0.05}
    assert recipe["stages"][3]["model.read"] == {"name": "HuggingFaceTB/SmolLM2-135M"}


# As a process of its own


def test_as_a_process(kogata: Any, tmp_path: Path) -> None:
    done = kogata("stages", "--jsno", code=2)
    assert "--json" in done.stderr and not done.stdout
    done = kogata("new", "--out", "r.yaml", cwd=tmp_path, env={"PYTHONIOENCODING": "ascii"})
    assert "wrote r.yaml" in done.stdout
