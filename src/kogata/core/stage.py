"""Stage, the one class a technique derives from, and Bench, all that a stage may touch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationInfo

from kogata.core.amounts import Budget, Forecast
from kogata.core.artifact import Artifact, Document, Kind
from kogata.core.receipt import Machine, Receipt

if TYPE_CHECKING:
    from kogata.core.recipe import Clock, Step

Facts = dict[str, Any]
"""What is known of an artifact; of a slot of `many`, `{"many": [facts, …]}`."""


@dataclass(frozen=True, kw_only=True)
class Slot:
    """One input of a stage: the kinds it takes."""

    kinds: tuple[Kind, ...]
    optional: bool = False
    many: bool = False
    asked: bool = False
    """Filled only where the recipe names it under `use`."""


@dataclass(frozen=True, kw_only=True)
class SameAs:
    """`makes` of a stage that hands on the kind of one of its inputs."""

    slot: str


@dataclass(frozen=True, kw_only=True)
class Share:
    """What one stage may spend of the budget; None does not bind."""

    seconds: float | None = None
    """For an elastic stage, its part of the time; None without a time budget."""
    budget_seconds: float | None = None
    """The whole recipe's time budget, for stages that size themselves by it."""
    memory_bytes: int | None = None
    size_bytes: int | None = None
    energy_joules: float | None = None
    processes: int = 1


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """A stage whose `auto` values were chosen, each with its reason."""

    stage: Stage
    reasons: dict[str, str] = field(default_factory=dict)


def _against_recipe(path: str, info: ValidationInfo) -> str:
    folder = (info.context or {}).get("folder")
    if folder is None or "://" in path or path.startswith(("~", "hub:")) or Path(path).is_absolute():
        return str(Path(path).expanduser()) if path.startswith("~") else path
    return str(Path(folder) / path)


InputPath = Annotated[str, AfterValidator(_against_recipe), "input_path"]
"""A file, folder or glob outside the store, relative to the recipe's folder; its content enters the key."""


@dataclass
class Account:
    """What a per-document stage counted: documents and bytes in and out, reasons, examples dropped."""

    read: int = 0
    read_bytes: int = 0
    kept: int = 0
    kept_bytes: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    reason_bytes: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    extra: Facts = field(default_factory=dict)
    """Further facts of the stage, JSON values."""
    examples_kept: int = 3
    bench: Bench | None = None
    """Of the run, where there is one: a stage may keep what a kill must not cost in its `checkpoints`."""
    label: str = ""
    """Of the stage in the recipe: neighbours that run in one pass share the bench."""

    def keep(self, document: Document) -> Document:
        """Counts a document as kept and returns it."""
        self.kept += 1
        self.kept_bytes += len(document.text.encode("utf-8", "surrogatepass"))
        return document

    def reject(self, reason: str, document: Document | None = None, value: Any = None) -> None:
        """Counts a rejection under its reason; keeps the first few as examples."""
        size = len(document.text.encode("utf-8", "surrogatepass")) if document else 0
        self.reasons[reason] = self.reasons.get(reason, 0) + 1
        self.reason_bytes[reason] = self.reason_bytes.get(reason, 0) + size
        shown = self.examples.setdefault(reason, [])
        if len(shown) < self.examples_kept:
            row: dict[str, Any] = {"value": value}
            if document:
                row |= {"id": document.id, "source": document.source, "text": document.text[:160]}
            shown.append(row)

    def to_dict(self) -> Facts:
        """Gives plain values for JSON."""
        names = ("read", "read_bytes", "kept", "kept_bytes", "reasons", "reason_bytes", "examples", "extra")
        return {name: getattr(self, name) for name in names}


