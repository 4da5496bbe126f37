"""How good a model is on text it has not seen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from kogata.core.amounts import Bytes, Cost, Forecast, format_bytes, format_count
from kogata.core.artifact import Kind
from kogata.core.errors import RecipeError, Stopped
from kogata.core.receipt import Machine
from kogata.core.stage import Bench, Facts, Given, InputPath, Resolved, Share, Slot, Stage, one

LARGE_PARAMETERS = 30e6
ANSWERED_PARAMETERS = 300e6
LIMIT_BYTES, LARGE_LIMIT_BYTES = 256_000, 64_000
PAIR_BYTES, PAIR_BYTES_PER_TOKEN = 83_800, 2.55
"""Of the bundled pairs' sentences, and with a vocabulary of 3,000 learned on novels."""
START_SECONDS = 0.7
"""Opening model and text, and sealing the scores."""


def _prompts(value: Any) -> Any:
    return [value] if isinstance(value, str) and value != "auto" else value


class Evaluate(Stage):
    """Measures a model on held-out text or rows: bits per byte, minimal pairs of English grammar, samples.

    Bits per byte: documents one by one, the end token before each, windows of min(context, 256) tokens that
    do not overlap, every byte counted. Minimal pairs: how often the grammatical one of two sentences is the
    likelier, over 34 paradigms of BLiMP, with its standard error. Of examples: the loss of the held-out rows'
    answers, of the model and, where there is an adapter, of its base; and answers of both beside theirs. Of
    a classifier the share of rows right and macro-F1; of a tagger precision, recall and F1 of whole spans, of
    all and by label, and the share of tokens right.

    Pays when: models are compared; it costs seconds.
    Hurts when: the held-out text is no sample of what the model is for: the figure then answers nothing.
    Cost: one forward pass over the scored text: about 256 kB, or 64 kB for models above 30 M weights.
    Source: bits per byte as in Gao et al. 2020 (The Pile); minimal pairs: Warstadt et al. 2020 (BLiMP).
    Measured here: not yet measured.
    """

    takes = {
        "model": Slot(kinds=(Kind.MODEL,)),
        "corpus": Slot(kinds=(Kind.CORPUS,), optional=True),
        "adapter": Slot(kinds=(Kind.ADAPTER,), optional=True),
        "examples": Slot(kinds=(Kind.EXAMPLES,), optional=True),
    }
    makes = Kind.SCORES
    imports_torch = True

    split: Literal["heldout", "test"] = Field(default="heldout", description="which set-apart text is scored")
    window: int | Literal["auto"] = Field(
        default="auto", description="tokens a prediction may look back; auto: min(context, 256), the measure"
    )
    limit: Literal["auto", "all"] | Bytes = Field(
        default="auto",
        description="bytes of text that are scored at most, chosen by content and the same for every model; "
        "auto: 256kB (64kB for models above 30 M weights); all: every byte",
    )
    minimal_pairs: Literal["auto"] | bool | InputPath = Field(
        default="auto",
        description="true: the BLiMP pairs that come with Kogata; a path: JSON lines with good and bad; "
        "auto: true where the held-out text is English",
    )
    prompts: Annotated[list[str] | Literal["auto"], BeforeValidator(_prompts)] = Field(
        default="auto", description="beginnings the model continues; auto: a few in the text's language"
    )
    sample_tokens: int = Field(default=48, ge=0, le=4096, description="tokens of each sample; 0: no samples")
    temperature: float = Field(
        default=0.8, ge=0, le=5, description="of the samples: 0 takes the likeliest token each time"
    )
    answers: Literal["auto"] | Annotated[int, Field(ge=0, le=1000)] = Field(
        default="auto",
        description="rows that model and base answer side by side, the likeliest token each time; auto: 20, "
        "or 4 for models above 300 M weights",
    )

    def resolve(self, facts: Mapping[str, Facts | None], machine: Machine, share: Share) -> Resolved:
        """Chooses the window, the limit, and whether English pairs make sense."""
        model, corpus = facts["model"], facts.get("corpus")
        assert model is not None
        changes: dict[str, Any] = {}
        reasons: dict[str, str] = {}
        if model.get("role") in ("classifier", "tagger"):
            why = f"has no meaning for a {model['role']}, which is scored on rows"
            left = ("window", "limit", "minimal_pairs", "prompts", "answers")
            return Resolved(stage=self, reasons=dict.fromkeys(left, why))
        if corpus is not None and "splits" in corpus and not _documents(corpus, self.split):
            raise RecipeError(
                f"the corpus has no {self.split} text to score",
                where="split of evaluate",
                found=f"splits {', '.join(corpus['splits']) or 'none'}",
                expected=f"a split {self.split!r}",
                remedy=f"give data.read a {self.split} share or path",
            )
        if self.window == "auto":
            context = model.get("context") or 256
            changes["window"] = min(context, 256)
            reasons["window"] = f"min(context {context}, 256), the measure"
        if self.limit == "auto":
            large = (model.get("parameters") or 0) > LARGE_PARAMETERS
            changes["limit"] = LARGE_LIMIT_BYTES if large else LIMIT_BYTES
            size = f"{format_count(model.get('parameters'))} weights"
            reasons["limit"] = f"{size}: {format_bytes(changes['limit'])} at most"
        if self.minimal_pairs == "auto":
            language = (corpus or {}).get("language_hint")
            changes["minimal_pairs"] = language == "en"
            reasons["minimal_pairs"] = (
                f"the text's language is {language or 'not known'}; the pairs are English"
            )
        if self.answers == "auto" and facts.get("examples") is not None:
            changes["answers"] = _answers(model)
            reasons["answers"] = f"{format_count(model.get('parameters'))} weights"
        if self.prompts == "auto":
            reasons["prompts"] = "a few of ours in the text's language, else its documents' first words"
        return Resolved(stage=self.model_copy(update=changes), reasons=reasons)

    def forecast(self, facts: Mapping[str, Facts | None], machine: Machine, share: Share) -> Forecast:
        """Counts the tokens to read and to write."""
        from kogata.engine import inference_costs as costs

        model, corpus = facts["model"], facts.get("corpus") or {}
        assert model is not None
        if model.get("role") in ("classifier", "tagger"):
            return self._forecast_rows(model, facts.get("examples") or {}, machine)
        window = self.window if isinstance(self.window, int) else min(model.get("context") or 256, 256)
        each = costs.bytes_per_token(model.get("vocab_size"), corpus.get("language_hint"))
        size = (corpus.get("splits") or {}).get(self.split, {}).get("bytes", 0)
        if not isinstance(self.limit, str):
            size = min(size, self.limit)
        tokens = size / each
        pairs = PAIR_BYTES / min(each, PAIR_BYTES_PER_TOKEN) if self.minimal_pairs is not False else 0.0
        prompts = len(self.prompts) if isinstance(self.prompts, list) else 4
        seconds = machine.paced(START_SECONDS + costs.load_seconds(model) + size / 4e6)
        seconds += costs.read_seconds(model, tokens, window, machine)
        seconds += costs.read_seconds(model, pairs, 32, machine)
        seconds += costs.write_seconds(model, prompts * self.sample_tokens, machine)
        examples = (((facts.get("examples") or {}).get("splits") or {}).get(self.split) or {}).get("bytes", 0)
        if examples:
            passes = 2 if facts.get("adapter") else 1
            asked = self.answers if isinstance(self.answers, int) else _answers(model)
            rows = (((facts["examples"] or {}).get("splits") or {}).get(self.split) or {}).get("examples")
            asked = min(asked, rows) if rows else asked
            seconds += (passes * asked - prompts) * costs.write_seconds(model, self.sample_tokens, machine)
            answered = min(16_384.0, examples / each)
            seconds += passes * costs.read_seconds(model, answered, window, machine)
            tokens += passes * answered
        # With an adapter its base is scored beside the tuned model.
        beside = 4 * int(model.get("parameters") or 0) if facts.get("adapter") else 0
        cost = Cost(
            seconds=seconds,
            cpu_seconds=seconds * (1 + 0.7 * (machine.cores - 1)),
            joules=machine.joules(seconds),
            tokens=int(tokens + pairs),
            flops=(tokens + pairs) * costs.forward_flops(model, window),
            peak_bytes=costs.read_bytes(model, 4096) + 4 * size + beside,
            size_bytes=None,
        )
        return Forecast(facts={}, cost=cost, disk_bytes=20_000)

    def _forecast_rows(self, model: Facts, examples: Facts, machine: Machine) -> Forecast:
        """Counts one pass over the rows of a split, for a model that labels them."""
        from kogata.engine import inference_costs as costs

        size = ((examples.get("splits") or {}).get(self.split) or {}).get("bytes", 0)
        tokens = size / costs.bytes_per_token(model.get("vocab_size"), examples.get("language_hint"))
        seconds = machine.paced(START_SECONDS + costs.load_seconds(model) + size / 2e6)
        seconds += costs.read_seconds(model, tokens, 256, machine)
        cost = Cost(
            seconds=seconds,
            cpu_seconds=seconds * (1 + 0.7 * (machine.cores - 1)),
            joules=machine.joules(seconds),
            tokens=int(tokens),
            flops=tokens * costs.forward_flops(model, 256),
            peak_bytes=costs.read_bytes(model, 4096) + 4 * size,
            size_bytes=None,
        )
        return Forecast(facts={}, cost=cost, disk_bytes=20_000)

    def run(self, given: Given, bench: Bench) -> Facts:
        """Scores, judges, samples; writes scores.json."""
        role = one(given, "model").facts.get("role")
        if role in ("classifier", "tagger"):
            return self._of_rows(role, one(given, "model"), given.get("examples"), bench)
        from kogata.engine import evaluate as engine
        from kogata.engine.load import load_model

        artifact, corpus = one(given, "model"), given.get("corpus")
        adapter, examples = given.get("adapter"), given.get("examples")
        loaded = load_model(artifact.path, adapter=adapter.path if adapter else None)
        end_id = artifact.facts.get("end_id")
        end_id = loaded.end_id if end_id is None else end_id
        if loaded.source.role != "decoder" or end_id is None:
            raise RecipeError(
                "this model cannot be scored as a language model",
                where=str(artifact.facts.get("architecture") or loaded.source.name),
                found="a text encoder"
                if loaded.source.role != "decoder"
                else "a tokenizer without an end token",
                expected="a causal language model whose tokenizer has an end token",
            )
        window = self.window if isinstance(self.window, int) else engine.default_window(loaded.context)
        encode = engine.encoder(artifact.path)
        seen = _Seen(bench, artifact.facts, window)
        scores: Facts = {"bits_per_byte": None, "minimal_pairs": None, "samples": []}
        if examples is not None:
            scores["examples"], scores["samples"] = self._examples(loaded, artifact, adapter, examples, seen)
        texts: list[str] = []
        if corpus is not None:
            texts, total = _texts(corpus.path, self.split, self._most())
            documents = list(engine.encode_documents(encode, texts))
            seen.expect(sum(len(ids) for ids, _ in documents))
            found = engine.bits_per_byte(
                loaded.decoder, documents, end_id=end_id, window=window, progress=seen
            )
            seen.add(found.tokens)
            scores["bits_per_byte"] = {**found.to_dict(), "split": self.split, "of_bytes": total}
            bench.log(
                f"{found.value:.3f} bits per byte over {format_bytes(found.bytes)} of {self.split} text"
            )
        scores["minimal_pairs"] = self._pairs(loaded, encode, end_id, texts, seen)
        if examples is None:
            scores["samples"] = self._samples(loaded, texts, seen)
        text = json.dumps(scores, ensure_ascii=False, indent=1)
        (bench.out / "scores.json").write_text(text + "\n", encoding="utf-8")
        pairs = scores["minimal_pairs"]
        compact = pairs and {name: value for name, value in pairs.items() if name != "by_paradigm"}
        return {**scores, "minimal_pairs": compact}

    def _of_rows(self, role: str, model: Any, examples: Any, bench: Bench) -> Facts:
        from kogata.engine import classify, tag

        if examples is None:
            raise RecipeError(
                f"a {role} is scored on labelled rows", where="slot examples of evaluate", found="none"
            )
        scores: Facts = {"bits_per_byte": None, "minimal_pairs": None, "samples": []}
        if role == "classifier":
            found = classify.score_rows(classify.load(model.path), examples.path, self.split)
            share = f"{100 * found['accuracy']:.1f} ± {100 * found['standard_error']:.1f} %"
            said = f"{share} of {found['n']:,} {self.split} rows right, macro-F1 {found['macro_f1']:.3f}"
            scores["labels"] = found
        else:
            found = tag.score_rows(tag.load(model.path), examples.path, self.split)
            said = (
                f"F1 {100 * found['f1']:.1f} ± {100 * found['standard_error']:.1f} %, precision "
                f"{100 * found['precision']:.1f} %, recall {100 * found['recall']:.1f} % of "
                f"{found['spans']:,} spans in {found['n']:,} {self.split} rows"
            )
            scores["tags"] = found
        text = json.dumps(scores, ensure_ascii=False, indent=1)
        (bench.out / "scores.json").write_text(text + "\n", encoding="utf-8")
        bench.log(said)
        return scores

    def _most(self) -> int | None:
        if isinstance(self.limit, str):
            return None if self.limit == "all" else LIMIT_BYTES
        return self.limit

    def _pairs(self, loaded: Any, encode: Any, end_id: int, texts: list[str], seen: _Seen) -> Facts | None:
        from kogata.engine import minimal_pairs
        from kogata.engine.text import language_hint

        if self.minimal_pairs == "auto":
            wanted = language_hint("\n".join(text[:2000] for text in texts[:10])) == "en"
        else:
            wanted = self.minimal_pairs is not False
        if not wanted:
            return None
        chosen = (
            minimal_pairs.read_pairs(Path(self.minimal_pairs))
            if isinstance(self.minimal_pairs, str) and self.minimal_pairs != "auto"
            else minimal_pairs.bundled_pairs()
        )
        seen.expect(0)
        found = minimal_pairs.judge(loaded.decoder, encode, chosen, end_id=end_id, progress=seen)
        seen.add(seen.last)
        share = f"{100 * found.accuracy:.1f} ± {100 * found.standard_error:.1f} %"
        seen.bench.log(f"minimal pairs: {share} of {found.n} right (chance: 50 %)")
        return found.to_dict()

    def _examples(
        self, loaded: Any, model: Any, adapter: Any, examples: Any, seen: _Seen
    ) -> tuple[Facts | None, list[dict[str, str]]]:
        from kogata.engine import evaluate_examples as engine
        from kogata.engine.load import load_model

        place = model.path
        if adapter is not None and (adapter.path / "tokenizer_config.json").is_file():
            place = adapter.path
        training = (adapter or model).facts.get("training") or {}
        renderer = engine.renderer_of(loaded, place, training.get("template"))
        base: Any = None
        seen.expect(0)
        found = engine.answer_loss(loaded, renderer, examples.path, self.split, seen)
        if found is not None:
            seen.add(found["tokens"])
            said = f"held-out answers: {found['loss_nats_per_token']:.3f} nats a token"
            if adapter is not None:
                base = load_model(model.path)
                before = engine.answer_loss(base, renderer, examples.path, self.split, seen)
                found["base_loss_nats_per_token"] = before and before["loss_nats_per_token"]
                said += f", {found['base_loss_nats_per_token']:.3f} before training"
            seen.bench.log(said)
        shown: list[dict[str, str]] = []
        count = self.answers if isinstance(self.answers, int) else _answers(model.facts)
        if self.sample_tokens and count:
            asked: dict[str, Any] = {"count": count, "max_tokens": self.sample_tokens}
            seen.expect(0)
            shown = engine.answers(loaded, renderer, examples.path, self.split, **asked, progress=seen)
            if found is not None:
                found["copies"] = engine.copied(shown, examples.path)
                copies, expected = found["copies"]["copied"], found["copies"]["expected_copied"]
                seen.bench.log(f"{copies} of {len(shown)} answers copied from training, {expected} expected")
            if base is not None:
                earlier = engine.answers(base, renderer, examples.path, self.split, **asked, progress=seen)
                shown = [{**now, "before": old["text"]} for now, old in zip(shown, earlier, strict=True)]
        return found, shown

    def _samples(self, loaded: Any, texts: list[str], seen: _Seen) -> list[dict[str, str]]:
        from kogata.engine.evaluate import default_prompts
        from kogata.engine.generate import generate_text

        if not self.sample_tokens:
            return []
        prompts = default_prompts(texts) if self.prompts == "auto" else self.prompts
        made: list[dict[str, str]] = []
        for seed, prompt in enumerate(prompts):
            seen(0)
            pieces = generate_text(
                loaded, prompt, max_tokens=self.sample_tokens, temperature=self.temperature, seed=seed
            )
            made.append({"prompt": prompt, "text": "".join(pieces)})
        return made


def _answers(model: Facts) -> int:
    return 20 if (model.get("parameters") or 0) <= ANSWERED_PARAMETERS else 4


def _documents(corpus: Facts, split: str) -> int:
    return (corpus["splits"].get(split) or {}).get("documents", 0)


def _texts(path: Path, split: str, limit: int | None) -> tuple[list[str], int]:
    from kogata.engine.evaluate import sample_texts
    from kogata.engine.text import read_corpus

    return sample_texts((document.text for document in read_corpus(path, split)), limit)


class _Seen:
    """Tells the bench how far reading has come, and stops when asked."""

    def __init__(self, bench: Bench, model: Facts, window: int) -> None:
        from kogata.engine.inference_costs import forward_flops

        self.bench, self.total, self.last = bench, 0, 0
        self._each = forward_flops(model, window)

    def expect(self, total: int) -> None:
        self.total = total

    def add(self, tokens: int) -> None:
        self.bench.count(tokens=tokens, flops=tokens * self._each)

    def __call__(self, done: int) -> None:
        self.last = done
        if self.bench.stopping():
            raise Stopped("stopped while evaluating", remedy="the same command starts the evaluation again")
        self.bench.progress(done, self.total or None, unit="tokens")
