"""data.select: the best stay, every row says why, held-out text is neither chosen by nor touched."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from dedup_bench import corpus_of, data_bench
from pydantic import ValidationError

from kogata.core.artifact import Artifact, Document, Kind
from kogata.core.errors import DataError, RecipeError, Stopped
from kogata.core.receipt import Machine
from kogata.core.stage import Share
from kogata.engine.examples import Example, ExamplesWriter, read_examples
from kogata.engine.text import read_corpus
from kogata.stages.data.select import Select

FACTS: dict[str, Any] = {
    "kind": "corpus",
    "splits": {"train": {"documents": 1000, "bytes": 40_000_000, "characters": 40_000_000}},
    "language_hint": "en",
}
MACHINE = Machine(cores=2, gemm_flops=1.2e11, gemm_small_flops=8e10)


def text(kind: str, at: int) -> str:
    chance = random.Random(f"{kind}{at}")
    words = {"sea": "ship wave gull sail harbour storm", "law": "契約 条項 甲 乙 代金 利息 支払"}[
        kind
    ].split()
    return " ".join(chance.choice(words) for _ in range(60))


def pool(folder: Path) -> Artifact:
    documents = [Document(f"sea{at}", text("sea", at)) for at in range(30)]
    documents += [Document(f"law{at}", text("law", at)) for at in range(30)]
    documents += [Document("held", text("sea", 99), "heldout"), Document("test", text("law", 99), "test")]
    return corpus_of(folder / "pool", documents)


def run(folder: Path, corpus: Artifact | None = None, **settings: Any) -> tuple[Any, Any]:
    target, model = settings.pop("target_slot", None), settings.pop("model_slot", None)
    more = {name: settings.pop(name) for name in ("seed", "stop_after") if name in settings}
    given = {"corpus": corpus or pool(folder), "target": target, "model": model}
    facts = {slot: one and {**one.facts, "kind": str(one.kind)} for slot, one in given.items()}
    stage = Select.model_validate(settings).resolve(facts, MACHINE, Share()).stage
    bench = data_bench(folder / "run", **more)
    return bench, stage.run(given, bench)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    import zstandard

    raw = zstandard.ZstdDecompressor().stream_reader((folder / "scores.jsonl.zst").read_bytes()).read()
    return [json.loads(line) for line in raw.decode().splitlines()]


def test_the_best_stay_and_every_row_says_so(tmp_path: Path) -> None:
    (tmp_path / "like.txt").write_text(
        "\n\n".join(text("sea", at) for at in range(200, 400)), encoding="utf-8"
    )
    bench, facts = run(tmp_path, method="dsir", keep=0.5, target=str(tmp_path / "like.txt"))
    kept = [document.id for document in read_corpus(bench.out, "train")]
    assert 25 <= len(kept) and sum(name.startswith("sea") for name in kept) / len(kept) > 0.95
    rows = rows_of(bench.out)
    assert [row["id"] for row in rows] == [f"{kind}{at}" for kind in ("sea", "law") for at in range(30)]
    assert [row["id"] for row in rows if row["kept"]] == kept
    least = min(row["score"] for row in rows if row["kept"])
    assert all(row["score"] <= least for row in rows if not row["kept"])
    account = facts["accounts"]["the stage"]
    assert account["reasons"] == {"not among the best by dsir": 60 - len(kept)}
    assert account["read"] == account["kept"] + 60 - len(kept)
    assert facts["splits"]["train"]["documents"] == len(kept)
    assert account["extra"]["kept_share"] == pytest.approx(0.5, abs=0.02)
    assert [d.text for d in read_corpus(bench.out, "heldout")] == [text("sea", 99)]
    assert [d.text for d in read_corpus(bench.out, "test")] == [text("law", 99)]


def test_the_target_may_be_another_corpus_and_never_the_held_out_text(tmp_path: Path) -> None:
    like = corpus_of(
        tmp_path / "like",
        [Document(str(at), text("sea", at + 500)) for at in range(40)] + [Document("h", text("sea", 99))],
    )
    bench, facts = run(tmp_path, method="classifier", keep="2kB", target_slot=like)
    assert all(document.id.startswith("sea") for document in read_corpus(bench.out, "train"))
    assert facts["accounts"]["the stage"]["extra"]["target"]["held_out_left_out"] == 1
    assert any("held out" in line for line in bench.said)
    own = corpus_of(tmp_path / "own", [Document("h", text("sea", 99))])
    with pytest.raises(DataError, match="the target is held-out text") as error:
        run(tmp_path / "again", method="dsir", keep=0.5, target_slot=own)
    assert "worthless" in (error.value.remedy or "")


@pytest.mark.parametrize("keep, share", [(0.25, 0.25), ("6kB", None), ("1k", None), (1000, None), (1, 1.0)])
def test_amounts(keep: Any, share: float | None, tmp_path: Path) -> None:
    corpus = pool(tmp_path)
    size = corpus.facts["splits"]["train"]["bytes"]
    bench, facts = run(tmp_path, corpus, method="random", keep=keep)
    left = facts["splits"]["train"]["bytes"]
    if share is not None:
        assert left == pytest.approx(share * size, rel=0.05)
    else:
        assert 0 < left < size and left == pytest.approx(6000 if keep == "6kB" else 3500, rel=0.25)


@pytest.mark.parametrize("keep", ["10 apples", "MB", "-3M", "", 0, -0.5])
def test_no_amounts(keep: Any) -> None:
    with pytest.raises(ValidationError):
        Select.model_validate({"keep": keep})


def test_auto_is_strict_where_little_can_be_read_and_loose_where_much(tmp_path: Path) -> None:
    kept = []
    for seconds in (30.0, 600.0, 864_000.0):
        made = Select().resolve({"corpus": FACTS}, MACHINE, Share(budget_seconds=seconds))
        kept.append(made.stage.keep)  # type: ignore[attr-defined]
        assert made.reasons["keep"] and made.reasons["method"]
    assert kept == sorted(kept) and kept[0] == 0.1 and kept[-1] == 1.0
    examples = {**FACTS, "kind": "examples", "splits": {"train": {"examples": 900, "bytes": 10**6}}}
    made = Select().resolve({"corpus": examples}, MACHINE, Share()).stage
    assert made.keep == 1.0 and made.method.name == "sound"  # type: ignore[attr-defined]
    many = {**examples, "splits": {"train": {"examples": 2000, "bytes": 10**6}}}
    made = Select().resolve({"corpus": many}, MACHINE, Share()).stage
    assert made.keep == 0.4 and made.method.name == "sound"  # type: ignore[attr-defined]
    aimed = Select().resolve({"corpus": FACTS, "target": FACTS}, MACHINE, Share()).stage
    assert aimed.method.name != made.method.name  # type: ignore[attr-defined]


def test_what_a_method_needs_is_asked_for() -> None:
    for method, needed in (("dsir", "target"), ("classifier", "target"), ("ifd", "model")):
        with pytest.raises(RecipeError, match=f"needs {needed}"):
            Select.model_validate({"method": method}).resolve({"corpus": FACTS}, MACHINE, Share())
    with pytest.raises(RecipeError, match="needs examples"):
        facts = {"corpus": FACTS, "model": {"kind": "model"}}
        Select.model_validate({"method": "ifd"}).resolve(facts, MACHINE, Share())
    with pytest.raises(RecipeError, match="examples"):
        made = {"corpus": {**FACTS, "kind": "examples"}}
        Select.model_validate({"method": "random", "proxy": True}).resolve(made, MACHINE, Share())


def examples(folder: Path, rows: list[tuple[str, str]]) -> Artifact:
    folder.mkdir()
    writer = ExamplesWriter(folder)
    for at, (prompt, completion) in enumerate(rows):
        fields = {"prompt": prompt, "completion": completion}
        writer.write(Example(id=str(at), form="completion", source=f"rows.csv:{at}", fields=fields))
    fields = {"prompt": "held", "completion": "out"}
    writer.write(Example(id="h", form="completion", fields=fields), "heldout")
    return Artifact(
        kind=Kind.EXAMPLES, digest="0" * 64, path=folder, facts={**writer.close(), "columns": {"a": "b"}}
    )


def test_examples_with_long_answers_stay(tmp_path: Path) -> None:
    given = examples(
        tmp_path / "x", [("a long question " * 9, "no"), ("q", "長い答え。" * 9), ("q", "longer answer")]
    )
    bench, facts = run(tmp_path, given, method="longest", keep="100B")
    assert [example.id for example in read_examples(bench.out, "train")] == ["1"]
    assert [example.id for example in read_examples(bench.out, "heldout")] == ["h"]
    assert facts["columns"] == {"a": "b"} and facts["form"] == "completion"
    assert facts["splits"]["train"]["examples"] == 1


def test_every_row_says_why_it_went(tmp_path: Path) -> None:
    asked = "How far is it from the harbour to the old light house?"
    given = examples(tmp_path / "x", [(asked, "Two miles."), (asked, "Two miles."), ("どこ?", "港です。")])
    bench, facts = run(tmp_path, given)
    assert [example.id for example in read_examples(bench.out, "train")] == ["0", "2"]
    rows = rows_of(bench.out)
    assert [row.get("reason") for row in rows] == [None, "a copy: of 0", None]
    assert rows[1]["score"] is None and not rows[1]["kept"]
    account = facts["accounts"]["the stage"]
    assert account["reasons"] == {"a copy": 1} and account["extra"]["method"] == "sound"
    assert account["examples"]["a copy"][0]["value"] == "a copy: of 0"


def test_nothing_to_choose_from_and_a_stop(tmp_path: Path) -> None:
    empty = corpus_of(tmp_path / "empty", [Document("h", "held out only", "heldout")])
    with pytest.raises(DataError, match="nothing to choose from"):
        run(tmp_path, empty, method="random", keep=0.5)
    with pytest.raises(Stopped):
        run(tmp_path / "b", method="prior", keep=0.5, stop_after=0)
    signs = corpus_of(tmp_path / "signs", [Document("a", "…"), Document("b", "!!!")])
    with pytest.raises(DataError, match="nothing was chosen"):
        run(tmp_path / "c", signs, method="prior", keep=0.5)


def test_forecast_follows_what_stays() -> None:
    facts = {"corpus": FACTS, "target": None, "model": None}
    made = []
    for keep in (0.2, "4MB", 0.8):
        stage = (
            Select.model_validate({"method": "random", "keep": keep}).resolve(facts, MACHINE, Share()).stage
        )
        made.append(stage.forecast(facts, MACHINE, Share()))
    assert [one.facts["splits"]["train"]["bytes"] for one in made] == [8_000_000, 4_000_000, 32_000_000]
    slow = Select.model_validate({"method": "perplexity", "keep": 0.2}).forecast(facts, MACHINE, Share())
    tried = Select.model_validate({"method": "random", "keep": 0.2, "proxy": True})
    rows = {name: {"splits": {"train": {"examples": name, "bytes": 10**6}}} for name in (1000, 20_000)}
    sound = Select.model_validate({"method": "sound", "keep": 1.0})
    few, many = (sound.forecast({"corpus": facts}, MACHINE, Share()).cost for facts in rows.values())
    assert (many.seconds or 0) > (few.seconds or 0) + 10 and (few.peak_bytes or 0) > (many.peak_bytes or 0)
    assert (slow.cost.seconds or 0) > (made[0].cost.seconds or 0) + 1
    assert (tried.forecast(facts, MACHINE, Share()).cost.seconds or 0) > (made[0].cost.seconds or 0) + 10


def test_a_trial_sets_the_choice_beside_chance_on_equal_terms(tmp_path: Path) -> None:
    """What is trained is the choice and as much by chance; both start anew, judged on the same text."""
    from kogata.core.receipt import Receipt
    from kogata.core.recipe import Recipe
    from kogata.runtime.plan import wire

    seen: list[Any] = []

    def nested(steps: Any, budget: Any, seed: int) -> list[Receipt]:
        inputs, _ = wire(Recipe(name="trial", stages=tuple(steps), seed=seed))
        seen.append((steps, inputs, seed))
        values = {"trial-chosen-score": 1.5 + 0.01 * seed, "trial-random-score": 1.6 + 0.02 * seed}
        return [
            Receipt(
                key="k",
                label=name,
                stage="evaluate",
                status="done",
                facts={"bits_per_byte": {"value": value}},
            )
            for name, value in values.items()
        ]

    (tmp_path / "like.txt").write_text(
        "\n\n".join(text("sea", at) for at in range(200, 400)), encoding="utf-8"
    )
    settings = {"method": "dsir", "keep": 0.3, "target": str(tmp_path / "like.txt"), "proxy": {"seeds": 2}}
    corpus = pool(tmp_path)
    facts: dict[str, Any] = {"corpus": {**corpus.facts, "kind": "corpus"}, "target": None, "model": None}
    stage = Select.model_validate(settings).resolve(facts, MACHINE, Share()).stage
    bench = data_bench(tmp_path / "run")
    bench.run = nested
    made = stage.run({"corpus": corpus, "target": None, "model": None}, bench)
    trial = made["accounts"]["the stage"]["extra"]["trial"]
    assert (
        trial["chosen"] == [1.5, 1.51]
        and trial["random"] == [1.6, 1.62]
        and trial["difference"]["pairs"] == 2
    )
    assert trial["difference"]["mean"] == pytest.approx(-0.105) and [seed for *_, seed in seen] == [0, 1]
    kept = {document.text for document in read_corpus(bench.out, "train")}
    for number, (steps, inputs, _) in enumerate(seen):
        paths = {step.label: Path(step.stage.path) for step in steps if step.name == "data.read"}
        rows = {
            name: [json.loads(line) for line in path.read_text("utf-8").splitlines()]
            for name, path in paths.items()
        }
        assert {row["text"] for row in rows["trial-chosen"]} == kept
        assert {row["text"] for row in rows["trial-random"]} != kept
        assert len(rows["trial-random"]) == pytest.approx(len(kept), abs=1), number
        held = {step.stage.heldout for step in steps if step.name == "data.read"}
        (file,) = held
        assert [json.loads(line)["text"] for line in Path(file).read_text("utf-8").splitlines()] == [
            text("sea", 99)
        ]
        for arm in ("chosen", "random"):
            assert inputs[f"trial-{arm}-model"] == {"tokens": f"trial-{arm}-tokens", "model": None}
            assert inputs[f"trial-{arm}-tokens"]["tokenizer"] == "trial-tokenizer"
            assert inputs[f"trial-{arm}-score"]["model"] == f"trial-{arm}-model"


def test_many_rows_are_judged_by_more_processes() -> None:
    machine = Machine(cores=4, gemm_flops=1.2e11, gemm_small_flops=8e10)

    def taken(examples: int, **settings: Any) -> tuple[Any, Any]:
        facts = {"kind": "examples", "splits": {"train": {"examples": examples, "bytes": 500 * examples}}}
        given = {"corpus": {**FACTS, **facts}, "target": None, "model": None}
        stage = Select.model_validate({"method": "sound", "keep": 0.5, **settings})
        made = stage.resolve(given, machine, Share(memory_bytes=2**34)).stage
        return made, made.forecast(given, machine, Share()).cost

    few, many = taken(9_000)[0], taken(90_000)[0]
    assert few.processes == 1 and many.processes == 4  # type: ignore[attr-defined]
    alone, four, nine = (taken(90_000, processes=count)[1] for count in (1, 4, 9))
    assert four.seconds < 0.6 * alone.seconds and nine.seconds < four.seconds
    assert four.peak_bytes > alone.peak_bytes
    assert taken(9_000, processes=4)[1].seconds == pytest.approx(
        taken(9_000, processes=1)[1].seconds, abs=2.0
    )


def test_much_text_takes_more_processes_where_words_are_looked_at() -> None:
    much = {**FACTS, "splits": {"train": {"documents": 10**5, "bytes": 10**9, "characters": 10**9}}}
    machine = Machine(cores=4, gemm_flops=1.2e11, gemm_small_flops=8e10)

    def taken(facts: Any, memory: int = 2**33, model: Any = None, **settings: Any) -> Any:
        stage = Select.model_validate({"keep": 0.5, **settings})
        given = {"corpus": facts, "target": None, "model": model}
        return stage.resolve(given, machine, Share(memory_bytes=memory)).stage

    assert taken(much).processes == 4 and taken(FACTS).processes == 1
    assert taken(much, method="random").processes == 1
    assert taken(much, method="representative", model={"kind": "model"}).processes == 1
    assert taken(much, memory=2**29, method="perplexity").processes == 1
    given = {"corpus": much, "target": None, "model": None}
    more, alone = (taken(much, processes=count).forecast(given, machine, Share()).cost for count in (4, 1))
    assert (more.seconds or 0) < (alone.seconds or 0) and (more.peak_bytes or 0) > (alone.peak_bytes or 0)
