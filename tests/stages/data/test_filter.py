"""data.filter: what is plainly broken goes, with rule and value; poems, manuals and dialogue stay."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest
from dedup_bench import data_bench

from kogata.core.artifact import Document
from kogata.core.errors import DataError
from kogata.core.receipt import Machine
from kogata.core.stage import Account, Share
from kogata.engine import saved
from kogata.engine.filters import _judge
from kogata.stages.data.filter import Filter

EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "data"
GOOD = (
    "The kettle sang on the hob while the rain went on, and nobody spoke of the letter that had come. "
    "At last the old man rose, lit his pipe, and said that the road to the sea was long but not hard."
)
JAPANESE = (
    "道がつづら折りになって、いよいよ天城峠に近づいたと思う頃、雨脚が杉の密林を白く染めながら、"
    "すさまじい早さで麓から私を追って来た。私は二十歳、高等学校の制帽をかぶり、袴に学生カバンを肩にかけていた。"
)
WORDS = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in ("n", "r", "st", "lly", "")]


def words(count: int, seed: int = 0) -> str:
    chosen = random.Random(seed)
    return " ".join(chosen.choice(WORDS) for _ in range(count))


def verdict(text: str, **settings: float | None) -> tuple[str | None, float | None]:
    account = Account()
    given = [
        Document("x", text),
        Document("held", GOOD, "heldout"),
        Document("good", "Good enough as it is."),
    ]
    kept = [document.id for document in Filter(**settings).each(given, account)]  # type: ignore[arg-type]
    assert kept[-2:] == ["held", "good"] and account.read == 3 and account.kept == len(kept)
    if "x" in kept:
        return None, None
    (reason,) = account.reasons
    return reason, account.examples[reason][0]["value"]


@pytest.mark.parametrize(
    ("text", "reason", "value"),
    [
        ("Too short.", "min_characters 20", 10),
        ("a\ufffd" * 200, "max_replacement 0.01", 0.5),
        ("Read more here\n" * 60 + words(50), "max_repeated_lines 0.4", None),
        ("Click to\ngo on\n\n" * 30 + words(40), "max_repeated_paragraphs 0.4", None),
        ("a b c d e f g h i j k l m n o p", "min_word_length 2", 1.0),
        ("x" * 30 + " " + "y" * 50, "max_word_length 20", 40.0),
        ("<td>{}|~#^</td>" * 20 + words(5), "max_symbols 0.25", None),
        (("call 213 now " * 60 + words(60)), "max_top_ngram 0.25", None),
        ((words(200, 1) + " ") * 4, "max_repeated_ngrams 0.5", 0.75),
        (JAPANESE * 5, "max_repeated_ngrams 0.5", 0.8),
        ("今すぐ登録！" * 100 + JAPANESE, "max_top_ngram 0.25", None),
    ],
)
def test_broken_text_goes_with_rule_and_value(text: str, reason: str, value: float | None) -> None:
    if reason == "max_repeated_paragraphs 0.4":
        found = verdict(text, max_repeated_lines=None)
    else:
        found = verdict(text)
    assert found[0] == reason
    assert value is None or found[1] == pytest.approx(value, abs=0.01)


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        JAPANESE,
        "ROMEO:\nIs the day so young?\n\nBENVOLIO:\nBut new struck nine.\n\nROMEO:\nAy me! sad hours seem",
        "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।",
        "def add(a, b):\n    return a + b  # the sum\n\nThe function above adds two numbers and returns it.",
        "Ärger über Öfen: größer, schöner, weiß der Teufel, wie das nun wieder enden soll, sagte er.",
        "天地玄黄宇宙洪荒日月盈昃辰宿列張寒来暑往秋収冬蔵",
        "나랏말싸미 듕귁에 달아 문자와로 서르 사맛디 아니할쎄 이런 젼차로 어린 백셩이 니르고져",
    ],
)
def test_good_text_stays(text: str) -> None:
    assert verdict(text) == (None, None)


def test_no_rule_of_words_for_languages_without_spaces() -> None:
    assert verdict(JAPANESE.replace("、", ""), max_word_length=10) == (None, None)


def test_each_rule_can_be_set_and_switched_off() -> None:
    assert verdict(words(300), max_characters=100)[0] == "max_characters 100"
    assert verdict("Too short.", min_characters=None) == (None, None)


def test_everything_rejected_stops_with_the_table() -> None:
    given = [Document("a", "short"), Document("b", "#" * 50), Document("h", "held", "heldout")]
    with pytest.raises(DataError) as caught:
        list(Filter().each(given, Account()))
    assert str(caught.value) == "\n".join(
        [
            "every training document was rejected",
            "  at: data.filter",
            "  found: 1 × min_characters 20, first a (5); 1 × max_symbols 0.25, first b (1.0)",
            "  expected: at least one training document that meets every rule",
            "  remedy: loosen the rule min_characters or set it to null, or leave data.filter out",
        ]
    )


def test_heldout_and_test_pass_untouched() -> None:
    given = [Document("h", "#", "heldout"), Document("t", "#", "test"), Document("g", GOOD)]
    assert list(Filter().each(given, Account())) == given


def test_the_examples_lose_nothing() -> None:
    texts = [
        gzip.decompress(path.read_bytes()).decode()
        for folder in ("novels", "shakespeare")
        for path in sorted((EXAMPLES / folder).glob("*.txt.gz"))[:4]
    ]
    rows = gzip.decompress((EXAMPLES / "aozora" / "works.jsonl.gz").read_bytes()).decode().split("\n")
    texts += [json.loads(row)["text"] for row in rows[:60] if row]
    account = Account()
    kept = list(Filter().each((Document(str(n), text) for n, text in enumerate(texts)), account))
    assert len(kept) == len(texts), account.reasons


def test_the_forecast_hands_the_facts_on() -> None:
    facts = {
        "splits": {"train": {"documents": 3, "bytes": 10_000_000, "characters": 9}},
        "language_hint": "en",
    }
    told = Filter().forecast({"corpus": facts}, Machine(), Share())
    assert told.facts == facts and told.cost.seconds is not None and 0.5 < told.cost.seconds < 3


# Several processes, a cluster, a kill


def many() -> list[Document]:
    """Documents of which every rule that is asked for takes some, and held-out ones in between."""
    made = []
    for at in range(150):
        text = f"Number {at}. {GOOD}" if at % 3 else f"{at}番目。{JAPANESE}"
        if at % 7 == 0:
            text = "Too short."
        if at % 11 == 0:
            text += "\nHome\nWe use cookies on this page"
        made.append(Document(str(at), text, "heldout" if at % 50 == 9 else "train"))
    return made


def filtered(**more: Any) -> tuple[list[Document], Account]:
    account = Account(**more.pop("account", {}))
    rules = {"c4": {"min_sentences": None}, "prior": {"keep": 0.9}}
    stage = Filter.model_validate({"rules": rules, **more})
    return list(stage.each(many(), account)), account


@pytest.mark.timeout(300)
def test_several_processes_and_a_cluster_judge_as_one(tmp_path: Path) -> None:
    one, counted = filtered(processes=1)
    assert len(counted.reasons) == 3 and counted.extra["lines_taken_out"]
    two, again = filtered(processes=2)
    assert two == one and again.to_dict() == counted.to_dict()
    bench, asked = data_bench(tmp_path), []

    def spread(make: Any, batches: Any, seconds: float, late: Any) -> Any:
        work = make()
        for batch in batches:
            asked.append(len(batch))
            yield work(batch)

    bench.spread = spread
    there, told = filtered(processes="ray", account={"bench": bench})
    assert there == one and told.to_dict() == counted.to_dict()
    assert asked == [64, 64, 22], "what is learned is judged here"


def test_a_kill_costs_at_most_a_shard_of_judging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saved, "SHARD_ITEMS", 40)
    whole, counted = filtered(processes=1)
    judged: list[str] = []
    judge = _judge.judge

    def spied(families: Any, document: Document) -> Any:
        judged.append(document.id)
        return judge(families, document)

    monkeypatch.setattr(_judge, "judge", spied)
    bench = data_bench(tmp_path)
    stage = Filter.model_validate({"rules": {"c4": {"min_sentences": None}}, "processes": 1})
    begun = stage.each(many(), Account(bench=bench, label="f"))
    for _ in range(90):
        next(begun)
    # Killed here: what a process would still write in leaving is not there.
    done = {path: path.read_bytes() for path in (bench.checkpoints / "f-rules").iterdir()}
    begun.close()
    for path in (bench.checkpoints / "f-rules").iterdir():
        if path not in done:
            path.unlink()
    del judged[:]
    rules = {"c4": {"min_sentences": None}, "prior": {"keep": 0.9}}
    stage = Filter.model_validate({"rules": rules, "processes": 1})
    account = Account(bench=bench, label="f")
    assert list(stage.each(many(), account)) == whole and account.to_dict() == counted.to_dict()
    by_rules = judged[: judged.index("149") + 1]
    assert len(done) == 2 and by_rules == [str(at) for at in range(80, 150)]
    # Other text under the same name is judged anew.
    del judged[:]
    changed = [Document(document.id, document.text + " And more of it.") for document in many()]
    list(stage.each(changed, Account(bench=bench, label="f")))
    assert judged[:150] == [str(at) for at in range(150)]


def test_much_text_takes_more_processes_and_no_more_than_fit() -> None:
    facts = {"corpus": {"splits": {"train": {"documents": 10, "bytes": 10**9, "characters": 1}}}}
    resolved = Filter().resolve(facts, Machine(cores=4), Share(memory_bytes=2**33))
    assert isinstance(resolved.stage, Filter) and resolved.stage.processes == 4
    more = resolved.stage.forecast(facts, Machine(cores=4), Share()).cost
    alone = Filter(processes=1).forecast(facts, Machine(cores=4), Share()).cost
    assert (more.seconds or 0) < (alone.seconds or 0) and (more.cpu_seconds or 0) >= (alone.cpu_seconds or 0)
    assert (more.peak_bytes or 0) > (alone.peak_bytes or 0)
    little = {"corpus": {"splits": {"train": {"documents": 10, "bytes": 10**6, "characters": 1}}}}
    assert Filter().resolve(little, Machine(cores=4), Share()).reasons == {
        "processes": "1: too little text for more"
    }
