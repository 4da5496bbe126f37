"""Plots in the docs are what the result files say."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def plots() -> ModuleType:
    spec = importlib.util.spec_from_file_location("kogata_plots", ROOT / "scripts" / "plots.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_plots_are_as_the_results_say(plots: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    code = plots.main(["--check"])
    assert code == 0, "run `make figures`\n" + capsys.readouterr().out


def test_every_plot_stands_on_a_page(plots: ModuleType) -> None:
    named = {
        match["name"] for page in plots.pages() for match in plots.MARK.finditer(page.read_text("utf-8"))
    }
    assert named == set(plots.PLOTS)


def test_what_is_measured_is_drawn(
    plots: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = {"4096": {"seconds": {"full": [4.0, 4.2], "windows": [2.0, 1.9]}}}
    row = {"recall": 0.97}
    results = {
        "long": {
            "steps": {"fp32": {"lengths": lengths}},
            "cache": {"length": 4096, "bytes": {"full": 2**26, "windows": 2**24}},
            "recall": {"with_full": {"full": row}, "without": {"window": {"recall": 0.03}}},
        },
        "sharing": {"arms": {"unshared": [{"parameters": 4_000_000, "bits_per_byte": 1.8}]}},
        "parts": {
            "shapes": {
                "3 x 128": {
                    "adamw": {
                        "median_seconds": dict.fromkeys(
                            ("products", "attention", "head", "kernels", "optimiser", "rest"), 0.01
                        )
                    }
                }
            }
        },
    }
    for name, result in results.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(result))
    monkeypatch.setattr(plots, "RESULTS", tmp_path)
    for name, (draw, source, _) in plots.PLOTS.items():
        if name == "compile":
            assert not plots.there(source)
            continue
        assert plots.there(source)
        assert draw().startswith("<svg") and draw().count("<rect") >= 2
    assert "4.1 s" in plots.steps_plot() and "4,096 tokens, full" in plots.steps_plot()
