"""Artifacts: a folder with a manifest, named by the manifest's digest."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from kogata.core.errors import ArtifactError

MANIFEST = "manifest.json"


class Kind(StrEnum):
    """The closed list of artifact kinds; growing it is a decision (docs/decisions)."""

    CORPUS = "corpus"
    EXAMPLES = "examples"
    TOKENIZER = "tokenizer"
    TOKENS = "tokens"
    MODEL = "model"
    ADAPTER = "adapter"
    CACHE = "cache"
    PROMPT = "prompt"
    SCORES = "scores"
    CHOICE = "choice"
    BUNDLE = "bundle"


SPLITS = ("train", "heldout", "test")


@dataclass(frozen=True, slots=True)
class Document:
    """One text and where it came from."""

    id: str
    text: str
    split: str = "train"
    source: str = ""
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A sealed folder: its kind, its digest, where it lies and what is known of it."""

    kind: Kind
    digest: str
    path: Path
    facts: dict[str, Any] = field(default_factory=dict)


def sha256_of(path: Path) -> str:
    """Hashes one file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def list_files(folder: Path) -> list[Path]:
    """Lists the regular files below a folder in a fixed order, the manifest left out."""
    found = [path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST]
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def write_manifest(folder: Path, kind: Kind, facts: dict[str, Any], made_by: dict[str, Any]) -> str:
    """Writes `manifest.json` over everything in the folder and returns its digest.

    Holds no time and no path of the machine, so the same content made by the same key has the same digest.
    """
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for path in list_files(folder)
    }
    manifest = {"kind": str(kind), "facts": facts, "files": files, "made_by": made_by}
    content = json.dumps(manifest, ensure_ascii=False, indent=1, sort_keys=True).encode()
    (folder / MANIFEST).write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def read_artifact(folder: Path, *, verify: bool = True) -> Artifact:
    """Reads a sealed folder; with `verify` every file is hashed against the manifest.

    Raises:
        ArtifactError: the folder or manifest is missing, or a file differs, is missing or is surplus.
    """
    try:
        content = (folder / MANIFEST).read_bytes()
        manifest = json.loads(content)
    except FileNotFoundError:
        raise ArtifactError(
            "not a sealed artifact", where=str(folder), expected=f"a folder with {MANIFEST}"
        ) from None
    except ValueError as error:
        raise _damaged(folder, MANIFEST, str(error), "JSON as it was written") from None
    if verify:
        names = {path.relative_to(folder).as_posix(): path for path in list_files(folder)}
        for name, facts in manifest["files"].items():
            path = names.pop(name, None)
            if path is None:
                raise _damaged(folder, name, "no such file", f"{facts['bytes']} bytes")
            if path.stat().st_size != facts["bytes"]:
                raise _damaged(folder, name, f"{path.stat().st_size} bytes", f"{facts['bytes']} bytes")
            if sha256_of(path) != facts["sha256"]:
                raise _damaged(folder, name, "other content", f"sha256 {facts['sha256'][:16]}…")
        for name in names:
            raise _damaged(folder, name, "a file the manifest does not know", "no such file")
    return Artifact(
        kind=Kind(manifest["kind"]),
        digest=hashlib.sha256(content).hexdigest(),
        path=folder,
        facts=manifest["facts"],
    )


def _damaged(folder: Path, name: str, found: str, expected: str) -> ArtifactError:
    return ArtifactError(
        f"the artifact {folder.name} is damaged",
        where=str(folder / name),
        found=found,
        expected=expected,
        remedy=f"remove it with `kogata store rm {folder.name}` and run again; it will be made anew",
    )
