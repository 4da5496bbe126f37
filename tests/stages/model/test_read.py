"""model.read: what is planned is what is made, and the folder is a model anyone can load."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from small_models import small_spec, write_small_gguf, write_small_model, write_small_tokenizer

from kogata.core.errors import EnvironmentProblem
from kogata.core.receipt import Machine
from kogata.core.stage import Share
from kogata.engine.convert import load_decoder
from kogata.engine.sources import Source
from kogata.stages.model.read import Read

MACHINE, SHARE = Machine(watts=(10, 30), watts_source="modelled:test"), Share()


def make(stage: Read, out: Path) -> tuple[Read, dict, dict]:
    """Plans and runs; gives the resolved stage, the forecast facts and the real ones."""
    resolved = stage.resolve({}, MACHINE, SHARE).stage
    assert isinstance(resolved, Read)
    forecast = resolved.forecast({}, MACHINE, SHARE)
    out.mkdir()
    facts = resolved.run({}, SimpleNamespace(out=out, log=lambda text: None))  # type: ignore[arg-type]
    size = sum(path.stat().st_size for path in out.iterdir())
    assert forecast.cost.size_bytes is not None and forecast.cost.size_bytes >= 0.9 * size
    return resolved, forecast.facts, facts


def test_a_folder_becomes_a_float32_model(tmp_path: Path) -> None:
    decoder = write_small_model(tmp_path / "m", small_spec("qwen2"))
    _, planned, facts = make(Read(name=str(tmp_path / "m")), tmp_path / "out")
    assert planned == facts
    assert facts["spec"] == small_spec("qwen2").to_dict() and facts["end_id"] == 0
    assert facts["parameters"] == decoder.spec.parameters() and facts["context"] == 64
    assert len(facts["tokenizer_digest"]) == 64
    ids = torch.arange(30)[None]
    assert torch.equal(load_decoder(tmp_path / "out")(ids), decoder(ids))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_a_gguf_file_becomes_a_folder(tmp_path: Path) -> None:
    decoder = write_small_model(tmp_path / "m")
    write_small_gguf(tmp_path / "m.gguf", decoder, write_small_tokenizer(tmp_path / "m"))
    _, planned, facts = make(Read(name=str(tmp_path / "m.gguf")), tmp_path / "out")
    assert {**planned, "tokenizer_digest": None} == {**facts, "tokenizer_digest": None}
    assert facts["tokenizer_digest"]
    ids = torch.arange(30)[None]
    assert torch.equal(load_decoder(tmp_path / "out")(ids), decoder(ids))


def test_a_model_only_transformers_knows_is_kept_as_it_is(tmp_path: Path) -> None:
    import transformers

    sizes = {"vocab_size": 320, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64}
    config = transformers.AutoConfig.for_model("gpt2", **sizes, bos_token_id=0, eos_token_id=0)
    peer = transformers.AutoModelForCausalLM.from_config(config).eval()
    peer.save_pretrained(tmp_path / "m")
    write_small_tokenizer(tmp_path / "m")
    (tmp_path / "m" / "modeling_evil.py").write_text("raise SystemExit")
    _, planned, facts = make(Read(name=str(tmp_path / "m")), tmp_path / "out")
    assert planned == facts and facts["spec"] is None and facts["architecture"] == "gpt2"
    assert not list((tmp_path / "out").glob("*.py"))
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    ids = torch.arange(20)[None]
    with torch.no_grad():
        assert torch.equal(again(input_ids=ids).logits, peer(input_ids=ids).logits)


def test_a_path_is_meant_from_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "owner" / "model").mkdir(parents=True)

    def name_of(text: str) -> str:
        return Read.model_validate({"name": text}, context={"folder": tmp_path}).name

    assert name_of("base") == str(tmp_path / "base")
    assert name_of("owner/model") == str(tmp_path / "owner" / "model")
    assert name_of("./x") == str(tmp_path / "x") and name_of("../m.gguf") == str(tmp_path.parent / "m.gguf")
    assert name_of("HuggingFaceTB/SmolLM2-135M") == "HuggingFaceTB/SmolLM2-135M"
    assert name_of("smollm2") == "smollm2"


def hub_source(**more: object) -> Source:
    values = {
        "name": "o/m",
        "kind": "hub",
        "role": "decoder",
        "path": None,
        "config": {"model_type": "llama"},
    }
    sizes = {"spec": small_spec(), "parameters": 10**9, "weight_bytes": 2 * 10**9}
    return Source(**{**values, **sizes, "revision": "c0ffee", "download_bytes": 2 * 10**9, **more})


def test_the_newest_revision_is_pinned_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kogata.engine.sources.find_model", lambda name, revision=None: hub_source())
    monkeypatch.setattr("shutil.disk_usage", lambda place: SimpleNamespace(free=10**12))
    made = Read(name="o/m").resolve({}, MACHINE, SHARE)
    assert isinstance(made.stage, Read) and made.stage.revision == "c0ffee"
    assert made.reasons == {"revision": "the commit that main is now"}
    assert made.stage.resolve({}, MACHINE, SHARE).reasons == {}
    forecast = made.stage.forecast({}, MACHINE, SHARE)
    assert forecast.disk_bytes > 6 * 10**9 and (forecast.cost.peak_bytes or 0) > 4 * 10**9


def test_too_little_disk_is_said_before_the_download(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kogata.engine.sources.find_model", lambda name, revision=None: hub_source())
    monkeypatch.setattr("shutil.disk_usage", lambda place: SimpleNamespace(free=10**9))
    with pytest.raises(EnvironmentProblem, match=r"too little disk(.|\n)*1.86GiB"):
        Read(name="o/m").resolve({}, MACHINE, SHARE)


def test_planning_imports_no_torch(tmp_path: Path, root: Path) -> None:
    write_small_model(tmp_path)
    code = (
        "import sys; from kogata.core.registry import registry; from kogata.core.receipt import Machine;"
        "from kogata.core.stage import Share; s = registry.stage('model.read')(name=sys.argv[1]);"
        "s.resolve({}, Machine(), Share()).stage.forecast({}, Machine(), Share());"
        "assert not {'torch', 'transformers', 'tokenizers'} & set(sys.modules)"
    )
    environment = {"PYTHONPATH": str(root / "src"), "PATH": ""}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, env=environment)


@pytest.mark.slow
def test_the_packaged_models(smollm2_gguf: Path, minilm_folder: Path, tmp_path: Path) -> None:
    resolved, planned, facts = make(Read(name="smollm2"), tmp_path / "smollm2")
    assert resolved.revision and facts["parameters"] == planned["parameters"] == 134_515_008
    _, _, facts = make(Read(name="minilm"), tmp_path / "minilm")
    assert facts["role"] == "encoder" and facts["spec"] is None