class Bench(Protocol):
    """All that a stage may touch. It writes only under `out` and `checkpoints`."""

    out: Path
    """An empty folder; what lies there when `run` returns is sealed."""
    checkpoints: Path
    """A folder that outlives a kill and is removed after sealing."""
    label: str
    seed: int
    device: str
    machine: Machine
    share: Share
    clock: Clock
    rank: int
    world: int
    """Processes at work on this stage; only rank 0 writes."""

    def left(self) -> float | None:
        """Gives the seconds this stage may still use; None without a time budget."""
        ...

    def stopping(self) -> bool:
        """Says whether someone asked to stop: checkpoint, then raise `Stopped`."""
        ...

    def progress(self, done: float, total: float | None, **facts: Any) -> None:
        """Reports progress for the screen; cheap enough to call at every step."""
        ...

    def metric(self, row: Mapping[str, Any]) -> None:
        """Appends a row to the run's metrics.jsonl (training stages: see docs)."""
        ...

    def log(self, text: str) -> None:
        """Says one line to the person who watches."""
        ...

    def count(self, *, tokens: int | None = None, flops: float | None = None) -> None:
        """Adds tokens and FLOPs to the stage's cost."""
        ...

    def spread(
        self,
        make: Callable[[], Callable[[list[Any]], list[Any]]],
        batches: Iterable[list[Any]],
        seconds: float,
        late: Callable[[Any], Any],
    ) -> Iterator[list[Any]]:
        """Maps batches on the cluster, results in order; `late` gives that of an item that takes longer."""
        ...

    def run(self, steps: Sequence[Step], budget: Budget, seed: int) -> list[Receipt]:
        """Executes a nested list of steps (search, proxy trials) and returns their receipts."""
        ...


Given = dict[str, Any]
"""Slot → Artifact, list of Artifacts (`many`) or None (`optional`)."""


class Stage(BaseModel):
    """A technique: its fields are its settings, its docstring is its card."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    takes: ClassVar[Mapping[str, Slot]] = {}
    makes: ClassVar[Kind | SameAs]
    version: ClassVar[int] = 1
    seeded: ClassVar[bool] = False
    elastic: ClassVar[bool] = False
    """Can use more time than it needs."""
    parallel: ClassVar[bool] = False
    """Can run as several processes."""
    trains: ClassVar[bool] = False
    """Its result depends on torch's version, the device and the precision: they enter the key."""
    imports_torch: ClassVar[bool] = False
    """Its `run` imports torch, and its forecast counts that (a stage that trains always does)."""
    packages: ClassVar[tuple[str, ...]] = ()
    """Packages whose versions its result depends on: they enter the key."""
    cost_only: ClassVar[frozenset[str]] = frozenset()
    """Settings that change what it costs and never what it makes: they stay out of the key."""

    def made_kind(self, facts: Mapping[str, Facts | None]) -> Kind:
        """Says what kind this stage makes, given its inputs' facts (`{"kind": …}` is among them)."""
        if isinstance(self.makes, SameAs):
            given = facts[self.makes.slot]
            assert given is not None
            return Kind(given["kind"])
        return self.makes

    def resolve(self, facts: Mapping[str, Facts | None], machine: Machine, share: Share) -> Resolved:
        """Turns each `auto` into a value with its reason; pure and free of torch."""
        return Resolved(stage=self)

    def forecast(self, facts: Mapping[str, Facts | None], machine: Machine, share: Share) -> Forecast:
        """States the facts and cost of what `run` will make; pure and free of torch."""
        raise NotImplementedError(f"{type(self).__name__} states no forecast")

    def clocked(self, share: Share) -> bool:
        """Says whether the result depends on the clock (then it is reused only in its own run folder)."""
        return False

    def run(self, given: Given, bench: Bench) -> Facts:
        """Makes the artifact under `bench.out` and returns its facts."""
        raise NotImplementedError(f"{type(self).__name__} cannot run")

    def steps_taken(self, facts: Facts) -> dict[str, Any]:
        """Gives the settings that replay this result without a clock (for the recipe saved with it)."""
        return {}

    def each(self, documents: Iterable[Document], account: Account) -> Iterator[Document]:
        """For per-document stages: passes documents on, counting in the account."""
        raise NotImplementedError

    @classmethod
    def per_document(cls) -> bool:
        """Says whether this stage works document by document and may be fused with its neighbours."""
        return cls.each is not Stage.each

    def streams(self) -> bool:
        """Says whether, set as it is, it works document by document; else `run` does the work."""
        return self.per_document()


def one(given: Given, slot: str) -> Artifact:
    """Gives the one artifact of a slot."""
    artifact = given[slot]
    assert isinstance(artifact, Artifact), f"slot {slot} holds {artifact!r}"
    return artifact
