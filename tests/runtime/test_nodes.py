"""Two "computers" on loopback, each with a store of its own, run what one runs with two processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from training_bench import stages

from kogata import api
from kogata.core.errors import EnvironmentProblem, RecipeError
from kogata.runtime import nodes as meeting
from kogata.runtime import pulse
from kogata.runtime.ledger import read_receipts
from kogata.runtime.link import Link, LinkLost
from kogata.runtime.nodes import Nodes, difference, gathered, greeting, mismatch

ROOT = Path(__file__).resolve().parents[2]
TOYS = Path(__file__).with_name("toy_stages.py").read_text(encoding="utf-8")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def write_recipe(place: Path, parts: dict[str, Any]) -> Path:
    place.mkdir(exist_ok=True)
    (place / "toy_stages.py").write_text(TOYS, encoding="utf-8")
    path = place / "recipe.yaml"
    path.write_text(json.dumps(parts, ensure_ascii=False), encoding="utf-8")
    return path


def start(place: Path, rank: int, port: int, *more: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "KOGATA_HOME": str(place / "home")}
    code = "import sys; from kogata.cli import main; sys.exit(main())"
    words = [sys.executable, "-c", code, "run", "recipe.yaml", "--nodes", "2", "--node-rank", str(rank)]
    words += ["--rendezvous", f"127.0.0.1:{port}", *more]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        words, cwd=place, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    )


def end(processes: list[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    """Waits for the nodes; gives exit code, output and what was said of each."""
    found = []
    for process in processes:
        out, err = process.communicate(timeout=280)
        found.append((process.returncode, out, err))
    return found


def run_two(tmp_path: Path, parts: dict[str, Any], other: dict[str, Any] | None = None) -> Any:
    port = free_port()
    for rank, each in enumerate((parts, other or parts)):
        write_recipe(tmp_path / f"node-{rank}", each)
    return end([start(tmp_path / f"node-{rank}", rank, port, "--json") for rank in (1, 0)])[::-1]


def toys(**train: Any) -> dict[str, Any]:
    made = [{"toy.words": {"number": 5}}, {"toy.train": {"steps": 3, **train}}, {"toy.score": {}}]
    return {"name": "toy", "plugins": ["toy_stages.py"], "stages": made}


def test_the_first_node_makes_everything_and_the_other_lends_processes(tmp_path: Path) -> None:
    first, second = run_two(tmp_path, toys())
    assert first[0] == 0 and second[0] == 0, first[2] + second[2]
    assert json.loads(second[1]) == {"node": 1, "status": "done"}
    receipts = read_receipts(tmp_path / "node-0" / "runs" / "toy")
    assert [receipt.status for receipt in receipts] == ["done", "done", "done"]
    assert receipts[1].facts["world"] == 2
    assert not (tmp_path / "node-1" / "runs").exists()
    store = tmp_path / "node-1" / "home" / "store"
    # It was sent what the divided stage takes, and keeps no half-done work.
    assert [path.name for path in (store / "objects").iterdir()] == [receipts[0].made[:32]]  # type: ignore[index]
    assert not [path for path in (store / "partial").rglob("*") if path.is_file()]


def test_nodes_with_other_recipes_are_refused_by_name_on_both(tmp_path: Path) -> None:
    for number, (code, out, err) in enumerate(run_two(tmp_path, toys(), toys(steps=4))):
        told = json.loads(out)["error"] if out.strip().startswith("{") else {"what": err}
        assert code == 2, (number, out, err)
        text = json.dumps(told)
        for word in (
            "node 1 does not run what node 0 runs",
            "stages.toy.train.steps",
            "4 on node 1",
            "3, as on",
        ):
            assert word in text, (word, text)
    assert not (tmp_path / "node-0" / "runs").exists()


@pytest.fixture
def one_core() -> Iterator[None]:
    """Bits are equal where a process has as many threads, and plans for as many cores."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    yield
    os.sched_setaffinity(0, allowed)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("one_core")
