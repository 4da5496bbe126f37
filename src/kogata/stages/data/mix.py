"""data.mix: several corpora become one, each with its weight."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator

from kogata.core.amounts import Cost, Forecast
from kogata.core.artifact import SPLITS, Artifact, Document, Kind
from kogata.core.errors import DataError, RecipeError, Stopped
from kogata.core.receipt import Machine
from kogata.core.stage import Account, Bench, Facts, Given, Resolved, Share, Slot, Stage
from kogata.core.variants import Choice

if TYPE_CHECKING:
    from kogata.engine.mixture import Portion


class Weighting(Choice, folder="engine.mix"):
    """How much of each source."""


class Mix(Stage):
    """Mixes several corpora into one by weights: by size, evenly, as you say, or as learned by trial.

    Each source's training documents are repeated, or a part of them is left out, until its part of the
    mixture is reached. A part is chosen by content, not by seed; its last document is cut, so that a source
    of one long document has its weight too. A source that would be repeated more than `most_epochs` runs
    out: the others give more, and the facts say so. Held-out and test documents all pass. Every document
    carries its source's name (`group` in its `meta`), through tokenizer.encode too, so that training can
    sample by source.

    `method: regmix` learns the weights: small models are trained on mixtures drawn by chance, as nested runs
    of the same recipe, and judged on held-out text. It is planned by size, for its weights are not known yet.

    Pays when: the text is of several kinds and their sizes are not what the use asks for.
    Hurts when: weights are guessed: text that is repeated or left out is paid for. It comes after data.dedup,
        which would take the repeated documents for copies.
    Cost: about 1 s for 40 MB on one core; disk for the mixture; with regmix 24 small models, about 25 s each.
    Source: UniMax (arXiv 2304.09151); temperature (arXiv 1911.02116); four epochs (arXiv 2305.16264);
        RegMix (arXiv 2407.01492).
    Measured here: not yet measured.
    """

    takes: ClassVar[Mapping[str, Slot]] = {"corpora": Slot(kinds=(Kind.CORPUS,), many=True)}
    makes: ClassVar[Kind] = Kind.CORPUS
    packages: ClassVar[tuple[str, ...]] = ("torch",)
    """Of the small models that learn weights."""

    method: Weighting = Field(
        default_factory=lambda: Weighting.of("proportional"), description="how much of each source there is"
    )
    names: Literal["auto"] | list[str] = Field(
        default="auto", description="what each source is called, in order; auto: the labels of their stages"
    )
    keep: float = Field(
        default=1.0, gt=0, le=100, description="size of the mixture, by that of all sources together"
    )
    most_epochs: float = Field(
        default=4.0, ge=1, le=1000, description="how often a source is repeated at most; then it has run out"
    )

    @field_validator("names")
    @classmethod
    def _distinct(cls, value: Any) -> Any:
        if isinstance(value, list) and (len(set(value)) < len(value) or not all(n.strip() for n in value)):
            raise ValueError(f"found {value}; names are texts, each another")
        return value

    def resolve(self, facts: Mapping[str, Facts | None], machine: Machine, share: Share) -> Resolved:
        """Calls each source by its stage's label."""
        if self.names != "auto":
            return Resolved(stage=self)
        labels = [str(one.get("label", f"source-{i}")) for i, one in enumerate(_many(facts), 1)]
        reason = "the labels of the stages that make them"
        return Resolved(stage=self.model_copy(update={"names": labels}), reasons={"names": reason})

    def forecast(self, facts: Mapping[str, Facts | None], machine: Machine, share: Share) -> Forecast:
        """Weighs the sources by their forecast sizes."""
        from kogata.engine.sealing import READ_BYTES_PER_SECOND, SIZE_ON_DISK, WRITE_BYTES_PER_SECOND

        many = _many(facts)
        found = self._portions(many)
        splits: dict[str, dict[str, int]] = {}
        read = 0
        for name, one in zip(self._names(many), many, strict=True):
            for split, part in one["splits"].items():
                times = found[name].epochs if split == "train" else 1.0
                into = splits.setdefault(split, {key: 0 for key in part})
                for key, count in part.items():
                    into[key] = into.get(key, 0) + round(times * count)
                # A source of which a part is taken is read twice.
                read += part["bytes"] * (2 if split == "train" else 1)
        size = sum(part["bytes"] for part in splits.values())
        documents = sum(one["splits"].get("train", {}).get("documents", 0) for one in many)
        seconds = machine.paced(0.05 + read / READ_BYTES_PER_SECOND + size / WRITE_BYTES_PER_SECOND)
        peak = 75 * 2**20 + min(size, 2**25) + 100 * documents
        if hasattr(self.method.variant, "learn"):
            learning, held = self.method.variant.cost(self.method.settings, machine)
            seconds, peak = seconds + learning, max(peak, held)
        hints = [one.get("language_hint", "und") for one in many]
        return Forecast(
            facts={
                "splits": {split: splits[split] for split in SPLITS if split in splits},
                "language_hint": max(set(hints), key=hints.count) if hints else "und",
                "mixture": {name: portion.to_dict() for name, portion in found.items()},
            },
            cost=Cost(
                seconds=seconds,
                cpu_seconds=seconds,
                joules=machine.joules(seconds),
                peak_bytes=peak,
                size_bytes=round(SIZE_ON_DISK * size),
            ),
            disk_bytes=round(SIZE_ON_DISK * size),
        )

    def run(self, given: Given, bench: Bench) -> Facts:
        """Writes the mixture, source by source."""
        from kogata.engine.text import seal_documents

        corpora: Sequence[Artifact] = given["corpora"]
        many = [corpus.facts for corpus in corpora]
        found = self._portions(many)
        account = Account()
        if hasattr(self.method.variant, "learn"):
            named = dict(zip(found, corpora, strict=True))
            sizes = {name: portion.size for name, portion in found.items()}
            weights, account.extra["trials"] = self.method.variant.learn(
                named, sizes, self.method.settings, bench
            )
            found = self._portions(many, weights)
        facts = seal_documents(self._documents(corpora, found, account, bench), bench.out)
        for name, portion in found.items():
            if portion.ran_out:
                bench.log(f"{name} has run out after {portion.epochs:g} epochs; the others give more")
        mixture = {name: portion.to_dict() for name, portion in found.items()}
        return {**facts, "mixture": mixture, "accounts": {bench.label: account.to_dict()}}

    def _documents(
        self, corpora: Sequence[Artifact], found: Mapping[str, Portion], account: Account, bench: Bench
    ) -> Iterator[Document]:
        from dataclasses import replace

        from kogata.engine.mixture import GROUP, take_portion
        from kogata.engine.text import read_corpus, utf8_length

        total = sum(portion.epochs * portion.size for portion in found.values())
        written = 0
        for split in reversed(SPLITS):
            for (name, portion), corpus in zip(found.items(), corpora, strict=True):
                given = corpus.facts["splits"].get(split)
                if given is None:
                    continue
                account.read += given["documents"]
                account.read_bytes += given["bytes"]
                if split != "train":
                    for document in read_corpus(corpus.path, split):
                        meta = {**document.meta, GROUP: name}
                        yield account.keep(replace(document, id=f"{name}/{document.id}", meta=meta))
                    continue
                read = partial(read_corpus, corpus.path, split)
                left_out = partial(account.reject, f"more than the weight of {name}")
                for document in take_portion(read, name, portion.epochs, left_out):
                    if bench.stopping():
                        raise Stopped("stopped while mixing")
                    written += utf8_length(document.text)
                    bench.progress(min(written, total), total, unit="bytes")
                    yield account.keep(document)

    def _names(self, many: Sequence[Facts]) -> list[str]:
        names = [f"source-{i}" for i in range(1, len(many) + 1)] if self.names == "auto" else self.names
        if len(names) != len(many):
            raise RecipeError(
                "there are not as many names as sources",
                where="data.mix, names",
                found=f"{len(names)} names: {', '.join(names)}",
                expected=f"{len(many)} names, one for each corpus",
            )
        return list(names)

    def _portions(
        self, many: Sequence[Facts], learned: Mapping[str, float] | None = None
    ) -> dict[str, Portion]:
        from kogata.engine.mixture import portions, weights_of

        sizes = {
            name: int(one["splits"].get("train", {}).get("bytes", 0))
            for name, one in zip(self._names(many), many, strict=True)
        }
        if not any(sizes.values()):
            raise DataError(
                "nothing to mix",
                where="data.mix",
                found=", ".join(sizes) or "no corpus",
                expected="at least one corpus with training text",
            )
        weights = learned or weights_of(self.method.name, self.method.settings, sizes)
        return portions(weights, sizes, self.keep * sum(sizes.values()), self.most_epochs)


def _many(facts: Mapping[str, Facts | None]) -> list[Facts]:
    given = facts["corpora"]
    assert given is not None
    return list(given["many"])
