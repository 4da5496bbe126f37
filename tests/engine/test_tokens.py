"""Token ids on disk come back as written, memory-mapped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kogata.core.errors import ArtifactError
from kogata.engine.tokens import TokenStore, TokenWriter, dtype_for


@pytest.mark.parametrize(("vocab", "width"), [(300, 2), (65_535, 2), (65_536, 4), (151_936, 4)])
def test_ids_come_back(tmp_path: Path, vocab: int, width: int) -> None:
    documents = [[5, 6, 7], [], [vocab - 1] * 4]
    writer = TokenWriter(tmp_path, "train", vocab, 0)
    for ids in documents:
        writer.write(np.array(ids, dtype=np.uint32))
    assert writer.tokens == 10
    writer.close()
    store = TokenStore.open(tmp_path, "train")
    assert isinstance(store.ids, np.memmap) and store.ids.dtype.itemsize == width == dtype_for(vocab).itemsize
    assert store.tokens == 10 and store.documents == 3
    assert store.offsets.tolist() == [0, 4, 5, 10]
    assert [store.document(number).tolist() for number in range(3)] == [[*ids, 0] for ids in documents]
    assert store.ids.tolist() == [5, 6, 7, 0, 0, *[vocab - 1] * 4, 0]
    assert (tmp_path / "train-00000.bin").read_bytes()[:width] == (5).to_bytes(width, "little")


def test_an_absent_split_is_empty(tmp_path: Path) -> None:
    store = TokenStore.open(tmp_path, "test")
    assert store.tokens == store.documents == len(store.ids) == 0


def test_ids_that_were_cut_off_are_refused(tmp_path: Path) -> None:
    writer = TokenWriter(tmp_path, "train", 300, 0)
    writer.write(np.arange(99, dtype=np.uint32))
    writer.close()
    file = tmp_path / "train-00000.bin"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(ArtifactError, match="do not belong together") as caught:
        TokenStore.open(tmp_path, "train")
    assert caught.value.found == "190 bytes"
