"""sound: planted copies, cut-off and swapped answers go, in English and Japanese; varied rows come first."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kogata.engine.examples import Example, ExamplesWriter
from kogata.engine.select import sound
from kogata.engine.select._pool import Pool

EN = {
    "people": ["the captain", "a young teacher", "my neighbour", "the old baker", "her brother"],
    "acts": ["painted", "repaired", "carried", "sold", "washed", "measured", "borrowed"],
    "things": ["wooden boat", "garden fence", "heavy piano", "silver watch", "broken window", "blue kettle"],
    "places": ["near the harbour", "behind the church", "in the kitchen", "on the bridge", "at the station"],
}
JA = {
    "people": ["船長", "若い先生", "隣の人", "年老いたパン屋", "彼女の弟"],
    "acts": ["塗った", "直した", "運んだ", "売った", "洗った", "測った", "借りた"],
    "things": ["木の小舟", "庭の柵", "重いピアノ", "銀の時計", "割れた窓", "青いやかん"],
    "places": ["港の近くで", "教会の裏で", "台所で", "橋の上で", "駅の前で"],
}


def rows(words: dict[str, list[str]], count: int, chance: random.Random) -> list[tuple[str, str]]:
    """Makes questions of three kinds about sentences, and their answers."""
    spaced = words is EN
    found = []
    for at in range(count):
        who, act, what, where = (
            chance.choice(words[kind]) for kind in ("people", "acts", "things", "places")
        )
        day = f"{at} days ago" if spaced else f"{at}日前に"
        if spaced:
            text = f"{day} {who} {act} the {what} {where}"
            kinds = [
                (
                    f"Write a sentence with: {who}, {what}, {day}.",
                    f"It was {day} that {who} {act} the {what}.",
                ),
                (f"Where did it happen? {text}.", f"It happened {where}."),
                (f"How many days ago was it? {text}.", str(at)),
            ]
        else:
            text = f"{day}{who}は{where}{what}を{act}"
            kinds = [
                (f"次の語で文を作ってください。{who}、{what}、{day}", f"{day}、{who}は{what}を{act}のです。"),
                (f"どこで起きましたか。{text}。", f"それは{where}起きました。"),
                (f"何日前のことですか。{text}。", str(at)),
            ]
        found.append(kinds[at % 3])
    return found


@cache
def judged(language: str) -> tuple[np.ndarray, np.ndarray, dict[int, str]]:
    """Plants damage in 300 rows and gives each row's kind, the scores and the reasons."""
    import tempfile

    chance = random.Random(5)
    made = rows(EN if language == "en" else JA, 300, chance)
    kinds = ["sound"] * len(made)
    long = [at for at in range(300) if len(made[at][1]) > 12]
    for at in chance.sample(long, 24):
        question, answer = made[at]
        made[at] = (question, answer[: chance.randrange(len(answer) // 4, 3 * len(answer) // 4)])
        kinds[at] = "cut"
    swapped = chance.sample([at for at in range(300) if kinds[at] == "sound"], 24)
    answers = [made[at][1] for at in swapped]
    for place, at in enumerate(swapped):
        other = next(a for a in (*answers[place + 1 :], *answers) if a != made[at][1])
        made[at], kinds[at] = (made[at][0], other), "swapped"
    whole = [at for at in range(300) if kinds[at] == "sound" and len(made[at][0]) > 12]
    for number, at in enumerate(chance.sample(whole, 24)):
        question, answer = made[at]
        made.append((question if number % 2 else question.replace(".", " ,").replace("。", "、"), answer))
        kinds.append("copy")
    with tempfile.TemporaryDirectory() as folder:
        scores, reasons = scored(Path(folder), made)
    return np.array(kinds), scores, reasons


def scored(
    folder: Path, made: list[tuple[str, str]], more: dict[str, Any] | None = None, **settings: object
) -> tuple[np.ndarray, dict[int, str]]:
    writer = ExamplesWriter(folder)
    for at, (prompt, completion) in enumerate(made):
        fields = {"prompt": prompt, "completion": completion}
        writer.write(Example(id=f"r{at}", form="completion", source=f"rows.csv:{at}", fields=fields))
    writer.close()
    pool = Pool(folder, "examples", seed=3, **(more or {}))
    return sound.scores(sound.Settings.model_validate(settings), pool), pool.reasons


@pytest.mark.parametrize("language", ["en", "ja"])
def test_planted_damage_goes_and_sound_rows_stay(language: str) -> None:
    kinds, scores, reasons = judged(language)
    out = np.isneginf(scores)
    assert {at for at in np.flatnonzero(out)} == set(reasons)
    assert out[kinds == "copy"].all()
    assert out[kinds != "sound"].mean() >= 0.8, "most of what was planted"
    assert out[kinds == "sound"].mean() <= 0.1, "few that are sound"
    cut = [reasons[at] for at in np.flatnonzero((kinds == "cut") & out)]
    assert cut.count("an answer that is cut off") >= 0.5 * len(cut)
    swapped = [reasons[at] for at in np.flatnonzero((kinds == "swapped") & out)]
    assert swapped.count("another question's answer") >= 0.5 * len(swapped)
    copies = np.flatnonzero(kinds == "copy")
    assert sum(reasons[at].startswith("a copy: of r") for at in copies) >= 0.8 * len(copies)


def test_what_is_asked_for_is_looked_for(tmp_path: Path) -> None:
    made = rows(EN, 90, random.Random(1))
    made += [made[0], (made[1][0], made[2][1])]
    for name, settings in (("both", {}), ("none", {"copies": False, "damaged": False})):
        (tmp_path / name).mkdir()
        _, reasons = scored(tmp_path / name, made, **settings)
        assert reasons.get(90, "").startswith("a copy: of r0") == (name == "both")
        assert not reasons or name == "both"
    few = tmp_path / "few"
    few.mkdir()
    scores, reasons = scored(few, made[:20])
    assert not reasons and np.isfinite(scores).all(), "too little to learn from: nothing goes"


def test_a_question_with_two_answers_is_no_copy(tmp_path: Path) -> None:
    asked = "Which of the two rivers is longer, the one in the north or the one in the south?"
    made = [(asked, "the northern"), (asked, "the southern"), (asked.replace("two", "2"), "The northern!")]
    made += [("は?", "はい"), ("は?", "はい"), ("…", "はい"), ("!", "はい")]
    _, reasons = scored(tmp_path, made)
    assert sorted(reasons) == [2, 4] and reasons[2] == "a copy: of r0"


def test_varied_rows_come_first(tmp_path: Path) -> None:
    same = "a gull cried over the grey water of the harbour while the storm came nearer and nearer"
    made = [(f"{same}, and then? {at}", f"{at} ships") for at in range(20)]
    made += [("駅までの道を教えてください", "角を右に曲がります"), ("昨夜の夕食は何でしたか", "焼き魚です")]
    made += [("Name a metal that conducts well", "copper"), ("Who wrote the letter?", "my aunt Ruth")]
    scores, _ = scored(tmp_path, made, copies=False, varied=True)
    assert len({float(score) for score in scores}) == len(made)
    assert set(np.argsort(-scores)[:6]) >= {20, 21, 22, 23}


def many(language: str) -> list[tuple[str, str]]:
    """Makes 240 rows, of which every fifth is cut off."""
    made = rows(EN if language == "en" else JA, 240, random.Random(7))
    return [(asked, told[: len(told) // 2] if at % 5 == 0 else told) for at, (asked, told) in enumerate(made)]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("language", ["en", "ja"])
def test_several_processes_judge_the_same(
    language: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sound, "TOGETHER", 80)
    made, found = many(language), []
    for number, (processes, threads) in enumerate(((1, 1), (1, 2), (2, 1))):
        folder = tmp_path / str(number)
        folder.mkdir()
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        found.append(scored(folder, made, {"processes": processes}))
        torch.set_num_threads(before)
    assert found[0][1] and all(reasons == found[0][1] for _, reasons in found)
    assert all(np.array_equal(scores, found[0][0]) for scores, _ in found)


def test_a_kill_costs_at_most_the_rows_judged_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sound, "TOGETHER", 80)
    made, judged_groups = many("en"), []

    def spread(make: Any, batches: Any, seconds: float, late: Any) -> Any:
        work = make()
        for batch in batches:
            judged_groups.append(len(batch[0]))
            yield work(batch)

    results = []
    for name in ("first", "again"):
        (tmp_path / name).mkdir()
        del judged_groups[:]
        results.append(scored(tmp_path / name, made, {"spread": spread, "folder": tmp_path / "kept"}))
        parts = len(judged_groups)
        if name == "first":
            assert parts == sound.parts_of(sum(judged_groups)) == 3
            sorted((tmp_path / "kept" / "pass-1").glob("shard-*"))[-1].unlink()
    assert parts == 1, "the one that was not written is judged again, no other"
    assert results[0][1] == results[1][1] and np.array_equal(results[0][0], results[1][0])


def test_threshold_lets_nothing_go_where_damage_is_not_told_apart() -> None:
    draw = np.random.default_rng(0)
    odds = draw.normal(size=400)
    assert sound.threshold(odds, odds.copy(), 2.0) == float("inf")
    apart = sound.threshold(odds, odds + 9, 2.0)
    assert (odds >= apart).mean() < 0.02 and (odds + 9 >= apart).mean() > 0.97
    strict, loose = (sound.threshold(odds, odds + 2, cost) for cost in (8.0, 1.0))
    assert strict > loose
