"""What became of the text, step by step: kept, dropped and why, chosen, mixed, encoded, trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kogata.core.amounts import counted, format_bytes, format_count
from kogata.core.receipt import Receipt
from kogata.report.facts import accounts_of, bytes_per_token, mended_text
from kogata.report.plots import bar
from kogata.report.sections import language


def funnel_rows(receipts: Sequence[Receipt]) -> tuple[list[dict[str, Any]], str]:
    """Gives what each step kept and dropped, with reasons and examples, and what was trained on of it.

    Tokens of text that is not encoded yet are about what its bytes came to later.
    """
    accounts = accounts_of(receipts)
    density = bytes_per_token(receipts)
    most = max((account.get("read_bytes") or 0 for account in accounts.values()), default=0) or 1
    rowwise = {receipt.label for receipt in receipts if receipt.parent is None and receipt.kind == "examples"}
    mixtures = {receipt.label: receipt.facts.get("mixture") for receipt in receipts if receipt.parent is None}
    rows = []
    for label, account in accounts.items():
        kept = account.get("kept_bytes") or 0
        noun = "row" if label in rowwise else "document"
        extra = account.get("extra") or {}
        mended = mended_text(account)
        notes = [*([mended] if mended else []), *_selection(extra), *_clusters(extra), *_trials(extra)]
        rows.append(
            {
                "label": label,
                "bar": bar(account.get("kept") or 0, account.get("read") or 1)
                if rowwise
                else bar(kept, most),
                "kept": f"{counted(account.get('kept', 0), noun)}, {_size(kept, density)}",
                "notes": notes + _mixture(mixtures.get(label)),
                "drops": _drops(account, density),
            }
        )
    if not rows:
        return rows, ""
    last = list(accounts.values())[-1]
    if rowwise:
        # Of rows, bytes read are those of the whole table, with what no column of the recipe names.
        read = list(accounts.values())[0].get("read") or 0
        return rows, f"{counted(last.get('kept', 0), 'row')} of {read:,} kept"
    summary = f"{(last.get('kept_bytes') or 0) / most:.1%} of the bytes kept"
    return rows + _tokens(receipts, most), summary


def _size(size: int, density: float | None) -> str:
    tokens = f", about {format_count(size / density)} tokens" if density and size else ""
    return format_bytes(size) + tokens


def _drops(account: Mapping[str, Any], density: float | None) -> list[dict[str, Any]]:
    reasons: dict[str, int] = account.get("reasons") or {}
    found = []
    for reason, count in sorted(reasons.items(), key=lambda pair: -pair[1]):
        size = (account.get("reason_bytes") or {}).get(reason)
        text = f"{count:,} {reason.replace('_', ' ')}" + (f", {_size(size, density)}" if size else "")
        examples = [_example(row) for row in (account.get("examples") or {}).get(reason, [])]
        found.append({"text": text, "examples": examples})
    return found


def _example(row: Mapping[str, Any]) -> dict[str, Any]:
    parts = [str(row[name]) for name in ("source", "id") if row.get(name)]
    if row.get("value") is not None:
        value = row["value"]
        parts.append(f"value {value:.4g}" if isinstance(value, float) else f"value {value}")
    text = str(row.get("text") or "")
    return {"head": " · ".join(parts), "text": text, "lang": language(text)}


def _selection(extra: Mapping[str, Any]) -> list[str]:
    """Says how data.select chose, and what its trial found."""
    if "kept_share" not in extra:
        return []
    parts = [f"chosen by {extra.get('method')}", f"{extra['kept_share']:.1%} of the bytes"]
    target = extra.get("target") or {}
    if target:
        parts.append(f"like {target.get('documents', 0):,} target documents")
    if target.get("held_out_left_out"):
        parts.append(f"{target['held_out_left_out']:,} of the target left out: they are held out")
    notes = [", ".join(parts)]
    trial = extra.get("trial") or {}
    gap = trial.get("difference") or {}
    if gap.get("mean") is not None:
        interval = "" if gap.get("low") is None else f" [{gap['low']:+.4f}, {gap['high']:+.4f}]"
        notes.append(
            f"tried on {gap.get('pairs')} pairs of small models, {format_count(trial.get('tokens'))} tokens "
            f"each: {gap['mean']:+.4f}{interval} bits per byte against chance, {trial.get('verdict')}"
        )
    return notes


def _clusters(extra: Mapping[str, Any]) -> list[str]:
    """Says what groups of duplicates there were."""
    found = extra.get("clusters")
    if not isinstance(found, Mapping) or not found.get("clusters"):
        return []
    notes = [f"{found['clusters']:,} groups of duplicates, the largest of {found.get('largest', 2):,}"]
    for row in found.get("shown") or []:
        count, ids = row["dropped"], row["ids"]
        more = ", …" if count > len(ids) else ""
        notes.append(f"{row['kept']} stays for {counted(count, 'other')}: {', '.join(ids)}{more}")
    return notes


def _trials(extra: Mapping[str, Any]) -> list[str]:
    """Says what small models told of mixtures."""
    found = extra.get("trials")
    if not isinstance(found, Mapping) or "mixtures" not in found:
        return []
    promise = (
        f"{found['predicted_by_size']:.3f} to {found['predicted']:.3f} bits per byte, ±{found['error']:.3f}"
    )
    how = "by size, for they know no better" if found["kept_by_size"] else "learned from them"
    return [f"{len(found['mixtures'])} small models tried mixtures: {promise}; weights {how}"]


def _mixture(found: Any) -> list[str]:
    """Says how much of each source a mixture holds."""
    if not isinstance(found, Mapping):
        return []
    notes = []
    for name, part in found.items():
        times = part.get("epochs") or 0.0
        how = f"{times:.3g} times" if times >= 1 else f"{times:.0%} of it"
        out = ", it has run out" if part.get("ran_out") else ""
        notes.append(f"{name}: weight {part.get('weight') or 0:.1%}, {how}{out}")
    return notes


def _tokens(receipts: Sequence[Receipt], most: int) -> list[dict[str, Any]]:
    """Gives what was encoded, and what training saw of it."""
    rows = []
    for receipt in receipts:
        if receipt.parent is not None:
            continue
        train = (receipt.facts.get("splits") or {}).get("train") or {}
        if receipt.kind == "tokens" and train.get("tokens"):
            kept = (
                f"{train.get('documents', 0):,} documents, {format_count(train['tokens'])} tokens to train on"
            )
            size = train.get("bytes") or 0
            rows.append(
                {"label": receipt.label, "bar": bar(size, most), "kept": kept, "notes": [], "drops": []}
            )
        training = receipt.facts.get("training") or {}
        if receipt.kind == "model" and training.get("epochs") is not None and training.get("tokens"):
            times = training["epochs"]
            kept = f"{format_count(training['tokens'])} tokens seen, the text {times:.3g} times"
            share = bar(min(times, 1.0), 1.0, style="c")
            rows.append({"label": receipt.label, "bar": share, "kept": kept, "notes": [], "drops": []})
    return rows
