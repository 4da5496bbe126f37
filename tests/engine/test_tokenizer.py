"""Tokenizers: what goes in comes out, cutting for speed changes no id, transformers and llama.cpp agree."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from kogata.core.artifact import Document
from kogata.core.errors import ArtifactError, DataError
from kogata.engine import tokenizer as engine
from kogata.engine.splits import content_hash
from kogata.engine.tokenizer import END, TextTokenizer, byte_letters, sample, save
from kogata.engine.vocabulary import bpe, characters

ENGLISH = (
    'The kettle sang on the hob; nobody spoke of the letter.\n\n"Don\'t!" cried Mary -- "it\'s LATE, I\'LL"\n'
    "There were 12, 3.5 miles off,  and two  spaces  here.\nA line\n  indented\n\tby a tab.   \n\n\nEnd."
)
JAPANESE = (
    "道がつづら折りになって、いよいよ天城峠に近づいたと思う頃、\n　雨脚が杉の密林を白く染めながら。\n"
    "「もし、もし」と私はカタカナで言った。ＡＢＣ　１２３ 4ヶ月。\n\n　\n　そして　空白。🙂々〆ﾊﾝｶｸ é"
)
TEXTS = [ENGLISH * 3, JAPANESE * 3, "def f(x):\n    return {'a': x ** 2}  # Größe\r\n"]


def made(folder: Path, pre: str = "qwen2", size: int = 500) -> TextTokenizer:
    save(bpe.train(iter(TEXTS), size, pre), folder)
    return TextTokenizer(folder)


def noise(seed: int) -> str:
    """Mixes everything that cutting could get wrong."""
    pieces = [
        " ", "  ", "\n", "\n\n", "\n \n", "\r\n", "\t", "\u3000", "\n\u3000", "\u00a0", "\u2028", "\u0085",
        "a", "Word", "word", "don't", "'s", "'LL", "12", "3", ".", ",", "...", "(", "「", "」", "。", "、",
        "漢字", "かな", "カナ", "é", "e\u0301", "ﾊ", "🙂", "\ufeff", "\u200b", "_", "ー", END,
        "<|im_start|>", "\x1c", "Ａ",
    ]  # fmt: skip
    chosen = random.Random(seed)
    return "".join(chosen.choice(pieces) for _ in range(400))


@pytest.mark.parametrize("pre", ["qwen2", "gpt-2"])
def test_any_text_comes_back(tmp_path: Path, pre: str) -> None:
    tokenizer = made(tmp_path, pre)
    for text in [*TEXTS, noise(1), "", " ", "\ufffd"]:
        assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("pre", ["qwen2", "gpt-2"])
def test_cutting_changes_no_id(tmp_path: Path, pre: str) -> None:
    tokenizer = made(tmp_path, pre)
    documents = [Document(str(n), text) for n, text in enumerate([*TEXTS, "", *map(noise, range(60))])]
    found = tokenizer.encode_documents(documents)
    assert tokenizer._cuttable and tokenizer._checked
    for cut in (engine._SPACE, engine._LINE):
        assert sum(len(cut.split(document.text)) for document in documents) > len(documents) + 50
    for document, ids in zip(documents, found, strict=True):
        assert ids.tolist() == tokenizer.encode(document.text), document.text


def test_cutting_a_vocabulary_of_smollm_changes_no_id(tmp_path: Path) -> None:
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    raw.train_from_iterator(TEXTS, trainer)
    raw.save(str(tmp_path / "tokenizer.json"))
    tokenizer = TextTokenizer(tmp_path)
    assert tokenizer._cuttable
    for seed in range(40):
        (ids,) = tokenizer.encode_documents([Document("x", noise(seed))])
        assert ids.tolist() == tokenizer.encode(noise(seed))


def test_other_pre_tokenizers_are_never_cut(tmp_path: Path) -> None:
    raw = Tokenizer(models.BPE(unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Metaspace()
    raw.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=500, special_tokens=["<unk>"]))
    raw.save(str(tmp_path / "tokenizer.json"))
    tokenizer = TextTokenizer(tmp_path)
    assert not tokenizer._cuttable
    (ids,) = tokenizer.encode_documents([Document("x", ENGLISH)])
    assert ids.tolist() == raw.encode(ENGLISH).ids


def test_special_tokens_in_text_are_text(tmp_path: Path) -> None:
    tokenizer = made(tmp_path)
    text = f"before {END} after"
    assert tokenizer.end_id == 0
    assert tokenizer.end_id not in tokenizer.encode(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_transformers_loads_it(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = made(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.eos_token == END and theirs.eos_token_id == tokenizer.end_id
    assert len(theirs) == tokenizer.vocab_size == 500
    for text in [*TEXTS, noise(3).replace(END, "")]:
        assert theirs(text)["input_ids"] == tokenizer.encode(text)
        assert theirs.decode(tokenizer.encode(text)) == text


def test_training_gives_the_same_files_every_time(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        made(tmp_path / name)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert TextTokenizer(tmp_path / "a").digest == TextTokenizer(tmp_path / "b").digest


def test_characters_of_ascii_are_a_small_vocabulary(tmp_path: Path) -> None:
    text = "First Citizen:\nBefore we proceed any further, hear me speak.\n"
    save(characters.train(iter([text]), None, "qwen2"), tmp_path)
    tokenizer = TextTokenizer(tmp_path)
    assert tokenizer.vocab_size == len(set(text)) + 1
    assert len(tokenizer.encode(text)) == len(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_characters_of_japanese_are_one_token_each(tmp_path: Path) -> None:
    save(characters.train(iter([JAPANESE]), None, "qwen2"), tmp_path)
    tokenizer = TextTokenizer(tmp_path)
    assert len(tokenizer.encode(JAPANESE)) == len(JAPANESE)
    mixed = JAPANESE[::-1]
    assert len(tokenizer.encode(mixed)) == len(mixed)
    assert tokenizer.decode(tokenizer.encode("見ぬ字")) == "見ぬ字", "unseen characters are written as bytes"


def test_the_commonest_characters_come_first_when_there_is_no_room(tmp_path: Path) -> None:
    save(characters.train(iter(["ああああいいい漢" + "\n"]), 140, "qwen2"), tmp_path)
    tokenizer = TextTokenizer(tmp_path)
    assert tokenizer.vocab_size <= 140
    assert len(tokenizer.encode("あ")) == 1
    assert tokenizer.decode(tokenizer.encode("漢字")) == "漢字"
    with pytest.raises(DataError, match="too small for single characters"):
        characters.train(iter(["あ"]), 100, "qwen2")


def test_a_character_the_vocabulary_lacks_is_named_not_dropped(tmp_path: Path) -> None:
    save(characters.train(iter(["only these"]), None, "qwen2"), tmp_path)
    tokenizer = TextTokenizer(tmp_path)
    with pytest.raises(DataError) as caught:
        tokenizer.encode_documents([Document("a", "these"), Document("b", "these?", "heldout")])
    assert str(caught.value) == "\n".join(
        [
            "a character is not in the vocabulary",
            "  at: document b (heldout)",
            "  found: '?' (U+003F)",
            "  expected: characters that occur in the training text",
            "  remedy: train the tokenizer with `method: bpe`, which can write any text",
        ]
    )
    with pytest.raises(DataError, match="not in the vocabulary"):
        tokenizer.encode("?")


def test_the_sample_is_by_content_and_of_the_size_asked() -> None:
    documents = [Document(str(n), f"{n} " + ENGLISH * 60) for n in range(60)]
    total = sum(len(document.text) for document in documents)
    taken = list(sample(documents, total, total // 4))
    assert sum(map(len, taken)) == pytest.approx(total / 4, rel=0.35)
    assert taken == list(sample(documents, total, total // 4))
    assert all(content_hash(piece) / 2**64 < 0.25 for piece in taken)
    assert "".join(sample(documents, total, total)) == "".join(document.text for document in documents)


def test_byte_letters_are_those_of_gpt2() -> None:
    assert sorted(byte_letters()) == sorted(pre_tokenizers.ByteLevel.alphabet())
    assert byte_letters()[ord(" ")] == "Ġ" and byte_letters()[ord("\n")] == "Ċ"


def test_a_folder_without_a_tokenizer_says_so(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no tokenizer can be loaded"):
        TextTokenizer(tmp_path)
    made(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<nothing>"}), encoding="utf-8")
    with pytest.raises(ArtifactError, match="names no end token"):
        _ = TextTokenizer(tmp_path).end_id
