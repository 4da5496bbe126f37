"""The store: sealed artifacts by digest, found by key, made under a lock."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kogata.core.amounts import Cost
from kogata.core.artifact import Artifact, Kind, list_files, read_artifact, write_manifest
from kogata.core.errors import ArtifactError, RecipeError
from kogata.runtime.system import file_lock, home, write_beside


@dataclass(frozen=True, kw_only=True)
class Found:
    """An artifact that a key names, and what it first cost."""

    artifact: Artifact
    first_cost: Cost
    receipt: dict[str, Any]


class Store:
    """`$KOGATA_HOME/store`: `objects/DIGEST` folders, `keys/KEY.json`, `locks`, `partial/KEY`."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or home() / "store"

    @property
    def objects(self) -> Path:
        return self.root / "objects"

    def partial(self, key: str) -> Path:
        """Names the folder where a key's unfinished work lies."""
        return self.root / "partial" / key

    def find(self, key: str, *, verify: bool = True) -> Found | None:
        """Finds what a key made; with `verify` every file is checked against the manifest.

        Raises:
            ArtifactError: it is there but damaged.
        """
        path = self.root / "keys" / f"{key}.json"
        try:
            entry = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError:
            raise ArtifactError(
                "the store's key file is damaged", where=str(path), remedy=f"remove it: kogata store rm {key}"
            ) from None
        folder = self.objects / entry["object"]
        if not folder.exists():
            return None
        artifact = read_artifact(folder, verify=verify)
        if artifact.digest != entry["digest"]:
            raise ArtifactError(
                f"the artifact {folder.name} is damaged",
                where=str(folder / "manifest.json"),
                found=f"digest {artifact.digest[:16]}…",
                expected=f"{entry['digest'][:16]}…",
                remedy=f"remove it with `kogata store rm {folder.name}` and run again",
            )
        return Found(
            artifact=artifact, first_cost=Cost.from_dict(entry["first_cost"]), receipt=entry["receipt"]
        )

    @contextmanager
    def lock(
        self,
        key: str,
        on_wait: Callable[[str], Any] | None = None,
        stopping: Callable[[], bool] | None = None,
    ) -> Iterator[None]:
        """Holds a key while it is made, so that several runs on one store make it once."""
        path = self.root / "locks" / f"{key}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(path, on_wait=on_wait, stopping=stopping):
            yield

    def begin(self, key: str) -> tuple[Path, Path]:
        """Gives an empty `out` and the lasting `checkpoints` folder of a key that is held."""
        place = self.partial(key)
        out, checkpoints = place / "out", place / "checkpoints"
        if out.exists():
            shutil.rmtree(out)
        out.mkdir(parents=True)
        checkpoints.mkdir(exist_ok=True)
        return out, checkpoints

    def prepare(self, key: str, kind: Kind, facts: dict[str, Any], stage: str) -> Artifact:
        """Renames a key's finished work into place under its digest."""
        place = self.partial(key)
        out = place / "out"
        digest = write_manifest(out, kind, facts, {"stage": stage, "key": key})
        final = self.objects / digest[:32]
        self.objects.mkdir(parents=True, exist_ok=True)
        if not final.exists():
            _flush(out)
            os.replace(out, final)
        return Artifact(kind=kind, digest=digest, path=final, facts=facts)

    def seal(self, key: str, artifact: Artifact, first_cost: Cost, receipt: dict[str, Any]) -> None:
        """Lets the key name the artifact and removes the partial work."""
        entry = {
            "digest": artifact.digest,
            "object": artifact.path.name,
            "kind": str(artifact.kind),
            "first_cost": first_cost.to_dict(),
            "receipt": receipt,
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        path = self.root / "keys" / f"{key}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_beside(path, json.dumps(entry, ensure_ascii=False, indent=1).encode())
        shutil.rmtree(self.partial(key), ignore_errors=True)

    def entries(self) -> list[dict[str, Any]]:
        """Lists what is stored: object, kind, stage, bytes, made, keys; partial work too, newest first."""
        rows: dict[str, dict[str, Any]] = {}
        for path in sorted((self.root / "keys").glob("*.json")):
            try:
                entry = json.loads(path.read_text(encoding="utf-8"))
            except ValueError:
                continue
            folder = self.objects / entry["object"]
            if not folder.exists():
                continue
            row = rows.setdefault(
                entry["object"],
                {
                    "object": entry["object"],
                    "kind": entry["kind"],
                    "stage": entry["receipt"].get("stage"),
                    "bytes": folder_bytes(folder),
                    "made": entry["made"],
                    "seconds": entry["first_cost"].get("seconds"),
                    "keys": [],
                },
            )
            row["keys"].append(path.stem)
        for folder in sorted(self.objects.glob("*")):
            if folder.is_dir() and folder.name not in rows:
                rows[folder.name] = _loose(folder, "unnamed")
        for folder in sorted((self.root / "partial").glob("*")):
            rows[folder.name] = _loose(folder, "partial")
        return sorted(rows.values(), key=lambda row: row["made"], reverse=True)

    def remove(self, name: str) -> int:
        """Removes what an object's or key's name (or its beginning) names; returns the bytes freed.

        Raises:
            RecipeError: nothing or more than one thing has that name.
        """
        rows = [
            row
            for row in self.entries()
            if row["object"].startswith(name) or any(key.startswith(name) for key in row["keys"])
        ]
        if len(rows) != 1:
            raise RecipeError(
                f"{name!r} names {'nothing' if not rows else 'several things'} in the store",
                found=", ".join(row["object"] for row in rows[:8]) or None,
                expected="one object as `kogata store` lists it",
            )
        row = rows[0]
        for key in row["keys"]:
            with self.lock(key):
                (self.root / "keys" / f"{key}.json").unlink(missing_ok=True)
        place = self.root / "partial" if row["kind"] == "partial" else self.objects
        shutil.rmtree(place / row["object"], ignore_errors=True)
        return row["bytes"]

    def free(self, wanted_bytes: int | None = None) -> int:
        """Removes partial work, then the oldest artifacts until so many bytes are free (None: none)."""
        freed = 0
        rows = self.entries()
        for row in [row for row in rows if row["kind"] in ("partial", "unnamed")]:
            with self.lock(row["object"]):
                freed += self.remove(row["object"])
        if wanted_bytes is not None:
            for row in reversed([row for row in rows if row["kind"] not in ("partial", "unnamed")]):
                if freed >= wanted_bytes:
                    break
                freed += self.remove(row["object"])
        return freed


def folder_bytes(folder: Path) -> int:
    """Adds the sizes of the files below a folder."""
    return sum(path.stat().st_size for path in list_files(folder))


def _loose(folder: Path, kind: str) -> dict[str, Any]:
    made = datetime.fromtimestamp(folder.stat().st_mtime, UTC).isoformat(timespec="seconds")
    row = {"object": folder.name, "kind": kind, "stage": None, "bytes": folder_bytes(folder), "made": made}
    return row | {"seconds": None, "keys": []}


def _flush(folder: Path) -> None:
    """Forces a folder's files to disk, so that a rename never names half-written content."""
    for path in list_files(folder):
        with path.open("rb") as file:
            os.fsync(file.fileno())
