"""Tokens are guessed from words, digits and signs."""

from __future__ import annotations

from pathlib import Path

import pytest

from kogata.engine.gguf_header import read_header
from kogata.engine.gguf_read import build_tokenizer
from kogata.engine.pieces import count_pieces, guess_tokens

TEXTS = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May.\n",
    "48/2 = <<48/2=24>>24 clips in May. Altogether 48+24 = 72.\n#### 72",
    "Which of these should I choose if my card was declined while I was travelling abroad last weekend?",
    "def total(values):\n    return sum(value for value in values if value > 0)\n",
    "返品の期限は、商品が届いてから三日以内です。送料はお客様のご負担となりますので、ご了承ください。",
)


@pytest.mark.parametrize("text", TEXTS)
def test_the_guess_is_near_what_smollm2_makes(text: str, smollm2_gguf: Path) -> None:
    tokenizer = build_tokenizer(read_header(smollm2_gguf))[0]
    taken = len(tokenizer.encode(text, add_special_tokens=False).ids)
    assert guess_tokens(*count_pieces(text), 49_152) == pytest.approx(taken, rel=0.2)


def test_other_scripts_take_fewer_tokens_in_a_large_vocabulary() -> None:
    pieces, wide = count_pieces("三日以内です。")
    assert (round(pieces), wide) == (1, 6)
    assert guess_tokens(pieces, wide, 150_000) < guess_tokens(pieces, wide, 49_152)


def test_digits_count_one_by_one_and_with_their_space() -> None:
    assert count_pieces("72")[0] == pytest.approx(count_pieces("7")[0] * 2)
    assert count_pieces("a 7")[0] == pytest.approx(count_pieces("a7")[0] + count_pieces("7")[0])


def test_accents_stay_within_a_word() -> None:
    assert count_pieces("Müller") == count_pieces("Muller")
