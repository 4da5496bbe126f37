"""Learns the weights: small models on mixtures drawn by chance say which mixture would be best.

Each of them trains as long on another mixture and is judged on the same held-out text. A regression from
weights to loss then judges thousands of mixtures; the mean of its best hundred is taken. Where it promises no
more than its own error, the mixture stays as the sizes say.

Pays when: there are several sources, it is unknown which of them help, and held-out text of the use is there.
Hurts when: the sources are alike, or what helps a small model does not help the large one.
Cost: 24 small models, about 25 s each on two cores; more with `proxies`, `tokens` and `parameters`.
Source: RegMix, Liu et al. 2024 (arXiv 2407.01492); here a ridge regression on weights, products, logarithms.
Measured here: not yet measured.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from kogata.core.amounts import Budget
from kogata.core.artifact import Artifact, Document
from kogata.core.errors import DataError, RecipeError
from kogata.core.receipt import Machine
from kogata.core.recipe import Step, step_from_dict
from kogata.core.registry import suggest
from kogata.core.shape import Count
from kogata.core.stage import Bench, Facts
from kogata.core.variants import VariantSettings

if TYPE_CHECKING:
    import numpy as np

HELDOUT_BYTES = 200_000
BYTES_PER_TOKEN = 3.5
ROOM = 1.5
"""Text of a source that a small model may read, by what it is trained on."""
BATCH = 1024
CONTEXT = 256
"""What the forecast takes a step to be."""
START_SECONDS = 12.0
"""Reading the sources, their vocabulary, encoding them."""
PROXY_SECONDS = 4.0
"""Of each small model, beside its training."""
PEAK_BYTES = 600 * 2**20
CANDIDATES = 20_000
BEST = 100
"""Mixtures that the regression judges, and of which the mean is taken."""
SPREAD = (1.0, 16.0)
"""How far mixtures lie from the middle: a Dirichlet distribution's strength, from wide to narrow."""
RIDGES = (1e-6, 1e-4, 1e-2, 1.0)
FLOOR = 0.01
"""Added to a weight whose logarithm is taken: what other sources teach of this one."""
DIGITS = 6


class Settings(VariantSettings):
    """Settings of `regmix`."""

    proxies: int = Field(default=24, ge=4, le=512, description="small models, each on another mixture")
    tokens: Count = Field(default=300_000, description="tokens each of them is trained on")
    parameters: Count = Field(default=500_000, description="weights of each of them")
    vocab_size: int = Field(default=2048, ge=300, le=65_536, description="tokens they share, learned anew")
    target: list[str] | None = Field(
        default=None,
        min_length=1,
        description="sources whose held-out text judges; by default all that have some",
    )
    seed: int = Field(default=0, ge=0, le=2**31, description="of the mixtures and the small models")

    @field_validator("tokens", "parameters")
    @classmethod
    def _enough(cls, value: int) -> int:
        if value < 10_000:
            raise ValueError(f"found {value}; at least 10,000, or nothing is learned from it")
        return value


def weigh(sizes: Mapping[str, int], settings: Settings) -> dict[str, float]:
    """Gives the weights to plan with, by size, until `learn` has found better ones.

    Raises:
        RecipeError: the target names a source that there is not, or there is but one source.
    """
    for name in settings.target or ():
        if name not in sizes:
            near = suggest(name, sizes)
            raise RecipeError(
                f"the target names {name!r}, which is no source",
                where="regmix, target",
                expected=f"one of {', '.join(sizes)}",
                remedy=f"did you mean {near!r}?" if near else None,
            )
    if sum(size > 0 for size in sizes.values()) < 2:
        raise RecipeError(
            "weights are learned between sources, and there is one",
            where="method of data.mix",
            found=", ".join(name for name, size in sizes.items() if size) or "none",
            expected="at least two sources with training text",
        )
    return {name: float(size) for name, size in sizes.items()}


def cost(settings: Settings, machine: Machine) -> tuple[float, int]:
    """Forecasts learning the weights: seconds, and bytes at the peak."""
    from kogata.engine import autosize, costs

    shape = autosize.by_parameters("qwen3", settings.vocab_size, False, CONTEXT, settings.parameters)
    spec = autosize.spec_of("qwen3", shape, settings.vocab_size, CONTEXT)
    step = costs.step_cost(spec, machine, batch=BATCH, context=CONTEXT, muon=False).seconds
    each = PROXY_SECONDS + settings.tokens / BATCH * step
    return START_SECONDS + settings.proxies * each, PEAK_BYTES


