"""Checkpoints: whole or not at all, two kept, nothing pickled."""

from __future__ import annotations

from pathlib import Path

import torch

from kogata.engine.checkpoint import load_checkpoint, random_state, save_checkpoint, set_random_state


def test_what_is_saved_is_read(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(3, 4), "b": torch.tensor(7)}
    save_checkpoint(tmp_path, 12, tensors, {"place": {"taken": 3}, "text": "日本語"})
    found = load_checkpoint(tmp_path)
    assert found is not None and found.step == 12
    assert found.facts == {"place": {"taken": 3}, "text": "日本語"}
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in tensors.items())


def test_two_are_kept_and_nothing_is_pickled(tmp_path: Path) -> None:
    for step in (1, 2, 30, 4_000):
        save_checkpoint(tmp_path, step, {"a": torch.zeros(2)}, {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-000000030", "step-000004000"]
    assert {p.suffix for p in tmp_path.rglob("*") if p.is_file()} == {".safetensors", ".json"}


def test_a_damaged_newest_falls_back_to_the_one_before(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, {"a": torch.ones(2)}, {})
    newest = save_checkpoint(tmp_path, 2, {"a": torch.ones(2)}, {})
    content = (newest / "state.safetensors").read_bytes()
    (newest / "state.safetensors").write_bytes(content[:-4])
    found = load_checkpoint(tmp_path)
    assert found is not None and found.step == 1


def test_half_written_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "writing-123").mkdir()
    (tmp_path / "writing-123" / "state.json").write_text("{}")
    assert load_checkpoint(tmp_path) is None
    assert load_checkpoint(tmp_path / "nowhere") is None


def test_random_state_goes_on() -> None:
    torch.manual_seed(3)
    torch.rand(5)
    state = random_state()
    expected = torch.rand(4)
    set_random_state(state)
    assert torch.equal(torch.rand(4), expected)
