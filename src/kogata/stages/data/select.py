"""data.select: a small part of a corpus, or of examples, that is worth more than its size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from kogata.core.amounts import Cost, Forecast, format_bytes, format_count, format_seconds, parse_bytes
from kogata.core.artifact import Kind
from kogata.core.errors import RecipeError
from kogata.core.receipt import Machine
from kogata.core.stage import Bench, Facts, Given, InputPath, Resolved, SameAs, Share, Slot, Stage, one
from kogata.core.variants import Choice

MUCH_BYTES = 200 * 10**6
"""From so much text on, `auto` takes more than one process."""
PROCESS_BYTES = 70 * 2**20
"""Peak of each further process, beside what its step holds."""
PROCESS_SECONDS = 1.4
"""Starting them, for two passes."""
MOST_PROCESSES = 8
SCORES_ON_DISK = 0.3
"""Of the text, until the choice is sealed: counts and scores that a kill must not cost."""
RAY_SECONDS = 8.0
"""Starting a Ray of this machine's own."""
ITEM_BYTES = 200
"""Memory of a row: its score, its size, its place."""
NGRAM_MODEL_BYTES = 150 * 2**20
FEW_EPOCHS = 4.0
"""Times a text may be read before reading more of another is better (arXiv 2305.16264)."""
LEAST_SHARE = 0.1
TRAINING_SHARE = 0.85
"""Of a time budget, that training is taken to get."""
FEW_EXAMPLES = 1_000
"""Examples below which all that are fit stay."""
EXAMPLES_SHARE = 0.4
"""Of more, what stays."""
TRIAL_SECONDS = 8.0
"""Of a trial's arm, beside its training."""


class Method(Choice, folder="engine.select"):
    """How rows are scored; the highest stay."""


