"""Input paths: a file, a folder or a glob becomes a list of files."""

from __future__ import annotations

import glob
import hashlib
from pathlib import Path

from kogata.core.errors import DataError


def expand_input(path: str, suffixes: tuple[str, ...] | None = None) -> list[Path]:
    """Lists the files a path names, in a fixed order; of a folder, those with a known suffix and not hidden.

    Raises:
        DataError: nothing is there.
    """
    place = Path(path)
    if place.is_file():
        return [place]
    if place.is_dir():
        found = [item for item in place.rglob("*") if item.is_file() and not _hidden(item, place)]
        if suffixes is not None:
            found = [item for item in found if item.name.lower().endswith(suffixes)]
        if not found:
            wanted = f"files ending in {', '.join(suffixes)}" if suffixes else "files"
            raise DataError("the folder holds nothing to read", where=path, expected=wanted)
    else:
        found = [Path(name) for name in glob.glob(path, recursive=True) if Path(name).is_file()]
        if not found:
            parent = place.parent
            while not parent.exists() and parent != parent.parent:
                parent = parent.parent
            near = sorted(item.name for item in parent.iterdir())[:8] if parent.is_dir() else []
            raise DataError(
                "no such file, folder or pattern",
                where=path,
                found=f"in {parent}: {', '.join(near) or 'nothing'}",
                expected="a file, a folder, or a pattern such as novels/*.txt.gz",
                remedy="correct the path; it is relative to the recipe's folder",
            )
    return sorted(found, key=lambda item: item.as_posix())


def _hidden(item: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in item.relative_to(folder).parts)


def hash_files(paths: list[Path]) -> str:
    """Hashes names and contents of files in order (sha256); the folder they lie in does not count."""
    total = hashlib.sha256()
    for path in paths:
        total.update(path.name.encode() + b"\0")
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()
