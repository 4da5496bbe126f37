"""The files of a Hugging Face model folder: read, copied and written whole. Imports no torch."""

from __future__ import annotations

import json
import os
import shutil
import struct
from pathlib import Path
from typing import Any

from kogata.core.errors import DataError

PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "tokenizer.model",
    "chat_template.jinja",
)


def read_config(folder: Path) -> dict[str, Any]:
    """Reads a folder's config.json.

    Raises:
        DataError: there is none, or it is not a JSON object.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(
            "not a model folder",
            where=str(folder),
            found="no config.json",
            expected="a Hugging Face model folder",
        ) from None
    except ValueError as error:
        raise DataError(
            "config.json cannot be read", where=str(path), found=str(error), expected="JSON"
        ) from None
    if not isinstance(config, dict):
        raise DataError(
            "config.json cannot be read", where=str(path), found="no object", expected="a JSON object"
        )
    return config


def weight_files(folder: Path) -> dict[str, Path]:
    """Maps every tensor's name to the safetensors file that holds it, by index where there are several.

    Raises:
        DataError: there are none, a named one is missing, or only pickled weights are there.
    """
    index = folder / "model.safetensors.index.json"
    if index.exists():
        shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        for shard in sorted(set(shards.values())):
            if Path(shard).name != shard or not (folder / shard).is_file():
                raise DataError(
                    "a file of weights is missing",
                    where=str(folder / shard),
                    found="no such file",
                    expected="every file named in model.safetensors.index.json",
                    remedy="download the model again",
                )
        return {name: folder / shard for name, shard in shards.items()}
    single = folder / "model.safetensors"
    if not single.exists():
        pickled = sorted(p.name for p in folder.iterdir() if p.suffix in PICKLED)
        raise DataError(
            "the model has only pickled weights" if pickled else "the folder holds no weights",
            where=str(folder / pickled[0]) if pickled else str(folder),
            found=", ".join(pickled) or "no .safetensors file",
            expected="model.safetensors (a pickle can run code when it is opened, so none is)",
            remedy="choose a revision with safetensors, or convert the folder in a place you trust",
        )
    return dict.fromkeys(safetensors_head(single), single)


def safetensors_head(path: Path) -> dict[str, Any]:
    """Reads the head of a safetensors file: name → dtype, shape and place of each tensor.

    Raises:
        DataError: the file is no safetensors file, or is cut off.
    """
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > 100_000_000:
                raise ValueError(f"a head of {length} bytes")
            head = json.loads(file.read(length))
        head.pop("__metadata__", None)
        end = 8 + length + max((entry["data_offsets"][1] for entry in head.values()), default=0)
        if path.stat().st_size < end:
            raise ValueError(f"{path.stat().st_size} bytes where its head names {end}")
    except (struct.error, ValueError, KeyError, AttributeError) as error:
        raise DataError(
            "the weights cannot be read",
            where=str(path),
            found=str(error),
            expected="a whole safetensors file",
            remedy="download or copy it again",
        ) from None
    return head


def copy_model(source: Path, folder: Path) -> None:
    """Copies a model's config, weights and tokenizer as they are; nothing that is not needed to load it."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {path.name for path in weight_files(source).values()}
    for name in ("config.json", "generation_config.json", "model.safetensors.index.json", *sorted(weights)):
        if (source / name).is_file():
            copy_file(source / name, folder / name)
    copy_tokenizer(source, folder)


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copies the tokenizer's files from one folder to another."""
    for name in TOKENIZER_FILES:
        if (source / name).is_file() and source.resolve() != folder.resolve():
            copy_file(source / name, folder / name)


def write_json(path: Path, value: Any) -> None:
    """Writes JSON beside its place and renames it."""
    beside = path.with_name(path.name + ".part")
    beside.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(beside, path)


def copy_file(source: Path, target: Path) -> None:
    """Copies a file's content beside its new place and renames it."""
    beside = target.with_name(target.name + ".part")
    shutil.copyfile(source, beside)
    os.replace(beside, target)


def special_id(folder: Path, role: str = "eos_token") -> int | None:
    """Looks up the id of a special token in a folder's tokenizer files; None where it names none."""
    try:
        settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        token = settings.get(role)
        token = token.get("content") if isinstance(token, dict) else token
        content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    for added in content.get("added_tokens", []):
        if added["content"] == token:
            return int(added["id"])
    vocab = content.get("model", {}).get("vocab", {})
    return vocab.get(token) if isinstance(vocab, dict) and token is not None else None