def test_two_nodes_give_the_bits_of_two_processes_also_after_one_was_lost(
    tmp_path: Path, fresh_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = {"name": "both", "stages": stages(60, checkpoint_every=5)}
    port = free_port()
    for rank in (0, 1):
        write_recipe(tmp_path / f"node-{rank}", parts)
    both = [start(tmp_path / f"node-{rank}", rank, port, "--json") for rank in (0, 1)]
    metrics = tmp_path / "node-0" / "runs" / "both" / "metrics.jsonl"
    for _ in range(4000):
        if metrics.exists() and len(metrics.read_text().splitlines()) > 12:
            break
        time.sleep(0.05)
    os.killpg(both[1].pid, signal.SIGKILL)
    code, out, err = end(both)[0]
    assert code == 1 and "rank 1 of 2 on node 1 was lost" in out + err, (code, out, err)
    first, second = run_two(tmp_path, parts)
    assert first[0] == 0 and second[0] == 0, first[2] + second[2]
    resumed = read_receipts(tmp_path / "node-0" / "runs" / "both")[-1]
    assert resumed.status == "done" and "going on from step" in first[2]
    monkeypatch.chdir(tmp_path)
    whole = api.run(api.Recipe.load(tmp_path / "node-0" / "recipe.yaml"), processes=2)
    assert resumed.made == whole.receipts[-1].made


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ((1, 0, "h:1"), "--nodes"),
        ((0, None, None), "--nodes"),
        ((1, 1, None), "--nodes"),
        ((65, 0, "h:1"), "--nodes"),
        ((2, None, "h:1"), "--node-rank"),
        ((2, 2, "h:1"), "--node-rank"),
        ((2, 0, None), "--rendezvous"),
        ((2, 0, "10.0.0.1"), "--rendezvous"),
        ((2, 0, "h:70000"), "--rendezvous"),
    ],
)
def test_a_wrong_place_among_nodes_is_refused(given: Any, where: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Nodes.of(*given)
    assert caught.value.where == where and caught.value.expected


def test_a_place_among_nodes_is_read() -> None:
    assert Nodes.of(1, None, None) == Nodes()
    assert Nodes.of(2, 1, "host.example:29400") == Nodes(count=2, rank=1, host="host.example", port=29400)
    assert Nodes.of(2, 0, "[::1]:80").host == "::1"


def test_what_differs_is_found_and_input_files_are_no_difference(tmp_path: Path) -> None:
    made = [api.Recipe.load({"name": "n", "seed": seed, "stages": stages(4)}) for seed in (0, 0, 1)]
    here, same, other = (greeting(one, Nodes(), 1, "cpu") for one in made)
    assert mismatch(1, here, json.loads(json.dumps(same))) is None
    error = mismatch(1, here, other)
    assert error is not None and error.where == "seed" and "1 on node 1" in str(error.found)
    assert "input.txt.gz" not in json.dumps(here)
    older = json.loads(json.dumps(here))
    older["version of"]["torch"] = "1.0"
    found = difference(here, older)
    assert found is not None and found[0] == "version of.torch" and found[2] == "1.0"
    assert difference(here, None) is not None


@pytest.fixture
def ends() -> Iterator[tuple[Link, Link]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    pair = Link(near), Link(far)
    yield pair
    for link in pair:
        link.close()


def test_messages_and_files_arrive_whole(ends: tuple[Link, Link], tmp_path: Path) -> None:
    here, there = ends
    (tmp_path / "from" / "深い").mkdir(parents=True)
    paths = [tmp_path / "from" / "深い" / "a.bin", tmp_path / "from" / "empty"]
    paths[0].write_bytes(os.urandom(3_000_000))
    paths[1].write_bytes(b"")
    sizes = {path.relative_to(tmp_path / "from").as_posix(): path.stat().st_size for path in paths}
    sending = threading.Thread(target=here.send, args=({"do": "artifact", "files": sizes}, paths))
    sending.start()
    message = there.receive()
    there.receive_files(tmp_path / "to", message["files"])
    sending.join()
    here.send({"do": "後"})
    assert there.receive() == {"do": "後"}
    for name in sizes:
        assert (tmp_path / "to" / name).read_bytes() == (tmp_path / "from" / name).read_bytes()


@pytest.mark.parametrize("name", ["../out", "/etc/out", "a/../../out", "..\\out"])
def test_no_file_lands_outside_its_folder(ends: tuple[Link, Link], tmp_path: Path, name: str) -> None:
    with pytest.raises(LinkLost, match="outside its folder"):
        ends[0].receive_files(tmp_path, {name: 1})
    assert not list(tmp_path.iterdir())


def test_a_closed_a_silent_and_a_strange_end_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "LOST_SECONDS", 2.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        for said, match in ((b"", "gave no sign of life"), (b"GET /\n", "no message"), (None, "closed")):
            stranger = socket.create_connection(server.getsockname())
            connection, _ = server.accept()
            link = Link(connection)
            if said is None:
                stranger.shutdown(socket.SHUT_WR)
            else:
                stranger.sendall(said)
            with pytest.raises(LinkLost, match=match):
                link.receive()
            stranger.close()
            link.close()


def test_who_does_not_come_is_named_and_a_taken_place_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meeting, "MEET_SECONDS", 1.0)
    recipe = api.Recipe.load({"name": "n", "stages": stages(4)})
    nodes = Nodes(count=3, rank=0, host="127.0.0.1", port=free_port())
    with pytest.raises(EnvironmentProblem, match="node 1, 2 did not come"):
        with gathered(nodes, recipe, 1, "cpu", lambda text: None):
            raise AssertionError("nobody came")
    with socket.create_server(("127.0.0.1", nodes.port)):
        with pytest.raises(EnvironmentProblem, match="cannot wait for the others"):
            with gathered(nodes, recipe, 1, "cpu", lambda text: None):
                raise AssertionError("the place is taken")