def learn(
    corpora: Mapping[str, Artifact], sizes: Mapping[str, int], settings: Settings, bench: Bench
) -> tuple[dict[str, float], Facts]:
    """Trains the small models and gives the weights, adding up to 1, with what they are drawn from.

    Args:
        corpora: of every source, by its name.
        sizes: of every source, in bytes.
        settings: how many models, how large, for how long.
        bench: runs them as nested steps, so that a killed search goes on with the model it was at.

    Raises:
        DataError: there is no held-out text to judge by.
    """
    import numpy as np

    folder = bench.checkpoints / "regmix"
    folder.mkdir(parents=True, exist_ok=True)
    held = _write_heldout([corpora[name] for name in settings.target or corpora], folder / "heldout.jsonl")
    names = [name for name, size in sizes.items() if size]
    room = ROOM * BYTES_PER_TOKEN * settings.tokens
    files = [
        _write_some(corpora[name].path, sizes[name], room, folder / f"{number}.jsonl")
        for number, name in enumerate(names, 1)
    ]
    shares = np.array([sizes[name] for name in names], dtype=float)
    shares /= shares.sum()
    chance = np.random.Generator(np.random.Philox(key=[settings.seed, 29]))
    # The mixture by size is tried too: it is what the others have to beat.
    tried = np.round(np.vstack([shares, _draw(shares, settings.proxies - 1, chance)]), DIGITS)
    receipts = bench.run(_steps(settings, names, files, held, tried.tolist()), Budget(), settings.seed)
    scores = {row.label: row.facts["bits_per_byte"]["value"] for row in receipts if row.stage == "evaluate"}
    losses = np.array([scores[f"regmix-{number}-score"] for number in range(len(tried))])
    predict, error = fit(tried, losses)
    candidates = _draw(shares, CANDIDATES, chance)
    order = np.argsort(predict(candidates), kind="stable")
    found = candidates[order[:BEST]].mean(axis=0)
    expected, plain = predict(np.vstack([found, shares])).tolist()
    better = plain - expected > error
    best = np.round(found, DIGITS) if better else shares
    weights = {name: 0.0 for name in sizes} | dict(zip(names, best.tolist(), strict=True))
    seconds = sum(row.cost.seconds or 0.0 for row in receipts if row.cost is not None)
    told = ", ".join(f"{name} {weight:.2f}" for name, weight in weights.items())
    why = f"{plain:.3f} to {expected:.3f} bits per byte, ±{error:.3f}"
    bench.log(
        f"{len(tried)} small models in {seconds:.0f} s: {told} ({why})"
        if better
        else f"{len(tried)} small models in {seconds:.0f} s know no better mixture than by size ({why})"
    )
    return weights, {
        "sources": names,
        "mixtures": tried.tolist(),
        "bits_per_byte": losses.tolist(),
        "predicted": expected,
        "predicted_by_size": plain,
        "error": error,
        "kept_by_size": not better,
    }


def _draw(shares: np.ndarray, count: int, chance: np.random.Generator) -> np.ndarray:
    """Draws mixtures around the middle between sizes and an even split; rows add up to 1."""
    import numpy as np

    centre = (shares + 1 / len(shares)) / 2
    low, high = np.log(SPREAD)
    strength = np.exp(chance.uniform(low, high, (count, 1)))
    parts = chance.gamma(strength * centre) + 1e-12
    return parts / parts.sum(axis=1, keepdims=True)


def fit(weights: np.ndarray, losses: np.ndarray) -> tuple[Callable[[np.ndarray], np.ndarray], float]:
    """Fits losses by weights; gives the function from weights to losses and its error.

    Of the weights alone, with their products, or with their logarithms (a source's loss falls like a power of
    what is seen of it), and of several strengths of the ridge, those are taken whose predictions of a loss
    that was left out are nearest; that distance (root mean square) is the error.
    """
    import numpy as np

    def features(rows: np.ndarray, kind: str) -> np.ndarray:
        first, second = np.triu_indices(rows.shape[1])
        more = {"products": rows[:, first] * rows[:, second], "logarithms": np.log(rows + FLOOR)}
        return np.hstack([rows, more[kind]]) if kind in more else rows

    chosen: tuple[float, str, np.ndarray, np.ndarray] | None = None
    count, mean = len(losses), losses.mean()
    for kind in ("weights", "products", "logarithms"):
        made = features(weights, kind)
        middle = made.mean(axis=0)
        centred = made - middle
        for ridge in RIDGES:
            inverse = np.linalg.inv(centred.T @ centred + ridge * np.eye(centred.shape[1]))
            slope = inverse @ centred.T @ (losses - mean)
            own = np.einsum("ij,jk,ik->i", centred, inverse, centred) + 1 / count
            left_out = (losses - mean - centred @ slope) / np.maximum(1 - own, 1e-6)
            error = float(np.sqrt(np.mean(left_out**2)))
            if chosen is None or error < chosen[0]:
                chosen = error, kind, middle, slope
    assert chosen is not None
    error, kind, middle, slope = chosen
    return lambda rows: mean + (features(rows, kind) - middle) @ slope, error


