"""Adapters as folders in peft's format: written, read, put on a model, merged into it and checked.

`adapter_config.json` and `adapter_model.safetensors` are what `peft` writes and reads; `training.json` holds
what we know beside: which base the adapter was trained on, by a fingerprint of its weights.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kogata.core.errors import DataError, Refused
from kogata.core.registry import registry
from kogata.engine.finetune._common import FOLDER, refuse_family, targets
from kogata.engine.hf_folder import write_json
from kogata.nn.decoder import Decoder

CONFIG, WEIGHTS, FACTS = "adapter_config.json", "adapter_model.safetensors", "training.json"
OWN = "KOGATA_"
"""What the kinds begin with that peft does not know."""
SAMPLED = 256
"""Weights of each tensor that enter a fingerprint."""
MERGE_TOKENS = 64
"""Spread over the vocabulary, that merged and unmerged model are compared on."""
TOLERANCE = 1e-4
"""Largest difference of logits, relative to their size, that merging may make."""


def is_adapter(folder: Path) -> bool:
    """Says whether a folder holds an adapter and no model."""
    return (folder / CONFIG).is_file() and not (folder / "config.json").is_file()


def base_of(folder: Path) -> str:
    """Gives the name of the base that an adapter was trained on.

    Raises:
        DataError: the adapter names none.
    """
    name = read_config(folder).get("base_model_name_or_path")
    if not name:
        raise DataError(
            "the adapter does not name its base",
            where=str(folder / CONFIG),
            found="no base_model_name_or_path",
            expected="a model's name or folder",
            remedy="write the base's folder or hub name there, or name the run that made the adapter",
        )
    return str(name)


def write_adapter(
    folder: Path, kind: str, base: str | None, config: dict[str, Any], tensors: dict[str, Tensor]
) -> None:
    """Writes an adapter's two files.

    Args:
        folder: made where it is not there.
        kind: peft's name of the kind, or our own.
        base: names the model.
        config: what this kind has beside that.
        tensors: by the names peft gives them.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    held = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    save_file(held, folder / WEIGHTS, metadata={"format": "pt"})
    every = {"peft_type": kind, "task_type": "CAUSAL_LM", "base_model_name_or_path": base}
    write_json(folder / CONFIG, {**every, **config, "inference_mode": True})


def read_config(folder: Path) -> dict[str, Any]:
    """Reads an adapter's config.

    Raises:
        DataError: it is missing or no JSON object.
    """
    found: Any = None
    try:
        found = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        problem = "no JSON object"
    except (OSError, ValueError) as error:
        problem = str(error)
    if not isinstance(found, dict):
        raise DataError(
            "the adapter cannot be read", where=str(folder / CONFIG), found=problem, expected="peft's JSON"
        )
    return found


