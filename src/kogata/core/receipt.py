"""Receipts and machines: what was done, what it cost and on what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from kogata.core.amounts import Cost, Energy

TEXT_BYTES = 1.6e6
"""`Machine.text_bytes` of the computer on which rates of work other than matrix products were measured."""
PACE_POWER = 0.7
"""A chip 2.4 times as fast at the probe was about 1.7 times as fast at the stages: these wait for memory,
files and processes too (budgets.json of Zen 3 and of Zen 5)."""
LEAST_PACE, MOST_PACE = 0.25, 4.0
"""One probe says no more than this about other work."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What one computer is and can do, as measured once.

    Rates are of all allowed cores together. Unmeasured is None.
    """

    device: str = "cpu"
    cores: int = 1
    isa: str = ""
    model: str = ""
    memory_bytes: int = 0
    gemm_flops: float | None = None
    """Sustained fp32 FLOP/s of large matrix products."""
    gemm_small_flops: float | None = None
    """The same at the shapes of a small model (2048 × 192 × 768)."""
    bf16_flops: float | None = None
    """The mean of both with factors rounded to bf16; None where the chip has no such products."""
    stream_bytes: float | None = None
    """Bytes per second read and written by a large copy."""
    text_bytes: float | None = None
    """Bytes of text per second that one core cuts, counts, packs and encodes: its speed at plain work."""
    watts: tuple[float, float] | None = None
    """Low and high end of the power of the allowed cores and their memory under load."""
    watts_source: str = ""
    compiler: bool = False
    """Whether a C++ compiler for `torch.compile` was found."""
    versions: dict[str, str] = field(default_factory=dict)

    def times(self, number: int) -> Machine:
        """Gives so many computers like this one, as one that divides its work without loss."""
        if number == 1:
            return self
        rates = ("gemm_flops", "gemm_small_flops", "bf16_flops", "stream_bytes")
        more = {name: None if (rate := getattr(self, name)) is None else rate * number for name in rates}
        watts = None if self.watts is None else (self.watts[0] * number, self.watts[1] * number)
        return replace(
            self,
            cores=self.cores * number,
            memory_bytes=self.memory_bytes * number,
            watts=watts,
            **more,  # type: ignore[arg-type]
        )

    def joules(self, seconds: float) -> Energy | None:
        """Models the energy of so many seconds at load; None when the power is unknown."""
        if self.watts is None:
            return None
        low, high = self.watts
        return Energy(low=low * seconds, high=high * seconds, source=self.watts_source)

    def product_flops(self, precision: str) -> float | None:
        """Gives the FLOP/s of large products in a format (`fp32`, `bf16`)."""
        return (self.bf16_flops if precision == "bf16" else None) or self.gemm_flops

    def paced(self, seconds: float) -> float:
        """Gives what plain work takes here that took so many seconds where its rate was measured.

        Plain work is all but matrix products: text, files, imports. Unmeasured, nothing changes.
        """
        if not self.text_bytes:
            return seconds
        return seconds * min(MOST_PACE, max(LEAST_PACE, (TEXT_BYTES / self.text_bytes) ** PACE_POWER))

    def to_dict(self) -> dict[str, Any]:
        """Gives plain values for JSON."""
        return asdict(self)

    @staticmethod
    def from_dict(parts: Mapping[str, Any]) -> Machine:
        """Reads what `to_dict` wrote; unknown fields of a later release are passed over."""
        names = {item.name for item in fields(Machine)}
        values = {key: value for key, value in parts.items() if key in names}
        if values.get("watts"):
            values["watts"] = tuple(values["watts"])
        return Machine(**values)


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """One line of the ledger: a stage that ran, was reused, was fused into its neighbour, or failed."""

    key: str
    label: str
    stage: str
    status: str
    """`done`, `reused`, `fused`, `failed`, `refused` or `stopped`."""
    parent: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    """Why each `auto` became what it is."""
    inputs: dict[str, Any] = field(default_factory=dict)
    """Slot → digest, or list of digests."""
    made: str | None = None
    """Digest of what was made."""
    kind: str | None = None
    path: str | None = None
    forecast: Cost | None = None
    cost: Cost | None = None
    first_cost: Cost | None = None
    """What the artifact cost when it was first made; equals `cost` unless reused."""
    facts: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    machine: str | None = None
    """Digest of the machine profile in plan.json."""
    versions: dict[str, str] = field(default_factory=dict)
    reason: str | None = None
    """Why it failed, was refused or stopped."""
    started: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Gives plain values for JSON."""
        return asdict(self)

    @staticmethod
    def from_dict(parts: Mapping[str, Any]) -> Receipt:
        """Reads what `to_dict` wrote; unknown fields of a later release are passed over."""
        names = {item.name for item in fields(Receipt)}
        values = {key: value for key, value in parts.items() if key in names}
        for name in ("forecast", "cost", "first_cost"):
            if values.get(name) is not None:
                values[name] = Cost.from_dict(values[name])
        return Receipt(**values)


def total_cost(receipts: list[Receipt], *, first: bool = False) -> Cost:
    """Adds the costs of receipts without a parent; with `first`, what reused artifacts first cost."""
    total = Cost()
    for receipt in receipts:
        cost = receipt.first_cost if first and receipt.first_cost else receipt.cost
        if receipt.parent is None and cost is not None:
            total = total + cost
    return total
