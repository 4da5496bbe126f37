"""Held-out text: by content alone, exact where the corpus fits in memory, refused where it is too little."""

from __future__ import annotations

import random
import unicodedata

import pytest

from kogata.core.artifact import Document
from kogata.core.errors import DataError
from kogata.core.stage import Account
from kogata.engine import splits
from kogata.engine.splits import Shares, content_hash, cut_into_parts, split

SENTENCES = (
    "The kettle sang on the hob.", "Nobody spoke of the letter.", "It rained all night.",
    "道がつづら折りになって。", "雨脚が杉の密林を白く染めながら。", "吾輩は猫である。",
)  # fmt: skip


def prose(seed: int, paragraphs: int) -> str:
    chosen = random.Random(seed)
    return "\n\n".join(
        " ".join(chosen.choice(SENTENCES) + str(chosen.random()) for _ in range(chosen.randint(2, 9)))
        for _ in range(paragraphs)
    )


def corpus(count: int, paragraphs: int) -> list[Document]:
    return [Document(str(number), prose(number, paragraphs)) for number in range(count)]


def characters(found: list[Document], name: str) -> int:
    return sum(len(document.text) for document in found if document.split == name)


def test_many_documents_are_held_out_whole() -> None:
    given = corpus(400, 5)
    account = Account()
    found = list(split(given, Shares(heldout=0.02, test=0.03), account))
    total = sum(len(document.text) for document in given)
    assert {document.id for document in found} == {document.id for document in given}
    assert characters(found, "heldout") == pytest.approx(0.02 * total, rel=0.5)
    assert characters(found, "test") == pytest.approx(0.03 * total, rel=0.5)
    assert [d.split for d in found] == sorted(
        (d.split for d in found), key=["test", "heldout", "train"].index
    )
    assert account.extra["split"]["unit"] == "documents"


def test_few_documents_are_cut_and_nothing_is_lost() -> None:
    given = corpus(3, 400)
    account = Account()
    found = list(split(given, Shares(heldout=0.05), account))
    total = sum(len(document.text) for document in given)
    assert characters(found, "heldout") == pytest.approx(0.05 * total, rel=0.5)
    assert account.extra["split"]["unit"].startswith("parts of about")
    for document in given:
        parts = [d for d in found if d.id == document.id or d.id.startswith(f"{document.id}#")]
        parts.sort(key=lambda d: int(d.id.partition("#")[2] or 0))
        assert "".join(part.text for part in parts) == document.text


def test_one_file_as_long_as_tiny_shakespeare() -> None:
    found = list(split(corpus(1, 4000), Shares(heldout=0.02), Account()))
    assert sum(document.split == "heldout" for document in found) >= 5


def test_neither_order_nor_company_nor_form_decides() -> None:
    given = corpus(400, 5)
    held = {d.id for d in split(given, Shares(heldout=0.02), Account()) if d.split == "heldout"}
    mixed = random.Random(1).sample(given, len(given))
    mixed = [Document(d.id, unicodedata.normalize("NFD", f"\n {d.text} \n")) for d in mixed]
    again = {d.id for d in split(mixed, Shares(heldout=0.02), Account()) if d.split == "heldout"}
    assert held == again
    assert content_hash("がぎぐ") == content_hash(unicodedata.normalize("NFD", " がぎぐ\n"))


def test_copies_share_their_split() -> None:
    given = corpus(300, 4)
    twice = [Document(f"{d.id}-{time}", d.text) for time in (1, 2) for d in given]
    places: dict[str, set[str]] = {}
    for document in split(twice, Shares(heldout=0.05), Account()):
        places.setdefault(document.text, set()).add(document.split)
    assert all(len(place) == 1 for place in places.values())


def test_a_corpus_beyond_the_look_ahead_is_split_as_it_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splits, "LOOKAHEAD_DOCUMENTS", 200)
    drawn = 0

    def stream():
        nonlocal drawn
        for document in corpus(3000, 1):
            drawn += 1
            yield document

    account = Account()
    found = split(stream(), Shares(heldout=0.05), account)
    next(found)
    assert drawn <= 201, "no more than the look-ahead is held"
    rest = list(found)
    assert sum(document.split == "heldout" for document in rest) == pytest.approx(150, rel=0.3)
    assert account.extra["split"]["chosen"].startswith("by threshold")
    long = list(split(corpus(201, 300), Shares(heldout=0.02), Account()))
    held = [document for document in long if document.split == "heldout"]
    assert held and all(len(document.text) < 3 * splits.LONGEST_PART for document in held)


def test_the_tail_is_the_tail() -> None:
    text = "".join(str(number % 10) for number in range(1_115_394))
    found = {d.split: d for d in split([Document("s", text)], Shares(heldout_tail=0.1), Account())}
    assert found["train"].text == text[: int(len(text) * 0.9)]
    assert found["heldout"].text == text[int(len(text) * 0.9) :]
    both = list(split([Document("s", text)], Shares(heldout_tail=0.1, test_tail=0.1), Account()))
    assert [(d.split, d.id) for d in both] == [
        ("test", "s#test"), ("heldout", "s#heldout"), ("train", "s#train")
    ]  # fmt: skip
    assert "".join(d.text for d in reversed(both)) == text


@pytest.mark.parametrize(
    "given", [[Document("a", "Too little.")], [Document(str(n), "すこし。" * 20) for n in range(5)]]
)
def test_too_little_to_hold_out_says_how_much_is_needed(given: list[Document]) -> None:
    with pytest.raises(DataError, match="the corpus is too small to hold some of it out") as caught:
        list(split(given, Shares(heldout=0.02), Account()))
    error = caught.value
    total = sum(len(document.text) for document in given)
    size = sum(len(document.text.encode()) for document in given)
    plural = "s" if len(given) > 1 else ""
    assert error.found == f"{len(given)} document{plural}, {size} bytes, {total} characters"
    assert error.expected == "at least 4000 characters, so that heldout get 1000 each"
    assert "heldout: 0" in str(error.remedy)


def test_copies_of_one_document_leave_nothing_to_train_on() -> None:
    same = prose(1, 3)
    with pytest.raises(DataError, match="too small to hold"):
        list(split([Document(str(n), same) for n in range(300)], Shares(heldout=0.02), Account()))


@pytest.mark.parametrize("text", [prose(5, 60), "x" * 9000, "一行に句点しかない。" * 900, "a b " * 2500, ""])
def test_parts_join_to_the_whole(text: str) -> None:
    parts = cut_into_parts(text, 1000)
    assert "".join(parts) == text
    assert all(len(part) <= 1600 for part in parts)
