"""What holds for every stage, those added tomorrow too."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import ValidationError

from kogata.core.artifact import Document, Kind
from kogata.core.registry import PEER_NAMES, registry
from kogata.core.stage import Account, SameAs, Slot, Stage

NAMES = registry.stage_names()
SECTIONS = ("Pays when:", "Hurts when:", "Cost:", "Source:", "Measured here:")
CITED = re.compile(r"\[[\w./-]+\.json:[^\]]+\]")


def smallest(stage: type[Stage], **more: Any) -> Stage:
    """Builds a stage from its defaults; a setting without one gets a stand-in text."""
    needed = {name: "stand-in" for name, field in stage.model_fields.items() if field.is_required()}
    return stage(**{**needed, **more})


def sections_of(card: str) -> dict[str, str]:
    """Splits a card at its section heads; the part before them is under ''."""
    parts, head = {"": ""}, ""
    for line in card.splitlines():
        found = next((name for name in SECTIONS if line.strip().startswith(name)), None)
        if found:
            head, line = found, line.strip().removeprefix(found)
        parts[head] = f"{parts.get(head, '')}\n{line}".strip()
    return parts


@pytest.fixture(params=NAMES)
def stage(request: pytest.FixtureRequest) -> type[Stage]:
    return registry.stage(request.param)


def test_the_stages_of_the_main_job_are_there() -> None:
    needed = {
        "data.read", "data.filter", "data.dedup", "tokenizer.train", "tokenizer.encode",
        "model.read", "train.pretrain", "evaluate", "export",
    }  # fmt: skip
    assert needed <= set(NAMES)


def test_takes_and_makes(stage: type[Stage]) -> None:
    for name, slot in stage.takes.items():
        assert isinstance(slot, Slot) and slot.kinds, name
        assert all(isinstance(kind, Kind) for kind in slot.kinds), name
    if isinstance(stage.makes, SameAs):
        assert stage.makes.slot in stage.takes
    else:
        assert isinstance(stage.makes, Kind)
    assert isinstance(stage.version, int) and stage.version >= 1


def test_does_something_and_says_what_it_costs(stage: type[Stage]) -> None:
    assert stage.per_document() or stage.run is not Stage.run, "neither run nor each"
    assert stage.forecast is not Stage.forecast, "no forecast"


def test_defaults_stand(stage: type[Stage]) -> None:
    made = smallest(stage)
    assert type(made)(**made.model_dump(exclude_unset=True)) == made
    again = type(made).model_validate(made.model_dump(mode="json", exclude_none=True))
    assert again.model_dump(mode="json") == made.model_dump(mode="json"), (
        "settings do not survive a recipe file"
    )
    stage.model_json_schema()


def test_refuses_what_it_does_not_know(stage: type[Stage]) -> None:
    with pytest.raises(ValidationError):
        smallest(stage, no_such_setting=1)
    with pytest.raises(ValidationError):
        smallest(stage).__setattr__("version_", 2)


def test_settings_are_described_and_named_as_everywhere(stage: type[Stage]) -> None:
    for name, field in stage.model_fields.items():
        assert field.description and len(field.description.split()) >= 3, f"{name} needs a description"
        assert name not in PEER_NAMES, f"{name} is called {PEER_NAMES.get(name)} here"


def test_card(stage: type[Stage]) -> None:
    card = (stage.__doc__ or "").strip()
    first = card.split("\n\n")[0].replace("\n", " ")
    assert first.endswith("."), f"the card starts with one sentence, found {first!r}"
    parts = sections_of(card)
    for name in SECTIONS:
        assert parts.get(name, "").split(), f"the card lacks {name!r}"
    measured = parts["Measured here:"]
    assert "not yet measured" in measured.lower() or CITED.search(measured), (
        "`Measured here:` says `not yet measured`, or gives figures with their source (CONTRIBUTING.md)"
    )


DOCUMENTS = [
    Document(id="1", text="It was a fine day, and the children went down to the sea. " * 8),
    Document(id="2", text="It was a fine day, and the children went down to the sea. " * 8, split="heldout"),
    Document(id="3", text="ある日の暮方の事である。一人の下人が、羅生門の下で雨やみを待っていた。" * 8),
    Document(id="4", text="@@@@ #### 0101", split="heldout"),
    Document(id="5", text="@@@@ #### 0101"),
    Document(id="6", text="短い。", split="test"),
    Document(id="7", text="", split="heldout"),
    Document(
        id="8", text="The kettle sang on the hob while the rain went on, and nobody spoke of the letter."
    ),
    Document(
        id="9", text="道がつづら折りになって、いよいよ天城峠に近づいたと思う頃、雨脚が麓から追って来た。"
    ),
]


def test_documents_of_other_splits_pass_untouched(stage: type[Stage]) -> None:
    if not stage.per_document() or not stage.takes:
        pytest.skip("documents do not pass through it")
    account = Account()
    given = [document for document in DOCUMENTS if document.text or document.split == "heldout"]
    passed = list(smallest(stage).each(iter(given), account))
    for split in ("heldout", "test"):
        before = [document for document in given if document.split == split]
        assert [document for document in passed if document.split == split] == before
    train = [document for document in passed if document.split == "train"]
    assert len(train) <= sum(document.split == "train" for document in given)


def test_every_dropped_document_has_its_reason(stage: type[Stage]) -> None:
    if not stage.per_document() or not stage.takes:
        pytest.skip("documents do not pass through it")
    account = Account()
    passed = list(smallest(stage).each(iter(DOCUMENTS), account))
    assert len(DOCUMENTS) - len(passed) == sum(account.reasons.values())
    assert all(reason.strip() for reason in account.reasons)


def test_unknown_name_suggests_the_nearest() -> None:
    from kogata.core.errors import RecipeError

    with pytest.raises(RecipeError, match=r"did you mean 'data\.read'"):
        registry.stage("data.raed")