def _write_heldout(corpora: Sequence[Artifact], path: Path) -> Path:
    """Writes what judges: held-out text of each corpus, as much of one as of another."""
    from kogata.engine.text import read_corpus, utf8_length

    size = 0
    with path.open("w", encoding="utf-8", errors="replace") as file:
        for number, corpus in enumerate(corpora):
            left = HELDOUT_BYTES // len(corpora)
            for document in read_corpus(corpus.path, "heldout"):
                text = document.text[:left]
                left -= utf8_length(text)
                size += len(text)
                file.write(_row(f"{number}/{document.id}", text))
                if left <= 0:
                    break
    if not size:
        raise DataError(
            "no held-out text to judge mixtures by",
            where="data.mix, method regmix",
            remedy="give the data.read of a source a `heldout` share or path, and name it under `target`",
        )
    return path


def _write_some(corpus: Path, size: int, room: float, path: Path) -> Path:
    """Writes training text of a source, chosen by content, until the room is full."""
    from kogata.engine.splits import content_hash
    from kogata.engine.text import read_corpus, utf8_length

    limit = min(1.0, room / max(1, size)) * 2**64

    def chosen(first: bool) -> Iterator[Document]:
        for document in read_corpus(corpus, "train"):
            if (content_hash(document.text) < limit) is first:
                yield document

    left = room
    with path.open("w", encoding="utf-8", errors="replace") as file:
        for document in chain(chosen(True), chosen(False)):
            text = document.text[: int(left) + 1]
            file.write(_row(document.id, text))
            left -= utf8_length(text)
            if left <= 0:
                break
    return path


def _row(name: str, text: str) -> str:
    return json.dumps({"id": name, "text": text}, ensure_ascii=False) + "\n"


def _steps(
    settings: Settings,
    names: Sequence[str],
    files: Sequence[Path],
    held: Path,
    tried: Sequence[Sequence[float]],
) -> list[Step]:
    """Gives the nested recipe: the text encoded once, a small model and its score for each mixture."""
    rows: list[dict[str, Any]] = []
    labels = [f"regmix-source-{number}" for number in range(1, len(names) + 1)]
    for number, (label, file) in enumerate(zip(labels, files, strict=True)):
        judge = 0 if number else str(held.resolve())
        rows.append(
            {"data.read": {"as": label, "kind": "corpus", "path": str(file.resolve()), "heldout": judge}}
        )
    corpus = {"corpus": "regmix-mix"}
    rows += [
        {"data.mix": {"as": "regmix-mix", "names": list(names), "use": {"corpora": labels}}},
        {"tokenizer.train": {"as": "regmix-vocabulary", "vocab_size": settings.vocab_size, "use": corpus}},
        {"tokenizer.encode": {"as": "regmix-tokens", "use": {**corpus, "tokenizer": "regmix-vocabulary"}}},
    ]
    for number, weights in enumerate(tried):
        by = {"explicit": {"weights": dict(zip(names, weights, strict=True))}}
        rows += [
            {
                "train.pretrain": {
                    "as": f"regmix-{number}",
                    "use": {"tokens": "regmix-tokens"},
                    "tokens": settings.tokens,
                    "model": {"parameters": settings.parameters},
                    # Counts of all the text would be known to every model, whatever its mixture.
                    "corpus_start": False,
                    "sampling": {"weighted": {"by": by, "most_epochs": 1000}},
                }
            },
            {
                "evaluate": {
                    "as": f"regmix-{number}-score",
                    "use": {"model": f"regmix-{number}", **corpus},
                    "minimal_pairs": False,
                    "sample_tokens": 0,
                }
            },
        ]
    return [step_from_dict(row) for row in rows]
