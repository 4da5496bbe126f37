"""A conversation: the model reads what training put before an answer, and forgets from the beginning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_models import (
    random_decoder,
    small_spec,
    write_small_gguf,
    write_small_model,
    write_small_tokenizer,
)

from kogata import api
from kogata.engine.chat import Unfit
from kogata.engine.generate import generate
from kogata.engine.load import load_model
from kogata.engine.talk import Talk, renderer_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("talk") / "model"
    write_small_model(place, small_spec(context=256))
    return place


def talk(folder: Path, **options: Any) -> Talk:
    loaded = load_model(folder)
    return Talk(loaded, renderer_of(loaded), **{"tokens": 6, "temperature": 0.0, **options})


@pytest.mark.parametrize("asked", ["What sat on the mat?", "何がござに座った？"])
def test_the_answer_follows_the_generation_prompt(folder: Path, asked: str) -> None:
    conversation = talk(folder, system="猫 cat")
    told = [{"role": "system", "content": "猫 cat"}, {"role": "user", "content": asked}]
    renderer, loaded = conversation.renderer, conversation.loaded
    wanted = generate(
        loaded.decoder, renderer.prompt_ids(told), 6, end_id=(*renderer.stop_ids, *loaded.end_ids)
    )
    assert "".join(conversation.say(asked)) == loaded.tokenizer.decode(wanted)
    assert [message["role"] for message in conversation.messages] == ["user", "assistant"]
    first = conversation.messages[1]["content"]
    list(conversation.say("And? そして？"))
    assert conversation.messages[1]["content"] == first and len(conversation.messages) == 4
    conversation.again()
    assert "".join(conversation.say(asked)) == first


def test_the_oldest_is_forgotten_and_one_question_too_long_refused(folder: Path) -> None:
    conversation = talk(folder)
    for number in range(12):
        list(conversation.say(f"{number}: The cat sat on the mat by the sea. 猫"))
        ids = conversation.renderer.prompt_ids(conversation.messages[conversation.forgotten :])
        assert len(ids) <= 256
    assert 0 < conversation.forgotten < 22 and conversation.forgotten % 2 == 0
    before = list(conversation.messages)
    with pytest.raises(Unfit, match="longer than the model reads"):
        list(conversation.say("猫が海辺に。" * 200))
    assert conversation.messages == before


def test_a_gguf_file_talks_in_the_format_it_carries(folder: Path, tmp_path: Path) -> None:
    spec = small_spec(context=256)
    tokenizer = write_small_tokenizer(tmp_path / "tokenizer")
    write_small_gguf(tmp_path / "small.gguf", random_decoder(spec), tokenizer)
    from_folder, from_file = talk(folder), talk(tmp_path / "small.gguf")
    assert from_file.renderer.template.source == "chatml"
    assert "".join(from_file.say("猫 cat?")) == "".join(from_folder.say("猫 cat?"))


def test_the_same_seed_answers_the_same(folder: Path) -> None:
    def said(seed: int) -> list[str]:
        conversation = api.chat(str(folder), tokens=8, temperature=1.5, seed=seed)
        return ["".join(conversation.say("cat?")) for _ in range(2)]

    first = said(3)
    assert first == said(3) and first != said(4)
