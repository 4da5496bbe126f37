"""Near-duplicates against exact Jaccard similarity, bands, sketches; repeated lines."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from dedup_bench import corpus_of, data_bench

from kogata.core.artifact import Document
from kogata.core.errors import DataError
from kogata.engine.dedup import _sketch, lines, minhash
from kogata.engine.dedup._passes import Method, deduplicate
from kogata.engine.dedup._sketch import band_keys, bands_for, jaccard, sets_of, sketch
from kogata.engine.text import read_corpus

KANJI = "日月火水木金土山川田人口目耳手足力男女子学校先生犬猫鳥魚花草森林空雨雪風雲海空町村道車"


def words(count: int, chance: random.Random) -> list[str]:
    return [f"w{chance.randrange(4000)}" for _ in range(count)]


def characters(count: int, chance: random.Random) -> list[str]:
    return [chance.choice(KANJI) for _ in range(count)]


def edited(units: list[str], edits: int, chance: random.Random) -> list[str]:
    found = list(units)
    for at in chance.sample(range(len(found)), edits):
        found[at] = "edited" if len(found[0]) > 1 else "変"
    return found


def plain_sets(text: str, ngram: int) -> set[tuple[str, ...]]:
    """Gives a text's runs the slow way: of words, or of characters where it has no spaces."""
    units = text.split() if " " in text else list(text)
    return {tuple(units[at : at + ngram]) for at in range(max(1, len(units) - ngram + 1))}


def plain_jaccard(a: str, b: str, ngram: int = 5) -> float:
    first, second = plain_sets(a, ngram), plain_sets(b, ngram)
    return len(first & second) / len(first | second)


def near(folder: Path, documents: list[Document], **settings: object) -> tuple[list[str], dict]:
    chosen = minhash.Settings.model_validate(settings)
    bench = data_bench(folder / "run")
    corpus = corpus_of(folder / "corpus", documents)
    facts = deduplicate(corpus.path, None, [Method("minhash", minhash, chosen)], 2**20, bench)
    return [document.id for document in read_corpus(bench.out, "train")], facts


def test_the_sets_are_those_of_the_words() -> None:
    chance = random.Random(0)
    texts = [" ".join(words(60, chance)), "".join(characters(60, chance)), "one two", "", "…"]
    texts += [" ".join(edited(texts[0].split(), 3, chance)), "".join(edited(list(texts[1]), 3, chance))]
    values, starts = sets_of(texts, 5)
    found = [values[starts[at] : starts[at + 1]] for at in range(len(texts))]
    assert [len(one) for one in found] == [len(plain_sets(text, 5)) for text in texts[:3]] + [0, 0] + [
        len(plain_sets(text, 5)) for text in texts[5:]
    ]
    assert all((np.diff(one.astype(np.int64)) > 0).all() for one in found)
    assert jaccard(found[0], found[5]) == pytest.approx(plain_jaccard(texts[0], texts[5]))
    assert jaccard(found[1], found[6]) == pytest.approx(plain_jaccard(texts[1], texts[6]))


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99])
def test_bands_miss_few_pairs_at_the_threshold(threshold: float) -> None:
    bands, rows = bands_for(threshold)
    assert (1 - threshold**rows) ** bands <= 0.002 and 1 <= bands <= 24


@pytest.mark.parametrize("size", [12, 40, 400])
def test_a_sketch_estimates_the_similarity(size: int) -> None:
    chance = np.random.default_rng(size)
    bands, rows = bands_for(0.8)
    agree, true, found, pairs = 0.0, 0.0, 0, 200
    for _ in range(pairs):
        values = np.unique(chance.integers(0, 2**32, size=size, dtype=np.uint64)).astype(np.uint32)
        gone = max(1, round(0.1 * len(values)))
        a, b = values[gone:], values[:-gone]
        chance.shuffle(values)
        both = np.concatenate([np.sort(a), np.sort(b)])
        least = sketch(both, np.array([0, len(a), len(a) + len(b)]), bands * rows)
        agree += float((least[0] == least[1]).mean())
        true = (len(values) - 2 * gone) / len(values)
        keys = band_keys(least, bands, rows)
        found += bool((keys[:, 0] == keys[:, 1]).any())
    assert agree / pairs == pytest.approx(true, abs=0.05)
    assert found / pairs > 0.95