def read_adapter(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Reads an adapter's config and tensors.

    Raises:
        DataError: a file is missing, damaged or pickled.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    config = read_config(folder)
    if not (folder / WEIGHTS).is_file():
        pickled = (folder / "adapter_model.bin").is_file()
        raise DataError(
            "the adapter has only pickled weights" if pickled else "the adapter has no weights",
            where=str(folder),
            found="adapter_model.bin" if pickled else "no adapter_model.safetensors",
            expected=f"{WEIGHTS} (a pickle can run code when it is opened, so none is)",
            remedy="save it with safetensors in a place you trust",
        )
    try:
        return config, load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise DataError(
            "the adapter's weights cannot be read",
            where=str(folder / WEIGHTS),
            found=str(error),
            expected="a whole safetensors file",
            remedy="copy it again",
        ) from None


def put_on(decoder: Decoder, folder: Path) -> Decoder:
    """Puts a saved adapter on the model it was trained on.

    Args:
        decoder: its base, as it was read.
        folder: the adapter.

    Raises:
        DataError: it is for another base, or of a kind that cannot be read here.
    """
    config, tensors = read_adapter(folder)
    wanted = _facts(folder).get("base_fingerprint")
    if wanted is not None and (found := fingerprint(decoder)) != wanted:
        raise DataError(
            "the adapter is for another base",
            where=str(folder),
            found=f"a base with fingerprint {found[:12]}…",
            expected=f"{config.get('base_model_name_or_path') or 'the base it was trained on'}, "
            f"fingerprint {wanted[:12]}…",
            remedy="read the model that the adapter was trained on",
        )
    kind = str(config.get("peft_type"))
    refuse_family(decoder.spec, kind.lower())
    _module(kind, folder).load(decoder, config, tensors, str(folder))
    return decoder.eval()


def _module(kind: str, folder: Path) -> Any:
    modules = [registry.variant(FOLDER, name) for name in registry.variant_names(FOLDER)]
    known = {module.PEFT_TYPE: module for module in modules if hasattr(module, "PEFT_TYPE")}
    if kind in known:
        return known[kind]
    others = registry.variant(FOLDER, "peft")
    if kind.lower() in others.tuners():
        return others
    raise DataError(
        "adapters of this kind cannot be read here",
        where=str(folder / CONFIG),
        found=f"peft_type {kind}",
        expected=" or ".join(known),
        remedy="merge it with peft and read the merged model",
    )


def _facts(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


class Fingerprint:
    """Names a model's weights by the shape of each tensor and some of its values."""

    def __init__(self) -> None:
        self._found = hashlib.sha256()

    @torch.no_grad()
    def add(self, name: str, tensor: Tensor) -> None:
        """Takes the next tensor, by transformers' name; the order is `peer_tensors`'."""
        flat = tensor.reshape(-1)
        step = max(1, flat.numel() // SAMPLED)
        self._found.update(f"{name} {list(tensor.shape)}".encode())
        self._found.update(flat[::step].float().cpu().numpy().tobytes())

    def digest(self) -> str:
        """Gives the name."""
        return self._found.hexdigest()


def fingerprint(decoder: Decoder) -> str:
    """Names the weights of a decoder without an adapter."""
    from kogata.engine.convert import peer_tensors

    found = Fingerprint()
    for name, tensor in peer_tensors(decoder):
        found.add(name, tensor)
    return found.digest()


def can_merge(decoder: Decoder) -> bool:
    """Says whether every change on a decoder is one of weights."""
    of_weights = (hasattr(target.module, "merged") or plain(target.module) for target in targets(decoder))
    return decoder.front is None and all(of_weights)


def plain(layer: Any) -> bool:
    """Says whether a layer is as it was made."""
    return isinstance(layer, torch.nn.Linear)


@torch.no_grad()
def merge(decoder: Decoder) -> Decoder:
    """Writes every change into the weights it belongs to, in place; the decoder is then plain again.

    Raises:
        Refused: a change is none of weights.
    """
    if not can_merge(decoder):
        raise Refused(
            "the adapter cannot be written into the model's weights",
            where="merge",
            found="parts that stand beside the weights",
            expected="changes of weights",
            remedy="use model and adapter together: `evaluate`, `kogata chat`",
        )
    from torch import nn

    from kogata.nn.linear import linear

    for target in list(targets(decoder)):
        module = target.module
        if plain(module):
            continue
        weight, bias = module.merged(), module.bias
        made = linear(module.in_features, module.out_features, bias=bias is not None)
        made.weight = nn.Parameter(weight, requires_grad=False)
        if bias is not None:
            made.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
        target.put(made)
    return decoder


@torch.no_grad()
def merge_checked(decoder: Decoder, ids: Tensor) -> float:
    """Merges and compares logits of some ids [B, T] before and after; gives the largest relative difference.

    Raises:
        Refused: merged and unmerged differ.
    """
    before = decoder(ids)
    merge(decoder)
    after = decoder(ids)
    size = before.abs().max().clamp(min=1.0)
    gap = float((after - before).abs().max() / size)
    if not gap <= TOLERANCE:
        raise Refused(
            "the merged model computes something else than model and adapter",
            where="merge",
            found=f"logits differ by {gap:.2g} of their size",
            expected=f"at most {TOLERANCE:g}",
            remedy="keep the adapter unmerged, and report this with the recipe",
        )
    return gap


@torch.no_grad()
def merged_folder(model: Path, adapter: Path, out: Path) -> float:
    """Writes a model folder with an adapter merged into it; gives the largest relative difference of logits.

    Raises:
        DataError: the adapter is for another base.
        Refused: merged and unmerged differ.
    """
    from kogata.engine.chat_template import Template
    from kogata.engine.convert import load_decoder, save_decoder

    decoder = put_on(load_decoder(model), adapter)
    vocab = decoder.spec.vocab_size
    ids = torch.arange(MERGE_TOKENS, dtype=torch.long)[None] * (vocab // MERGE_TOKENS or 1) % vocab
    gap = merge_checked(decoder, ids)
    save_decoder(decoder, out, tokenizer_files_from=model)
    if _facts(adapter).get("template") == "chatml":
        Template.load(model, "chatml").save(out)
    return gap
