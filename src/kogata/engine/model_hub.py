"""Models on the Hugging Face hub: found by name, pinned to a commit, described before anything is fetched."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from kogata.core.errors import DataError, EnvironmentProblem, KogataError
from kogata.engine.hf_config import try_spec
from kogata.engine.hf_folder import PICKLED, TOKENIZER_FILES, weight_files
from kogata.engine.sources import WANTED, Source, check_usable, describe_folder, offline


@cache
def find_on_hub(name: str, revision: str | None = None) -> Source:
    """Describes a model of the hub, or its copy here when there is no network; asks once per process.

    Raises:
        DataError: no such model or revision, no safetensors, no language model, or it needs its own code.
        EnvironmentProblem: gated, or no network and no copy here.
    """
    if offline():
        return _cached(name, revision, "HF_HUB_OFFLINE is set")
    from huggingface_hub import HfApi

    try:
        info = HfApi().model_info(name, revision=revision or "main", files_metadata=True)
    except Exception as error:
        problem = _explain(error, name, revision)
        if problem is not None:
            raise problem from None
        return _cached(name, revision, f"no answer from the hub ({type(error).__name__})")
    sizes = {item.rfilename: item.size or 0 for item in info.siblings or []}
    _check_files(name, sizes)
    sha = str(info.sha)
    config = _config(name, sha, gated=bool(info.gated))
    role = check_usable(config, name)
    spec = try_spec(config) if role == "decoder" else None
    weights = sum(size for file, size in sizes.items() if _is_weights(file))
    counted = getattr(info.safetensors, "total", None)
    here = _copy_here(name, sha)
    return Source(
        name=name,
        kind="hub",
        role=role,
        path=here,
        config=config,
        spec=spec,
        parameters=spec.parameters() if spec else int(counted or weights // 4),
        weight_bytes=weights,
        revision=sha,
        download_bytes=0 if here else sum(size for file, size in sizes.items() if _is_wanted(file)),
    )


def download(source: Source) -> Path:
    """Brings a model of the hub here, at the commit it was pinned to, and gives its folder."""
    if source.path is not None:
        return source.path
    from huggingface_hub import snapshot_download

    try:
        found = snapshot_download(
            source.name, revision=source.revision, allow_patterns=list(WANTED), ignore_patterns=["*/*"]
        )
    except Exception as error:
        problem = _explain(error, source.name, source.revision)
        raise (problem or _no_network(source.name, str(error))) from None
    return Path(found)


def download_tokenizer(source: Source) -> Path:
    """Brings only a model's tokenizer files here, at the commit it was pinned to; gives their folder."""
    from huggingface_hub import snapshot_download

    wanted = ["config.json", *TOKENIZER_FILES]
    try:
        found = snapshot_download(source.name, revision=source.revision, allow_patterns=wanted)
    except Exception as error:
        problem = _explain(error, source.name, source.revision)
        raise (problem or _no_network(source.name, str(error))) from None
    return Path(found)


def cache_folder() -> Path:
    """Gives the folder that downloads lie in."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _is_weights(file: str) -> bool:
    return file.startswith("model") and file.endswith(".safetensors") and "/" not in file


def _is_wanted(file: str) -> bool:
    return "/" not in file and any(Path(file).match(pattern) for pattern in WANTED)


def _check_files(name: str, sizes: dict[str, int]) -> None:
    if "config.json" not in sizes:
        ggufs = [file for file in sizes if file.endswith(".gguf")]
        raise DataError(
            "no model that transformers knows",
            where=name,
            found=", ".join(ggufs[:3]) or "no config.json",
            expected="config.json and safetensors",
            remedy="download the .gguf file and name it" if ggufs else "choose another model",
        )
    if not any(_is_weights(file) for file in sizes):
        pickled = [file for file in sizes if file.endswith(PICKLED)]
        raise DataError(
            "the model has only pickled weights" if pickled else "the model has no weights",
            where=name,
            found=", ".join(pickled[:3]) or "no model.safetensors",
            expected="safetensors (a pickle can run code when it is opened, so none is)",
            remedy="choose another model, or a revision that has safetensors",
        )


def _config(name: str, sha: str, *, gated: bool) -> dict[str, Any]:
    from huggingface_hub import hf_hub_download

    try:
        return json.loads(
            Path(hf_hub_download(name, "config.json", revision=sha)).read_text(encoding="utf-8")
        )
    except Exception as error:
        if gated:
            raise _gated(name) from None
        raise (_explain(error, name, sha) or _no_network(name, str(error))) from None


def _copy_here(name: str, revision: str | None) -> Path | None:
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, revision=revision or "main", local_files_only=True))
        weight_files(folder)
    except Exception:
        return None
    return folder


def _cached(name: str, revision: str | None, why: str) -> Source:
    folder = _copy_here(name, revision)
    if folder is None:
        raise _no_network(name, why)
    found = describe_folder(folder, name)
    return Source(
        name=name,
        kind="hub",
        role=found.role,
        path=folder,
        config=found.config,
        spec=found.spec,
        parameters=found.parameters,
        weight_bytes=found.weight_bytes,
        revision=folder.name,
    )


def _no_network(name: str, why: str) -> EnvironmentProblem:
    return EnvironmentProblem(
        "the model is not here, and the hub cannot be asked",
        where=name,
        found=why,
        expected="a network, or a copy in the Hugging Face cache",
        remedy="download it once with a network, or name a folder or a .gguf file",
    )


def _gated(name: str) -> EnvironmentProblem:
    return EnvironmentProblem(
        "the model is gated: its owner wants terms accepted first",
        where=name,
        found="no access",
        expected="an account that accepted them",
        remedy="accept the terms on the model's page of the hub, then set HF_TOKEN",
    )


def _explain(error: Exception, name: str, revision: str | None) -> KogataError | None:
    """Turns the hub's refusals into ours; None for a network that does not answer."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return _gated(name)
    if isinstance(error, errors.RevisionNotFoundError):
        return DataError(
            "the model has no such revision",
            where=name,
            found=str(revision),
            expected="a branch, tag or commit of it",
            remedy="leave `revision` out for its newest, or correct it",
        )
    if isinstance(error, errors.RepositoryNotFoundError | errors.HFValidationError):
        return DataError(
            "the hub has no such model, or it is private",
            where=name,
            expected="owner/model as the hub writes it",
            remedy="correct the name; for a private model set HF_TOKEN",
        )
    return None