class Proxy(BaseModel):
    """A trial of the choice against a random one of the same size."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seeds: int = Field(default=3, ge=1, le=10, description="pairs of small models, one pair a seed")
    tokens: int = Field(default=400_000, ge=10_000, description="tokens each small model is trained on")
    parameters: int = Field(default=1_000_000, ge=50_000, description="weights of each small model")
    vocab_size: int = Field(default=2048, ge=300, le=65_536, description="tokens they share, learned anew")


class Select(Stage):
    """Keeps a small part of the training text, or of examples, chosen by a score; every choice is recorded.

    Each method is a file of its own: `random` is the control, `dsir` and `classifier` ask for the look of a
    `target`, `prior` and `perplexity` need none, `sound` and `ifd` are for questions with answers (`ifd`
    needs a `model`), `representative` covers the pool or comes near a target, `longest` costs nothing. What
    stays is the best of them up to `keep`. The artifact's `scores.jsonl.zst` has a row for every document:
    its score, whether it stays, and the reason where it is ruled out. Held-out and test text passes
    untouched.

    A target is text of the kind the model is for: files, or another corpus or examples of the recipe
    (`use: {target: LABEL}`, its training part). The held-out text itself is refused: what was chosen to be
    like the text one is judged on is judged too well. Set texts of its kind apart and name those.

    `proxy: true` tries the choice: small models trained on equal tokens of it and of a random set of the
    same size, in pairs, judged on the held-out text. Its verdict is part of the facts, and changes nothing.

    Pays when: there is far more text than can be read, much of it unlike what the model is for, and there
        is a target; then a tenth of the text can teach as much as all.
    Hurts when: the text is clean already (choosing then ties with chance), or so little that choosing means
        reading the same text more than about four times.
    Cost: reading the text two or three times, 3 to 20 MB a second on one core; sound: about 4 ms an example;
        ifd and a model's states: a pass of the model over the text.
    Source: dsir: arXiv 2302.03169; classifier: 2406.11794; prior: 2509.18577; perplexity: 2405.20541; ifd:
        2402.00530; representative: 2503.01807; longest: 2402.04833; sound: Kogata.
    Measured here: 5 MB of text, a fifth of it junk, scored on prose, 5 seeds, bits per byte beside the whole
    pool: 28% [coreset.json:pools.junk.verdict.target.token_share:.0%] of its tokens, chosen by the default
    with a target, -0.017 [coreset.json:pools.junk.verdict.target.against_full.mean:+.3f] in 38%
    [coreset.json:pools.junk.verdict.target.time_share:.0%] of the time; without a target +0.080
    [coreset.json:pools.junk.verdict.no_target.against_full.mean:+.3f]; by chance +0.105
    [coreset.json:pools.junk.verdict.random.against_full.mean:+.3f]. Without the junk +0.011
    [coreset.json:pools.clean.verdict.target.against_full.mean:+.3f], +0.075
    [coreset.json:pools.clean.verdict.no_target.against_full.mean:+.3f], +0.109
    [coreset.json:pools.clean.verdict.random.against_full.mean:+.3f]. Of instruction rows with a quarter noise
    88% [instruct-noise.json:noise.caught:.0%] of it is found, 7%
    [instruct-noise.json:noise.alarms:.0%] of the sound rows go; training on what is kept took 55%
    [instruct-train.json:train.verdict.selected.time_share:.0%] of the time of all rows and ended +0.027
    [instruct-train.json:train.verdict.selected.loss_gap.mean:+.3f] nats worse on clean rows (3 seeds).
    """

    takes: ClassVar[Mapping[str, Slot]] = {
        "corpus": Slot(kinds=(Kind.CORPUS, Kind.EXAMPLES)),
        "target": Slot(kinds=(Kind.CORPUS, Kind.EXAMPLES), optional=True, asked=True),
        "model": Slot(kinds=(Kind.MODEL,), optional=True, asked=True),
    }
    makes: ClassVar[SameAs] = SameAs(slot="corpus")
    seeded: ClassVar[bool] = True
    cost_only: ClassVar[frozenset[str]] = frozenset({"processes"})
    imports_torch: ClassVar[bool] = True

    method: Literal["auto"] | Method = Field(
        default="auto",
        description="how rows are scored; auto: classifier with a target, else sound for examples, prior "
        "for documents",
    )
    keep: Literal["auto"] | Annotated[float, Field(gt=0)] | str = Field(
        default="auto",
        description="how much stays: a share (0.3), tokens (a number above 1, or 2M) or bytes (10MB); auto: "
        "what the time can read about four times, a tenth at least; of 1,000 examples and more, 0.4",
    )
    target: InputPath | list[InputPath] | None = Field(
        default=None,
        description="texts of the kind that is wanted: file, folder, pattern, or a list of these",
    )
    proxy: bool | Proxy = Field(
        default=False, description="whether the choice is tried on small models against a random one"
    )

    processes: Annotated[int, Field(ge=1)] | Literal["auto", "ray"] = Field(
        default="auto",
        description="processes that score documents by words, or judge examples, 10,000 together; auto takes "
        "one for each core where there is much of either, ray those of the cluster that RAY_ADDRESS names, "
        "or of a Ray on this machine",
    )

    @field_validator("keep")
    @classmethod
    def _amount(cls, value: Any) -> Any:
        if value != "auto":
            _asked(value)
        return value

    @property
    def _name(self) -> str:
        return "auto" if isinstance(self.method, str) else self.method.name

    def resolve(self, facts: Mapping[str, Facts | None], machine: Machine, share: Share) -> Resolved:
        """Chooses the method by what is at hand, and how much by what the time can read."""
        corpus = facts["corpus"]
        assert corpus is not None
        examples = _is_examples(corpus)
        aimed = self.target is not None or facts.get("target") is not None
        changes: dict[str, Any] = {}
        reasons: dict[str, str] = {}
        method = self.method
        if isinstance(method, str):
            name, reason = _method_for(examples, aimed)
            method = Method.of(name)
            changes["method"], reasons["method"] = method, reason
        needs = method.variant.NEEDS
        missing = {
            "target": ("target" in needs and not aimed, "`target: FILE`, or `use: {target: LABEL}`"),
            "model": (
                "model" in needs and facts.get("model") is None,
                "`use: {model: LABEL}` of a model.read",
            ),
            "examples": ("examples" in needs and not examples, "data.read with `kind: examples`"),
        }
        for what, (lacks, remedy) in missing.items():
            if lacks:
                raise RecipeError(
                    f"the method {method.name} needs {what}",
                    where="method of data.select",
                    found="a corpus of documents" if what == "examples" else f"no {what}",
                    remedy=f"give it {remedy}, or choose another method",
                )
        if self.proxy and examples:
            raise RecipeError(
                "a trial trains language models on documents, and these are examples",
                where="proxy of data.select",
                remedy="compare recipes instead: kogata compare R --set data.select.method=ifd,random",
            )
        if self.keep == "auto":
            changes["keep"], reasons["keep"] = _keep_for(corpus, examples, machine, share)
        if self.processes == "auto":
            train = corpus["splits"].get("train", {})
            parts = getattr(method.variant, "parts_of", None)
            much = train.get("bytes", 0) >= MUCH_BYTES
            if parts is not None:
                much = parts(train.get("examples") or 0) > 1
            several = much and getattr(method.variant, "SPREADS", False) and facts.get("model") is None
            count = _fitting(method, machine, share, train) if several else 1
            why = "by cores and memory" if several else "too little work for more"
            changes["processes"], reasons["processes"] = count, f"{count}: {why}"
        return Resolved(stage=self.model_copy(update=changes), reasons=reasons)

    def _limit(self, corpus: Facts) -> tuple[int | None, float | None]:
        """Gives how much stays: bytes, or a share."""
        assert self.keep != "auto"
        unit, amount = _asked(self.keep)
        if unit == "share":
            return None, amount
        if unit == "bytes":
            return round(amount), None
        return round(amount * _bytes_per_token(corpus)), None

    def forecast(self, facts: Mapping[str, Facts | None], machine: Machine, share: Share) -> Forecast:
        """States what stays and what scoring costs."""
        from kogata.engine.sealing import READ_BYTES_PER_SECOND, SIZE_ON_DISK, WRITE_BYTES_PER_SECOND

        corpus, model = facts["corpus"], facts.get("model")
        assert corpus is not None and not isinstance(self.method, str)
        train = corpus["splits"].get("train", {})
        size = train.get("bytes", 0)
        limit, part = self._limit(corpus)
        stays = min(1.0, part if part is not None else (limit or 0) / max(1, size))
        splits = {
            name: {key: round(count * (stays if name == "train" else 1)) for key, count in counts.items()}
            for name, counts in corpus["splits"].items()
        }
        made = {key: value for key, value in corpus.items() if key not in ("accounts", "kind")}
        written = sum(counts.get("bytes", 0) for counts in splits.values())
        rows = train.get("documents") or train.get("examples") or 0
        variant = self.method.variant
        spreads = getattr(variant, "SPREADS", False) and model is None
        ray = spreads and self.processes == "ray"
        count = machine.cores if ray else self.processes if isinstance(self.processes, int) and spreads else 1
        scoring = size / variant.BYTES_PER_SECOND
        seconds = 0.4 + size / READ_BYTES_PER_SECOND * 2 + scoring / count + PROCESS_SECONDS * (count > 1)
        parts_of = getattr(variant, "parts_of", None)
        hands = count if parts_of is None else min(count, parts_of(rows))
        each = getattr(variant, "ITEM_SECONDS", 0.0) + getattr(variant, "STEP_SECONDS", 0.0) / hands
        seconds += rows * each
        seconds = machine.paced(seconds) + RAY_SECONDS * ray
        peak = 190 * 2**20 + ITEM_BYTES * rows
        held = getattr(variant, "held_bytes", None)
        peak += NGRAM_MODEL_BYTES if held is None else held(rows, size)
        if count > 1 and not ray:
            peak += (PROCESS_BYTES + _step_bytes(variant, train)) * hands
        if model is not None and ("model" in self.method.variant.NEEDS or self._name == "representative"):
            from kogata.engine import inference_costs as costs

            tokens = size / costs.bytes_per_token(model.get("vocab_size"), corpus.get("language_hint"))
            seconds = machine.paced(1.0 + costs.load_seconds(model))
            seconds += costs.read_seconds(model, 1.2 * tokens, 256, machine)
            peak += costs.read_bytes(model, 4096)
        seconds += machine.paced(written / WRITE_BYTES_PER_SECOND)
        if self.proxy:
            seconds += self._trial_seconds(machine)
            peak = max(peak, 600 * 2**20)
        return Forecast(
            facts={**made, "splits": splits},
            cost=Cost(
                seconds=seconds,
                cpu_seconds=seconds
                + machine.paced(scoring - scoring / count + PROCESS_SECONDS * (count - 1)),
                joules=machine.joules(seconds),
                peak_bytes=peak,
                size_bytes=round(SIZE_ON_DISK * written),
            ),
            disk_bytes=round(SIZE_ON_DISK * written + SCORES_ON_DISK * size * spreads),
        )

    def _trial(self) -> Proxy:
        return self.proxy if isinstance(self.proxy, Proxy) else Proxy()

    def _trial_seconds(self, machine: Machine) -> float:
        from kogata.engine import autosize, costs

        trial = self._trial()
        shape = autosize.by_parameters("qwen3", trial.vocab_size, False, 256, trial.parameters)
        spec = autosize.spec_of("qwen3", shape, trial.vocab_size, 256)
        step = costs.step_cost(spec, machine, batch=1024, context=256, muon=False).seconds
        return 2 * trial.seeds * (TRIAL_SECONDS + trial.tokens / 1024 * step)

    def run(self, given: Given, bench: Bench) -> Facts:
        """Scores every row, keeps the best, and writes what was chosen and why."""
        from kogata.engine.select._run import Selection, select

        corpus, model = one(given, "corpus"), given.get("model")
        assert not isinstance(self.method, str)
        limit, part = self._limit(corpus.facts)
        paths = [self.target] if isinstance(self.target, str) else self.target
        trial = None
        if self.proxy:
            from kogata.engine.select._proxy import Trial

            trial = Trial(**self._trial().model_dump())
        job = Selection(
            method=self.method.name,
            variant=self.method.variant,
            settings=self.method.settings,
            limit_bytes=limit,
            share=part,
            processes=self.processes if isinstance(self.processes, int) else 1,
            ray=self.processes == "ray",
            target=paths,
            trial=trial,
        )
        return select(job, bench, corpus, given.get("target"), model)


def _step_bytes(variant: Any, train: Mapping[str, Any]) -> int:
    """Forecasts what each further process holds for its step."""
    rows, size = train.get("documents") or train.get("examples") or 0, train.get("bytes", 0)
    step = getattr(variant, "step_bytes", None)
    return getattr(variant, "STEP_BYTES", 0) if step is None else step(rows, size)


def _fitting(method: Method, machine: Machine, share: Share, train: Mapping[str, Any]) -> int:
    memory = share.memory_bytes or machine.memory_bytes
    each = PROCESS_BYTES + _step_bytes(method.variant, train)
    fitting = memory // (2 * each) if memory else MOST_PROCESSES
    return max(1, min(machine.cores, fitting, MOST_PROCESSES))


def _is_examples(corpus: Facts) -> bool:
    return corpus.get("kind") == Kind.EXAMPLES


def _asked(value: Any) -> tuple[str, float]:
    """Reads an amount to keep: its unit (`share`, `tokens`, `bytes`) and how much.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, str):
        factor = {"k": 1e3, "M": 1e6, "G": 1e9}.get(value[-1:])
        try:
            amount = float(value[:-1]) * factor if factor is not None else float(parse_bytes(value))
            if not amount > 0:
                raise ValueError("nothing")
        except ValueError:
            raise ValueError(
                f"found {value!r}; expected a share such as 0.3, tokens such as 2M, or bytes such as 10MB"
            ) from None
        return "bytes" if factor is None else "tokens", amount
    return ("share", float(value)) if value <= 1 else ("tokens", float(value))


