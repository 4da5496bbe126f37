"""Encodings are found, bytes that fit none are counted, and nothing a text should not hold is left."""

from __future__ import annotations

import io

import pytest

from kogata.engine.encodings import BLOCK, Decoder, detect, known_encoding, mend

JAPANESE = "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。\n"
FRENCH = "L’été dernier, le garçon a mangé des œufs à la crème – « délicieux ».\n"
RUSSIAN = "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива по-своему.\n"
CHINESE = "学而时习之,不亦说乎?有朋自远方来,不亦乐乎?\n"
KOREAN = "나랏말싸미 듕귁에 달아 문자와로 서르 사맛디 아니할쎄\n모든 국민은 법 앞에 평등하다.\n"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Plain letters.\n", "utf-8"),
        (JAPANESE, "utf-8"),
        (JAPANESE, "utf-8-sig"),
        (JAPANESE, "cp932"),
        (JAPANESE, "euc_jp"),
        (JAPANESE, "iso2022_jp"),
        (JAPANESE, "utf-16"),
        (JAPANESE, "utf-32"),
        ("ﾊﾝｶｸ ｶﾅ の漢字とひらがな。\n", "cp932"),
        ("テスト\n", "cp932"),
        ("東京都\n", "cp932"),
        (FRENCH, "cp1252"),
        ("café\n", "cp1252"),
        ("Zoë’s\n", "cp1252"),
        ("It costs £5.\n", "latin-1"),
        (RUSSIAN, "cp1251"),
        (RUSSIAN, "koi8-r"),
        (CHINESE, "gb18030"),
        ("學而時習之，不亦說乎？有朋自遠方來，不亦樂乎？\n", "big5"),
        (KOREAN, "cp949"),
        ("Wide letters without a mark.\n", "utf-16-le"),
        ("Wide letters without a mark.\n", "utf-16-be"),
    ],
)
@pytest.mark.parametrize("times", [1, 50])
def test_the_encoding_is_found(text: str, encoding: str, times: int) -> None:
    data = (text * times).encode(encoding)
    assert data.decode(detect(data)) == text * times


def test_a_few_broken_bytes_do_not_turn_utf8_into_something_else() -> None:
    data = bytearray((JAPANESE * 40).encode())
    data[1000] = 0xFF
    assert detect(bytes(data)) == "utf-8"
    assert detect((FRENCH * 20).encode() + b"\xe9t\xe9") == "utf-8"


def test_a_character_cut_off_at_the_end_of_a_block_is_no_fault() -> None:
    assert detect(JAPANESE.encode()[:-2], whole=False) == "utf-8"


class Slow(io.BytesIO):
    """Gives a block at a time and remembers the largest."""

    largest = 0

    def read(self, size: int | None = -1) -> bytes:
        assert size and size > 0, "never all at once"
        self.largest = max(self.largest, size)
        return super().read(size)


@pytest.mark.parametrize("encoding", ["utf-8", "cp932", "euc_jp"])
def test_a_long_stream_is_decoded_block_by_block(encoding: str) -> None:
    text = "ascii only. " * (BLOCK // 10) + JAPANESE * 3000
    stream = Slow(text.encode(encoding))
    decoder = Decoder(stream)
    assert "".join(decoder.blocks()) == text
    assert decoder.read_bytes == len(text.encode(encoding))
    assert stream.largest == BLOCK


def test_undecodable_bytes_are_counted_and_marked() -> None:
    data = JAPANESE.encode() + b"\xff\xfe" + JAPANESE.encode()
    text, mends = mend("".join(Decoder(io.BytesIO(data), "utf-8").blocks()))
    assert text == JAPANESE + "\ufffd\ufffd" + JAPANESE
    assert (mends.undecodable, mends.surrogates, mends.zeros) == (2, 0, 0)


def test_lone_surrogates_and_nul_are_mended() -> None:
    text, mends = mend("a\0b\ud800c\udbffd\u3042")
    assert text == "ab\ufffdc\ufffdd\u3042"
    assert (mends.undecodable, mends.surrogates, mends.zeros) == (0, 2, 1)
    text.encode("utf-8")


def test_a_replacement_character_of_the_text_itself_is_no_undecodable_byte() -> None:
    assert mend("a\ufffdb")[1].undecodable == 0


def test_known_encodings() -> None:
    assert known_encoding("auto") and known_encoding("Shift_JIS") and known_encoding("EUC-JP")
    assert not known_encoding("utf-9") and not known_encoding("base64")
