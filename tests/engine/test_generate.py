"""Writing on: the cache changes nothing, seeds repeat, the filters filter, long texts slide."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_models import random_decoder, small_spec, write_small_model

from kogata.core.errors import DataError
from kogata.engine.generate import generate, generate_text, generate_tokens, pieces
from kogata.engine.load import Foreign, load_model
from kogata.nn.spec import FAMILIES

PROMPT = [5, 17, 200, 33]


@pytest.mark.parametrize("family", FAMILIES)
def test_cache_equals_recompute(family: str) -> None:
    decoder = random_decoder(small_spec(family))
    ids = list(PROMPT)
    for _ in range(20):
        ids.append(int(decoder(torch.tensor([ids]))[0, -1].argmax()))
    assert generate(decoder, PROMPT, 20) == ids[4:]


def test_seed_decides() -> None:
    decoder = random_decoder(small_spec())
    options = {"temperature": 1.5, "top_k": 50, "top_p": 0.95}
    first = generate(decoder, PROMPT, 30, seed=1, **options)
    assert first == generate(decoder, PROMPT, 30, seed=1, **options)
    assert first != generate(decoder, PROMPT, 30, seed=2, **options)
    assert generate(decoder, PROMPT, 30, temperature=1.0, top_k=1) == generate(decoder, PROMPT, 30)
    assert generate(decoder, PROMPT, 30, temperature=1.0, top_p=1e-6) == generate(decoder, PROMPT, 30)


class Fixed:
    """Always the same scores."""

    spec = None
    context = None

    def __init__(self, scores: list[float]) -> None:
        self.scores = torch.tensor(scores)

    def new_cache(self, batch: int, capacity: int):
        return type("Cache", (), {"length": 0})()

    def hidden(self, ids: torch.Tensor, cache: object = None) -> torch.Tensor:
        return ids[..., None]

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.scores


def test_filters_and_temperature() -> None:
    odds = torch.tensor([0.5, 0.3, 0.15, 0.05])
    model = Fixed(odds.log().tolist())

    def shares(**options: object) -> list[float]:
        drawn = torch.tensor(generate(model, [0], 1000, seed=3, **options))
        return [float((drawn == token).float().mean()) for token in range(4)]

    assert shares(temperature=1.0) == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.05)
    assert shares(temperature=1.0, top_k=2) == pytest.approx([0.625, 0.375, 0, 0], abs=0.05)
    assert shares(temperature=1.0, top_p=0.9) == pytest.approx([0.526, 0.316, 0.158, 0], abs=0.05)
    assert shares(temperature=0.2)[0] == pytest.approx(0.926, abs=0.03)


def test_stops_before_the_end_token() -> None:
    decoder = random_decoder(small_spec())
    whole = generate(decoder, PROMPT, 12)
    end = whole[5]
    assert generate(decoder, PROMPT, 12, end_id=end) == whole[: whole.index(end)]
    assert generate(decoder, PROMPT, 12, end_id=(end, 1)) == whole[: whole.index(end)]
    assert generate(decoder, PROMPT, 0) == []
    with pytest.raises(DataError, match="nothing to continue"):
        generate(decoder, [], 3)


def test_longer_than_the_context_slides() -> None:
    decoder = random_decoder(small_spec(context=16))
    assert len(generate(decoder, PROMPT, 50)) == 50
    assert len(generate(decoder, list(range(40)), 20)) == 20
    short = generate(decoder, PROMPT, 12)
    assert generate(decoder, PROMPT, 50)[:12] == short


def test_text_comes_in_whole_characters(tmp_path: Path) -> None:
    write_small_model(tmp_path)
    loaded = load_model(tmp_path)
    ids = loaded.encode("猫が海辺に。 The cat — sat")
    assert "".join(pieces(loaded.tokenizer, iter(ids))) == "猫が海辺に。 The cat — sat"
    assert all("\ufffd" not in piece for piece in pieces(loaded.tokenizer, iter(ids)))
    first = "".join(generate_text(loaded, "猫が", max_tokens=20, seed=1))
    assert first == "".join(generate_text(loaded, "猫が", max_tokens=20, seed=1))
    assert isinstance("".join(generate_text(loaded, "", max_tokens=5)), str)


def test_training_goes_on_after_writing() -> None:
    decoder = random_decoder(small_spec(context=16))
    list(generate_tokens(decoder, list(range(30)), max_tokens=3))
    decoder(torch.tensor([list(range(60))])).sum().backward()


def test_a_model_only_transformers_knows(tmp_path: Path) -> None:
    import transformers

    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(
        "gpt2", vocab_size=320, n_embd=32, n_layer=2, n_head=2, n_positions=64, bos_token_id=0, eos_token_id=0
    )
    peer = transformers.AutoModelForCausalLM.from_config(config).eval()
    from small_models import write_small_tokenizer

    peer.save_pretrained(tmp_path)
    write_small_tokenizer(tmp_path)
    loaded = load_model(tmp_path)
    assert isinstance(loaded.decoder, Foreign) and loaded.spec is None and loaded.context == 64
    assert loaded.decoder.plain_head
    ids = torch.tensor([PROMPT])
    with torch.no_grad():
        expected = peer(input_ids=ids).logits
        assert (loaded.decoder(ids) - expected).abs().max() < 1e-5
        assert (loaded.decoder.logits(loaded.decoder.hidden(ids)) - expected).abs().max() < 1e-5
    ours = generate(loaded.decoder, PROMPT, 10)
    theirs = peer.generate(ids, max_new_tokens=10, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert ours == theirs[0, 4:].tolist()