@pytest.mark.parametrize("make, join", [(words, " ".join), (characters, "".join)])
def test_pairs_over_the_threshold_go_and_others_stay(make, join, tmp_path: Path) -> None:
    chance = random.Random(3)
    documents, near_ones = [], {}
    for number in range(60):
        units = make(chance.choice([30, 120, 400]), chance)
        documents.append(Document(f"a{number}", join(units)))
        other = join(edited(units, chance.randrange(0, 1 + len(units) // 18), chance))
        near_ones[f"b{number}"] = plain_jaccard(documents[-1].text, other)
        documents.append(Document(f"b{number}", other))
    kept, facts = near(tmp_path, documents, keep="first")
    over = {name for name, value in near_ones.items() if value >= 0.8}
    gone = {document.id for document in documents} - set(kept)
    assert 20 < len(over) < 60, "the test has both kinds"
    assert gone <= over, "precision"
    assert len(over - gone) <= 1, "recall"
    account = facts["accounts"]["the stage"]
    assert account["extra"]["clusters"]["clusters"] == len(gone)
    assert account["reasons"] == {"near-duplicate": len(gone)}


def test_short_texts_are_duplicates_only_when_their_words_are_the_same(tmp_path: Path) -> None:
    texts = ["Good morning!", "good morning", "good evening", "おはよう。", "おはよう", "…", "!!", ""]
    documents = [Document(str(at), text) for at, text in enumerate(texts)]
    kept, _ = near(tmp_path, documents, keep="first")
    assert kept == ["0", "2", "3", "5", "6", "7"]


def test_the_wanted_one_stays_and_chains_do_not_swallow_their_ends(tmp_path: Path) -> None:
    chance = random.Random(5)
    units = words(200, chance)
    chain = [units]
    for _ in range(12):
        chain.append([*chain[-1][3:], *words(3, chance)])
    documents = [Document(str(at), " ".join(part), meta={"score": at}) for at, part in enumerate(chain)]
    kept, _ = near(tmp_path / "first", documents, keep="first")
    for document in documents:
        like = [plain_jaccard(document.text, documents[int(name)].text) for name in kept]
        assert document.id in kept or max(like) >= 0.8
    assert kept[0] == "0" and 1 < len(kept) < 13, "the ends are no duplicates of each other"
    kept, _ = near(tmp_path / "scored", documents, keep="score")
    assert kept[-1] == "12"
    longer = [Document("short", " ".join(units)), Document("long", " ".join([*units, "and", "more"]))]
    assert near(tmp_path / "longest", longer)[0] == ["long"]


def test_a_crowd_of_one_template_is_thinned_to_one(tmp_path: Path) -> None:
    chance = random.Random(8)
    units = words(300, chance)
    documents = [Document(str(at), " ".join(edited(units, 2, chance))) for at in range(80)]
    kept, facts = near(tmp_path, documents, keep="first")
    assert len(kept) <= 2
    assert facts["accounts"]["the stage"]["extra"]["minhash"]["not_compared"] == 0


def page(name: str, host: str, body: list[str]) -> Document:
    menu = ["Home | About", "ホーム　|　会社案内"]
    return Document(name, "\n".join([*menu, *body, "© all rights"]), meta={"url": f"https://{host}/{name}"})


def test_lines_that_repeat_on_a_host_stay_in_the_first_page_only(tmp_path: Path) -> None:
    documents = [
        page(str(at), "www.a.jp" if at % 2 else "a.jp", [f"text {at}", "", f"本文{at}"]) for at in range(4)
    ]
    documents += [page("other", "b.jp", ["text b"]), Document("none", "Home | About\n© all rights")]
    documents += [Document("empty", "Home | About\n© all rights", meta={"url": "http://a.jp/e"})]
    bench = data_bench(tmp_path / "run")
    corpus = corpus_of(tmp_path / "corpus", documents)
    facts = deduplicate(corpus.path, None, [Method("lines", lines, lines.Settings())], 2**20, bench)
    found = {document.id: document.text for document in read_corpus(bench.out, "train")}
    assert found["0"] == documents[0].text
    assert found["1"] == "text 1\n\n本文1" and found["3"] == "text 3\n\n本文3"
    assert found["other"] == documents[4].text and found["none"] == documents[5].text
    account = facts["accounts"]["the stage"]
    assert account["reasons"] == {"only repeated lines": 1} and "empty" not in found
    assert account["extra"]["documents_cut"] == 3 and account["extra"]["lines_removed"] == 9


def test_lines_within_the_corpus_need_no_address(tmp_path: Path) -> None:
    documents = [Document(str(at), f"same\nown {at}") for at in range(4)]
    bench = data_bench(tmp_path / "run")
    corpus = corpus_of(tmp_path / "corpus", documents)
    chosen = lines.Settings(within="corpus", documents=4)
    deduplicate(corpus.path, None, [Method("lines", lines, chosen)], 2**20, bench)
    assert [d.text for d in read_corpus(bench.out, "train")] == ["same\nown 0", "own 1", "own 2", "own 3"]


def test_lines_of_near_duplicates_are_not_lost_with_the_copy(tmp_path: Path) -> None:
    body = [f"Line {at} of the text says that {' '.join(words(9, random.Random(at)))}." for at in range(12)]
    documents = [page(str(at), "a.jp", [*body, *extra]) for at, extra in enumerate([[], ["and more"], []])]
    documents += [page("9", "a.jp", ["something else"])]
    bench = data_bench(tmp_path / "run")
    corpus = corpus_of(tmp_path / "corpus", documents)
    methods = [Method("lines", lines, lines.Settings()), Method("minhash", minhash, minhash.Settings())]
    deduplicate(corpus.path, None, methods, 2**20, bench)
    found = {document.id: document.text for document in read_corpus(bench.out, "train")}
    assert set(found) == {"1", "9"} and found["1"] == documents[1].text


def test_a_sketch_of_few_runs_is_that_of_the_slow_way() -> None:
    chance = np.random.default_rng(4)
    texts = [
        np.unique(chance.integers(0, 2**32, size=size, dtype=np.uint32)) for size in (1, 2, 3, 9, 0, 200)
    ]
    starts = np.cumsum([0, *map(len, texts)])
    bins = 24
    found = sketch(np.concatenate(texts), starts, bins)
    order = _sketch._order(bins)
    for values, row in zip(texts, found, strict=True):
        least: dict[int, int] = {}
        for value in values.tolist():
            least.setdefault(value * bins >> 32, value)
        slow = [next((least[at] for at in order[one].tolist() if at in least), 0) for one in range(bins)]
        assert row.tolist() == slow


def test_what_stays_is_chosen_by_a_number_that_is_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no document has a number called 'scor'"):
        near(tmp_path, [Document("a", "some text", meta={"score": 1.0})], keep="scor")