def _bytes_per_token(corpus: Facts) -> float:
    from kogata.engine.inference_costs import bytes_per_token

    return bytes_per_token(4096, corpus.get("language_hint"))


def _method_for(examples: bool, aimed: bool) -> tuple[str, str]:
    if aimed:
        return "classifier", "there is a target: what looks like it"
    if examples:
        return "sound", "examples: no copies, no cut-off or mistaken answers; of the rest some by chance"
    return "prior", "no target: what uses its words as the pool does"


def _keep_for(corpus: Facts, examples: bool, machine: Machine, share: Share) -> tuple[float, str]:
    """Chooses the share that the time can read about four times; strict where little can be read."""
    train = corpus["splits"].get("train", {})
    if examples:
        count = train.get("examples", 0)
        if count < FEW_EXAMPLES:
            return 1.0, f"{format_count(count)} examples are few: all that are fit stay"
        return EXAMPLES_SHARE, f"{format_count(count)} examples: the best {EXAMPLES_SHARE:.0%} of their bytes"
    from kogata.engine import autosize

    seconds = TRAINING_SHARE * share.budget_seconds if share.budget_seconds else autosize.DEFAULT_SECONDS
    _, seen = autosize.by_time("qwen3", 4096, False, 256, 1024, seconds, machine)
    pool = train.get("bytes", 0) / _bytes_per_token(corpus)
    epochs = seen / max(1.0, pool)
    keep = round(min(1.0, max(LEAST_SHARE, epochs / FEW_EPOCHS)), 3)
    how = "strict" if keep < 0.25 else "loose" if keep < 1 else "everything"
    return keep, (
        f"{how}: {format_seconds(seconds)} can read {format_count(seen)} tokens, {epochs:.2g} times the pool "
        f"of {format_bytes(train.get('bytes', 0))}; {keep:.0%} of it is read about "
        f"{epochs / keep:.2g} times"
    )
