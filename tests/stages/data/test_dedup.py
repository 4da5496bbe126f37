"""data.dedup: copies go, the first stays, and held-out text is never trained on."""

from __future__ import annotations

import unicodedata

from kogata.core.artifact import Document
from kogata.core.stage import Account
from kogata.stages.data.dedup import Dedup


def kept(*given: Document) -> tuple[list[str], Account]:
    account = Account()
    return [document.id for document in Dedup().each(given, account)], account


def test_copies_go_whatever_their_form_and_white_space() -> None:
    text = "がぎぐ\n\nげご café"
    found, account = kept(
        Document("a", text),
        Document("b", unicodedata.normalize("NFD", text)),
        Document("c", "  がぎぐ げご\tcafé\n"),
        Document("d", "がぎぐげご café"),
    )
    assert found == ["a", "d"]
    assert account.reasons == {"copy": 2}
    assert [row["value"] for row in account.examples["copy"]] == ["of a", "of a"]
    assert (account.read, account.kept) == (4, 2)


def test_training_copies_of_heldout_documents_go() -> None:
    found, account = kept(
        Document("t", "test text", "test"),
        Document("h", "held text", "heldout"),
        Document("a", "held  text"),
        Document("b", "test text "),
        Document("c", "other"),
    )
    assert found == ["t", "h", "c"]
    assert account.reasons == {"copy of a held-out or test document": 2}


def test_heldout_documents_are_never_removed_and_late_copies_are_told() -> None:
    found, account = kept(
        Document("a", "same"), Document("h", "same", "heldout"), Document("i", "same", "heldout")
    )
    assert found == ["a", "h", "i"]
    assert account.extra == {"held_out_copies_left_in_train": 2}
