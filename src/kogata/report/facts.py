"""What receipts say: the figures that the last line, the tables and the page show."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from kogata.core.amounts import Cost, counted, format_joules
from kogata.core.receipt import Receipt


def highlights(receipts: Iterable[Receipt]) -> dict[str, Any]:
    """Gathers a run's main figures from its receipts; what was not measured is None or empty."""
    found: dict[str, Any] = {
        "bits_per_byte": None,
        "bits_per_byte_facts": None,
        "minimal_pairs": None,
        "samples": [],
        "parameters": None,
        "spec": {},
        "files": {},
        "role": None,
        "classifier": None,
        "labels": None,
        "tagger": None,
        "tags": None,
        "answers": None,
        "general": None,
    }
    for receipt in receipts:
        if receipt.parent is not None:
            continue
        facts = receipt.facts
        score = facts.get("bits_per_byte")
        if isinstance(score, dict) and score.get("value") is not None:
            found["bits_per_byte"], found["bits_per_byte_facts"] = score["value"], score
        if facts.get("minimal_pairs"):
            found["minimal_pairs"] = facts["minimal_pairs"]
        if facts.get("samples"):
            found["samples"] = facts["samples"]
        if receipt.kind == "model" and facts.get("parameters"):
            found["parameters"] = facts["parameters"]
            found["spec"] = {"architecture": facts.get("architecture"), **(facts.get("spec") or {})}
        if receipt.kind == "model" and facts:
            found["role"] = facts.get("role")
            judged = facts.get("role") == "classifier" and facts.get("methods")
            found["classifier"] = facts if judged else None
            found["tagger"] = facts if facts.get("role") == "tagger" and facts.get("methods") else None
        if receipt.kind == "scores" and facts.get("labels"):
            found["labels"] = facts["labels"]
        if receipt.kind == "scores" and facts.get("tags"):
            found["tags"] = facts["tags"]
        training = facts.get("training")
        if isinstance(training, dict) and training.get("general"):
            found["general"] = training["general"]
        if receipt.kind == "scores" and facts.get("examples"):
            found["answers"] = facts["examples"]
        if receipt.kind == "bundle" and isinstance(facts.get("files"), dict):
            found["files"] = facts["files"]
    return found


def accounts_of(receipts: Iterable[Receipt]) -> dict[str, dict[str, Any]]:
    """Gathers the accounts of the per-document stages: label → counts, in the order they were made."""
    found: dict[str, dict[str, Any]] = {}
    for receipt in receipts:
        if receipt.parent is not None:
            continue
        for label, account in (receipt.facts.get("accounts") or {}).items():
            if isinstance(account, dict):
                found[label] = account
        single = receipt.facts.get("account")
        if isinstance(single, dict):
            found[receipt.label] = single
    return found


MENDED = {
    "undecodable_bytes": "undecodable byte",
    "lone_surrogates": "lone surrogate",
    "nul_characters": "NUL character",
}


def mended_text(account: Mapping[str, Any]) -> str:
    """Says what of the text could not be read as it was; empty when all could."""
    extra = account.get("extra") or {}
    found = [counted(extra[name], noun) for name, noun in MENDED.items() if extra.get(name)]
    if found and extra.get("mended_documents"):
        found[-1] += f", mended in {counted(extra['mended_documents'], 'document')}"
    return ", ".join(found)


def bytes_per_token(receipts: Iterable[Receipt]) -> float | None:
    """Gives the bytes of text a training token stands for, from the encoded corpus; None when unknown."""
    for receipt in receipts:
        if receipt.parent is not None:
            continue
        train = ((receipt.facts.get("splits") or {}).get("train")) or {}
        if train.get("tokens") and train.get("bytes"):
            return train["bytes"] / train["tokens"]
    return None


def joules_text(cost: Cost) -> str:
    """Writes an energy range; `–` when not measured."""
    if cost.joules is None:
        return "–"
    low, high = format_joules(cost.joules.low), format_joules(cost.joules.high)
    unit = re.sub(r"[\d.e+]", "", high)
    return f"{low.removesuffix(unit) if re.sub(r'[0-9.e+]', '', low) == unit else low}–{high}"


def reason_text(value: str, reason: str) -> str:
    """Gives a choice's reason without the value, which stands beside it."""
    return reason.removeprefix(f"{value}: ")
