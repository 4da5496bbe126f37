"""Tagging: units, classes, spans as seqeval counts them, paths, windows, and what each method learns."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from small_encoders import write_small_encoder
from small_tags import tagged, tags_artifact

from kogata.core.errors import DataError
from kogata.engine.load import load_tokenizer
from kogata.engine.tag._paths import best_paths
from kogata.engine.tag._pieces import IGNORED, Cutter, targets_of, units_of
from kogata.engine.tag._scores import lead, mixed_up, scores, spans_of
from kogata.engine.tag._task import Row, Scheme, Workshop, read_task, scheme_of, unreachable
from kogata.engine.tag._task import units_of as units_of_text

SCHEME = Scheme(labels=("LOC", "PER"))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_units_are_words_numbers_signs_and_characters_of_japanese() -> None:
    text = "Anna's 3rd 東京へ2024年"
    assert [text[a:b] for a, b in units_of_text(text)] == [
        "Anna", "'", "s", "3", "rd", "東", "京", "へ", "2024", "年",
    ]  # fmt: skip


def test_classes_of_units() -> None:
    assert SCHEME.classes == ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]
    places = [(0, 4), (5, 9), (10, 12), (13, 15)]
    classes = SCHEME.targets(places, [(0, 9, "PER"), (13, 15, "LOC")])
    assert [SCHEME.classes[c] for c in classes] == ["B-PER", "I-PER", "O", "B-LOC"]
    # A piece that holds more than the span belongs to it by half of its characters.
    assert SCHEME.targets([(0, 2), (2, 6)], [(1, 3, "PER")]).tolist() == [3, 0]
    plain = Scheme(labels=("NOUN", "VERB"), plain=True)
    assert plain.classes == ["NOUN", "VERB"]
    assert plain.targets([(0, 1), (1, 2), (2, 3)], [(0, 1, "VERB"), (1, 2, "NOUN")]).tolist() == [1, 0, -1]


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        ("B-PER I-PER O B-LOC", [(0, 2, "PER"), (3, 4, "LOC")]),
        ("B-PER B-PER I-PER", [(0, 1, "PER"), (1, 3, "PER")]),
        # Strict: what continues nothing is no span, and another label ends one.
        ("I-PER O I-LOC", []),
        ("B-PER I-LOC I-LOC I-PER", [(0, 1, "PER")]),
        ("O O", []),
        ("B-動物 I-動物", [(0, 2, "動物")]),
    ],
)
def test_spans_of_tags_are_those_of_strict_iob2(tags: str, spans: list[tuple[int, int, str]]) -> None:
    assert spans_of(tags.split()) == spans


def tag_row(tags: str) -> Row:
    """Makes the row of tags, its tokens one character each."""
    tokens = tuple((2 * at, 2 * at + 1) for at in range(len(tags.split())))
    spans = tuple((tokens[a][0], tokens[b - 1][1], label) for a, b, label in spans_of(tags.split()))
    return Row(text="x " * len(tokens), spans=spans, tokens=tokens)


def test_scores_are_those_counted_by_hand() -> None:
    # The example of seqeval's own page: one of two spans is found exactly; MISC 0, PER 1, accuracy 8 of 10.
    scheme = Scheme(labels=("MISC", "PER"))
    rows = [tag_row("O O O B-MISC I-MISC I-MISC O"), tag_row("B-PER I-PER O")]
    said = [tag_row("O O B-MISC I-MISC I-MISC I-MISC O"), tag_row("B-PER I-PER O")]
    found = scores(rows, [row.spans for row in said], scheme)
    assert (found["precision"], found["recall"], found["f1"], found["macro_f1"]) == (0.5, 0.5, 0.5, 0.5)
    assert found["by_label"]["MISC"]["f1"] == 0.0 and found["by_label"]["PER"]["f1"] == 1.0
    assert found["token_accuracy"] == 0.8 and (found["n"], found["spans"], found["tokens"]) == (2, 2, 10)
    # Three marked, four found, two of them right: precision 1/2, recall 2/3, F1 4/7. One has a wrong label.
    rows = [tag_row("B-PER O B-LOC I-LOC O B-PER")]
    said = [tag_row("B-PER B-LOC B-LOC I-LOC O B-LOC")]
    found = scores(rows, [row.spans for row in said], SCHEME)
    assert (found["precision"], found["recall"], found["f1"]) == (0.5, 0.666667, 0.571429)
    assert found["by_label"]["LOC"] == {"precision": 0.333333, "recall": 1.0, "f1": 0.5, "spans": 1}
    assert found["by_label"]["PER"] == {"precision": 1.0, "recall": 0.5, "f1": 0.666667, "spans": 2}
    assert sorted(mixed_up(rows, [row.spans for row in said])) == [["PER", "LOC", 1], ["–", "LOC", 1]]
    nothing = scores([tag_row("O O")], [[]], SCHEME)
    assert nothing["f1"] == 0.0 and nothing["token_accuracy"] == 1.0


def test_plain_tags_are_scored_a_token_each_without_o() -> None:
    scheme = Scheme(labels=("NOUN", "O", "VERB"), plain=True)
    row = Row(
        text="a b c", spans=((0, 1, "NOUN"), (2, 3, "O"), (4, 5, "VERB")), tokens=((0, 1), (2, 3), (4, 5))
    )
    found = scores([row], [[(0, 1, "NOUN"), (2, 3, "VERB"), (4, 5, "VERB")]], scheme)
    assert (found["precision"], found["recall"]) == (0.666667, 1.0) and found["token_accuracy"] == 0.666667


def test_a_lead_is_judged_on_the_same_rows() -> None:
    rows = [tag_row("B-PER O")] * 8 + [tag_row("B-LOC O")] * 8
    right = [row.spans for row in rows]
    half = [*right[:8], *[()] * 8]
    gap, error = lead(rows, right, half)
    assert abs(gap - (1 - 2 / 3)) < 1e-9 and 0 < error < gap
    assert lead(rows, half, half) == (0.0, 0.0)


def test_paths_are_the_likeliest_that_make_sense() -> None:
    chance = np.random.default_rng(0)
    logs = [np.log(chance.dirichlet(np.ones(5), size=size)) for size in (1, 3, 4, 4)]
    for (path, shares), row in zip(best_paths(logs, SCHEME), logs, strict=True):
        best = max(
            (ways for ways in itertools.product(range(5), repeat=len(row)) if _makes_sense(ways)),
            key=lambda ways: sum(row[at, c] for at, c in enumerate(ways)),
        )
        assert tuple(path) == best
        assert np.allclose(shares, np.exp([row[at, c] for at, c in enumerate(best)]))


def _makes_sense(ways: tuple[int, ...]) -> bool:
    return all(c not in (2, 4) or (at > 0 and ways[at - 1] in (c - 1, c)) for at, c in enumerate(ways))


# Pieces and windows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_encoder(tmp_path_factory.mktemp("encoder"))


def test_every_piece_of_a_span_is_learned_and_its_first_is_b(folder: Path) -> None:
    cutter = Cutter(load_tokenizer(folder), 40)
    row = Row(text="my new card 猫犬", spans=((3, 11, "PER"), (12, 13, "LOC"), (13, 14, "LOC")))
    (pieces,) = cutter.pieces([row.text])
    classes = [SCHEME.classes[c] for c in targets_of(pieces, row, SCHEME)]
    assert classes == ["O", "B-PER", "I-PER", "B-LOC", "B-LOC"]
    places, first = units_of(pieces, row)
    assert [row.text[a:b] for a, b in places] == ["my", "new", "card", "猫", "犬"]
    assert first.tolist() == [0, 1, 2, 3, 4]


def test_pieces_of_a_word_are_one_unit_and_those_of_japanese_are_not() -> None:
    from kogata.engine.tag._pieces import Pieces

    text = "unlikely 東京都"
    places = [(0, 2), (2, 6), (6, 8), (9, 11), (11, 12)]
    pieces = Pieces(np.arange(5), *(np.array([p[side] for p in places]) for side in (0, 1)))
    units, first = units_of(pieces, Row(text=text))
    assert [text[a:b] for a, b in units] == ["unlikely", "東京", "都"] and first.tolist() == [0, 3, 4]
    units, first = units_of(pieces, Row(text=text, tokens=((0, 8), (9, 12))))
    assert first.tolist() == [0, 3], "a row's own tokens are kept, each judged by its first piece"
    row = Row(text=text, spans=((10, 12, "LOC"), (0, 8, "PER")))
    assert unreachable([row], [units]) == 1, "a span that begins within a piece is told"


def test_windows_hold_every_piece_once_and_overlap(folder: Path) -> None:
    cutter = Cutter(load_tokenizer(folder), 18)
    assert (cutter.before, cutter.after, cutter.room) == ([2], [3], 16)
    for words in (1, 16, 17, 40, 61):
        (pieces,) = cutter.pieces([" ".join(["my card is lost"] * 20).rsplit(" ", 80 - words)[0]])
        assert len(pieces) == words
        windows = list(cutter.windows(pieces))
        counted = [piece for w in windows for piece in range(w.first, w.first + w.count)]
        assert counted == list(range(words))
        assert all(len(w.ids) <= 18 and w.ids.ids[0] == 2 and w.ids.ids[-1] == 3 for w in windows)
        for w in windows:
            assert (
                w.ids.ids[w.skip : w.skip + w.count].tolist()
                == pieces.ids[w.first : w.first + w.count].tolist()
            )


def test_white_space_pieces_are_not_learned() -> None:
    from kogata.engine.tag._pieces import Pieces

    pieces = Pieces(np.arange(2), np.array([1, 1]), np.array([1, 3]))
    row = Row(text=" ab", spans=((1, 3, "PER"),))
    assert targets_of(pieces, row, SCHEME).tolist() == [IGNORED, 3]
    assert units_of(pieces, row)[0] == [(1, 3)]


# Tasks


def test_the_scheme_follows_the_rows(tmp_path: Path) -> None:
    from kogata.engine.examples import read_examples

    def scheme(*rows: tuple[list[str], list[str]]) -> Scheme:
        place = tmp_path / str(len(list(tmp_path.iterdir())))
        return scheme_of(read_examples(tags_artifact(place, train=list(rows)).path, "train"))

    assert scheme(*tagged(20)) == Scheme(labels=("ACT", "THING", "動物"))
    english = scheme((["a", "dog", "runs"], ["DET", "NOUN", "VERB"]))
    assert english.plain and english.classes == ["DET", "NOUN", "VERB"]
    # Where nothing parts the words, their bounds are learned with their tags.
    assert scheme((["猫", "が", "走る"], ["名詞", "助詞", "動詞"])).classes[:3] == ["O", "B-助詞", "I-助詞"]
    io = scheme((["Ann", "ran"], ["PER", "O"]), (["it", "ran"], ["O", "O"]))
    assert io.plain and io.classes == ["O", "PER"]
    with pytest.raises(DataError, match="nothing to tell apart"):
        scheme((["a", "b"], ["O", "O"]))


def test_rows_of_a_plain_scheme_that_are_all_o_are_all_o(tmp_path: Path) -> None:
    made = tags_artifact(tmp_path, train=[(["Ann", "ran"], ["PER", "O"]), (["it", "ran"], ["O", "O"])])
    scheme = Scheme(labels=("O", "PER"), plain=True)
    task = read_task(made.path, scheme, Workshop(None, scheme), 0)
    assert [span[2] for span in task.rows[1].spans] == ["O", "O"]


def test_a_label_that_training_never_saw_is_named(tmp_path: Path) -> None:
    made = tags_artifact(tmp_path, train=tagged(5), heldout=[(["my", "card"], ["O", "B-THINK"])])
    scheme = Scheme(labels=("ACT", "THING"))
    with pytest.raises(DataError, match="no training row has") as error:
        read_task(made.path, scheme, Workshop(None, scheme), 0, "heldout")
    assert "heldout.jsonl:1, span 1 ('card')" in str(error.value) and "did you mean 'THING'" in str(
        error.value
    )


def test_the_rarest_label_of_a_row_spreads_it_over_folds(tmp_path: Path) -> None:
    rows = [(["a", "b"], ["B-X", "B-Y"]), (["a"], ["B-X"]), (["c"], ["O"])]
    made = tags_artifact(tmp_path, train=rows)
    scheme = Scheme(labels=("X", "Y"))
    assert read_task(made.path, scheme, Workshop(None, scheme), 0).rarest.tolist() == [2, 1, 0]
