"""The runner: reuse by key, fused stages, nested runs, kills, signals, locks, budgets. No torch here."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from kogata import api
from kogata.core.errors import DataError, KogataError, RecipeError, Refused
from kogata.runtime import pulse
from kogata.runtime.ledger import read_receipts, read_rows
from kogata.runtime.run import slowness

TOYS = Path(__file__).with_name("toy_stages.py")


@pytest.fixture
def place(tmp_path: Path, fresh_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with the toys beside it and an empty store."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(TOYS, tmp_path / "toy_stages.py")
    return tmp_path


def recipe(place: Path, *stages: dict[str, Any], **top: Any) -> Any:
    parts = {"name": "toy", "plugins": ["toy_stages.py"], "stages": list(stages), **top}
    path = place / f"{parts['name']}.yaml"
    path.write_text(json.dumps(parts, ensure_ascii=False), encoding="utf-8")
    return api.Recipe.load(path)


def statuses(run: api.Run) -> dict[str, str]:
    return {receipt.label: receipt.status for receipt in run.receipts}


CHAIN: tuple[dict[str, Any], ...] = (
    {"toy.words": {"number": 5}},
    {"toy.odd": {}},
    {"toy.train": {"steps": 3}},
    {"toy.score": {}},
)


def test_a_run_leaves_receipts_and_a_second_one_reuses_everything(place: Path) -> None:
    first = api.run(recipe(place, *CHAIN))
    assert statuses(first) == {
        "toy.words": "fused",
        "toy.odd": "done",
        "toy.train": "done",
        "toy.score": "done",
    }
    account = first.receipts[1].facts["account"]
    assert account["reasons"] == {"even": 2}
    train = first.receipts[2]
    assert train.cost is not None
    assert (train.cost.tokens, train.cost.flops) == (30, 3e6)
    assert train.cost.seconds is not None and train.cost.seconds > 0
    assert [row["step"] for row in first.metrics()] == [1, 2, 3]
    for name in ("recipe.yaml", "plan.json", "receipts.jsonl", "metrics.jsonl", "report.html"):
        assert (first.path / name).exists(), name
    second = api.run(recipe(place, *CHAIN))
    assert second.path == first.path
    assert set(statuses(second).values()) == {"reused"}
    assert [item.made for item in second.receipts] == [item.made for item in first.receipts]
    assert second.receipts[2].first_cost == train.cost


def test_changing_a_setting_reruns_only_what_depends_on_it(place: Path) -> None:
    api.run(recipe(place, *CHAIN))
    changed = (CHAIN[0], CHAIN[1], {"toy.train": {"steps": 4}}, CHAIN[3])
    run = api.run(recipe(place, *changed))
    assert run.path.name == "toy-2"
    assert statuses(run) == {
        "toy.words": "reused",
        "toy.odd": "reused",
        "toy.train": "done",
        "toy.score": "done",
    }


def test_seeds_share_every_stage_before_the_first_random_one(place: Path) -> None:
    api.run(recipe(place, *CHAIN))
    run = api.run(recipe(place, *CHAIN, seed=1))
    assert statuses(run)["toy.odd"] == "reused"
    assert statuses(run)["toy.train"] == "done"


def test_fresh_does_not_reuse(place: Path) -> None:
    api.run(recipe(place, *CHAIN))
    run = api.run(recipe(place, *CHAIN), fresh=["toy.train"])
    assert statuses(run)["toy.train"] == "done"
    assert statuses(run)["toy.odd"] == "reused"
    with pytest.raises(KogataError, match="did you mean 'toy.train'"):
        api.run(recipe(place, *CHAIN), fresh=["toy.trian"])


def test_a_failure_leaves_a_receipt_and_nothing_half_written(place: Path) -> None:
    with pytest.raises(DataError, match="a bad row"):
        api.run(recipe(place, {"toy.words": {"fail": True}}, *CHAIN[2:]))
    receipts = read_receipts(place / "runs" / "toy")
    assert receipts[-1].status == "failed"
    assert "rows.csv:3" in (receipts[-1].reason or "")
    objects = place / "kogata-home" / "store" / "objects"
    assert not objects.exists() or not any(objects.iterdir())


def test_a_nested_run_is_a_child_of_its_stage(place: Path) -> None:
    run = api.run(recipe(place, CHAIN[0], {"toy.search": {}}))
    rows = read_rows(run.path)
    children = [row for row in rows if row["parent"]]
    assert [row["label"] for row in children] == ["trial-1", "trial-2"]
    assert run.receipts[-1].facts["trials"] == [1, 2]
    parent = run.receipts[-1]
    assert parent.cost is not None and parent.cost.seconds is not None
    assert sum(row["cost"]["seconds"] for row in children) <= parent.cost.seconds
    again = api.run(recipe(place, CHAIN[0], {"toy.search": {}}))
    assert set(statuses(again).values()) == {"reused"}


def test_a_damaged_artifact_is_refused_by_name(place: Path) -> None:
    run = api.run(recipe(place, *CHAIN))
    folder = Path(run.receipts[2].path or "")
    (folder / "model.txt").write_text("tampered")
    with pytest.raises(KogataError, match=f"artifact {folder.name} is damaged") as caught:
        api.run(recipe(place, *CHAIN))
    assert f"kogata store rm {folder.name}" in str(caught.value)
    api.store_remove(folder.name)
    assert statuses(api.run(recipe(place, *CHAIN)))["toy.train"] == "done"


def test_a_time_budget_is_shared_and_kept(place: Path) -> None:
    chain = (CHAIN[0], {"toy.train": {}}, CHAIN[3])
    made = recipe(place, *chain, budget={"time": "14s"})
    run = api.run(made)
    assert run.receipts[1].settings["size"] >= 5
    steps = run.receipts[1].facts["training"]["steps"]
    assert steps > 1
    spent = json.loads((run.path / "state.json").read_text())["spent_seconds"]
    assert spent > 10
    again = api.run(made)
    assert set(statuses(again).values()) == {"reused"}


def test_a_computer_slower_than_its_profile_leaves_more_for_what_follows_training() -> None:
    assert slowness(10.0, 15.0) == 1.5 and slowness(10.0, 60.0) == 2.0
    assert slowness(10.0, 6.0) == 1.0  # Faster than forecast is no reason to cut it fine.
    assert slowness(0.5, 5.0) == 1.0


def test_a_budget_that_cannot_hold_the_plan_is_refused_before_the_start(place: Path) -> None:
    with pytest.raises(Refused, match="time: the stages need"):
        api.run(recipe(place, CHAIN[0], {"toy.train": {"steps": 1000, "pause": 1.0}}, budget={"time": "20s"}))
    with pytest.raises(Refused, match="memory: toy.words needs"):
        api.run(recipe(place, *CHAIN, budget={"memory": "50MB"}, name="small"))


def test_a_stage_that_passes_the_memory_budget_is_stopped(place: Path) -> None:
    hog = {"toy.train": {"steps": 400, "hog_bytes": 600_000_000, "pause": 0.02}}
    with pytest.raises(Refused, match="passed the memory budget"):
        api.run(recipe(place, CHAIN[0], hog, budget={"memory": "500MB"}))
    assert read_receipts(place / "runs" / "toy")[-1].status == "refused"


def test_several_processes_and_a_lost_rank(place: Path) -> None:
    run = api.run(recipe(place, *CHAIN), processes=2)
    assert run.receipts[2].facts["world"] == 2
    dying = {"toy.train": {"steps": 30, "die": 2, "pause": 0.05}}
    with pytest.raises(KogataError, match="rank 1 of 2 was lost"):
        api.run(recipe(place, CHAIN[0], dying, name="dying"), processes=2)


def test_a_rank_that_hangs_is_named_and_the_others_end(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulse, "LOST_SECONDS", 4.0)
    hanging = {"toy.train": {"steps": 100_000, "hang": 3, "pause": 0.02}}
    with pytest.raises(KogataError, match="toy.train: rank 1 of 2 hangs and is given up") as caught:
        api.run(recipe(place, CHAIN[0], hanging, name="hanging"), processes=2)
    assert caught.value.exit_code == 1 and "is stopped" in str(caught.value.found)
    assert read_receipts(place / "runs" / "hanging")[-1].status == "failed"


def test_another_number_of_processes_does_not_go_on(place: Path) -> None:
    path = place / "runs" / "toy" / "state.json"
    made = recipe(place, *CHAIN)
    api.run(made, processes=2)
    assert json.loads(path.read_text())["processes"] == 2
    api.run(made, processes=1)  # What is finished is no matter of processes.
    stopped = {**json.loads(path.read_text()), "status": "stopped", "processes": 2}
    path.write_text(json.dumps(stopped))
    with pytest.raises(RecipeError) as caught:
        api.run(made, processes=1)
    assert "--processes 2" in str(caught.value.expected) and caught.value.exit_code == 2
    assert api.run(made, processes=2).receipts[-1].status in ("done", "reused")


def start(place: Path, path: Path) -> subprocess.Popen[bytes]:
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root / "src")}
    code = "import sys; from kogata.cli import main; sys.exit(main())"
    words = [sys.executable, "-c", code, "run", str(path), "--json"]
    return subprocess.Popen(words, cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_for_step(place: Path, step: int) -> None:
    metrics = place / "runs" / "toy" / "metrics.jsonl"
    for _ in range(1200):
        if metrics.exists() and len(metrics.read_text().splitlines()) >= step:
            return
        time.sleep(0.05)
    raise AssertionError("it never got that far")


SLOW = (CHAIN[0], {"toy.train": {"steps": 60, "pause": 0.05}}, CHAIN[3])


def test_killed_and_started_again_it_goes_on_and_the_ledger_is_whole(place: Path) -> None:
    made = recipe(place, *SLOW)
    process = start(place, place / "toy.yaml")
    wait_for_step(place, 10)
    process.kill()
    process.communicate()
    before = json.loads((place / "runs" / "toy" / "state.json").read_text())
    assert before["status"] == "running"
    run = api.run(made)
    assert (Path(run.receipts[1].path or "") / "model.txt").read_text().startswith("60 ")
    assert [row["step"] for row in run.metrics()] == list(range(1, 61))
    assert run.receipts[1].facts["began"] >= 9
    for line in (run.path / "receipts.jsonl").read_bytes().splitlines():
        json.loads(line)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_cleanly_and_the_same_command_goes_on(place: Path, signum: int, code: int) -> None:
    recipe(place, *SLOW)
    process = start(place, place / "toy.yaml")
    wait_for_step(place, 5)
    process.send_signal(signum)
    process.communicate(timeout=60)
    assert process.returncode == code
    assert read_receipts(place / "runs" / "toy")[-1].status == "stopped"
    run = api.run(api.Recipe.load(place / "toy.yaml"))
    assert statuses(run)["toy.train"] == "done"


def test_four_runs_at_once_make_the_shared_stages_once(place: Path) -> None:
    processes = []
    for seed in range(4):
        slow = ({"toy.words": {}}, {"toy.train": {"steps": 5}})
        recipe(place, *slow, seed=seed, name=f"toy-{seed}")
        processes.append(start(place, place / f"toy-{seed}.yaml"))
    for process in processes:
        out, err = process.communicate(timeout=110)
        assert process.returncode == 0, err.decode()[-2000:] + out.decode()[-2000:]
    made = [read_receipts(place / "runs" / f"toy-{seed}")[0].status for seed in range(4)]
    assert sorted(made) == ["done", "reused", "reused", "reused"]
