"""Trains what a tuner of the library peft puts beside the linear layers, in our loop: loha, lokr, oft, miss …

Pays when: a tuner is wanted that is no method here; the adapter is that library's own in every detail.
Hurts when: `lora` would do: it is computed in one product a layer with the frozen weights, peft's are not.
Cost: about `lora`'s products, in more and smaller steps; some tuners (loha, oft) build a whole weight each
    time.
Source: peft's comparison on MetaMathQA (its folder method_comparison, one seed, error about 1.4 points): miss
    48.7 % in the least time of all, lora of rank 32 on q and v 47.8 %; ten variants of lora tie once the rate
    is tuned (arXiv 2602.04998).
Measured here: not yet measured.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from kogata.core.errors import DataError, EnvironmentProblem, RecipeError
from kogata.core.registry import suggest
from kogata.engine.finetune._common import (
    Tuning,
    UpperLayers,
    Work,
    layer_shapes,
    lora_lr,
    targets,
    unfit,
)
from kogata.nn.spec import ModelSpec

MAKES = "adapter"
FOREIGN = True
"""Whether it trains models that only transformers can build."""
WHERE = "method.peft of train.finetune"
OWN = {"lora", "ia3", "prefix_tuning", "prompt_tuning", "shira"}
"""Tuners that are methods here."""
STEPPED = {"adalora", "xlora", "poly", "shadow", "cartridge", "osf"}
"""Tuners that want to be called between steps, or for every input."""
NOT_LAYERS = {
    "adaption_prompt",
    "cpt",
    "ln_tuning",
    "multitask_prompt_tuning",
    "p_tuning",
    "trainable_tokens",
}
"""Tuners of something else than linear layers."""
OWN_LAYERS = "tensors of the model's own linear layers"
INSTALL = "pip install 'kogata[peft]'"


class Settings(UpperLayers):
    """Which tuner, and what its config in peft takes."""

    tuner: str = Field(
        default="miss",
        description="the tuner as peft calls it, such as loha, lokr, oft, boft, hra, vera, miss, c3a",
    )
    settings: dict[str, Any] = Field(
        default_factory=dict,
        description="what peft's config of it takes, such as {r: 8}; target_modules: by default all linear "
        "layers of the blocks",
    )

    @field_validator("tuner")
    @classmethod
    def _known(cls, value: str) -> str:
        name = value.lower()
        if name in OWN:
            own = {"prefix_tuning": "prefix", "prompt_tuning": "prompt", "shira": "sparse"}.get(name, name)
            raise ValueError(f"{value} is a method of its own here: `method: {own}`")
        if name in STEPPED:
            raise ValueError(f"{value} has to be called between steps or for every input: take another")
        if name in NOT_LAYERS:
            raise ValueError(f"{value} does not change linear layers: take another, or `method: prompt`")
        names = tuners()
        if names and name not in names:
            near = suggest(name, names)
            hint = f"; did you mean {near!r}?" if near else ""
            raise ValueError(f"this peft has no tuner {value!r}{hint} It has {', '.join(names)}")
        return name


def tuners() -> list[str]:
    """Lists the tuners that can be taken, by the installed peft's folders; none where it is not there."""
    found = importlib.util.find_spec("peft")
    if found is None or not found.submodule_search_locations:
        return []
    folder = Path(found.submodule_search_locations[0]) / "tuners"
    names = sorted(path.name for path in folder.iterdir() if (path / "config.py").is_file())
    return [name for name in names if name not in OWN | STEPPED | NOT_LAYERS | {"mixed"}]


def need(where: str) -> None:
    """Refuses to go on where peft is not installed.

    Raises:
        EnvironmentProblem: with what installs it.
    """
    if importlib.util.find_spec("peft") is None:
        raise EnvironmentProblem(
            "the library peft is not installed", where=where, found="no package peft", remedy=INSTALL
        )


def work(spec: ModelSpec, settings: Settings) -> Work:
    """Counts what is trained, roughly: each tuner has a count of its own."""
    first = settings.lowest(spec, "peft")
    need(WHERE)
    rank = settings.settings.get("r", 16)
    rank = rank if isinstance(rank, int) and rank > 0 else 16
    shapes = layer_shapes(spec).values()
    count = (spec.layers - first) * sum(rank * (rows + columns) for rows, columns in shapes)
    # Three outputs are computed of each layer and joined, and the change is added to each.
    floats = sum(rows for rows, _ in shapes)
    return Work(trained=count, added=count, first=first, rank_floats=len(shapes) * rank + floats)


def narrow(settings: Settings) -> bool:
    """Says whether the frozen weights may be held in fewer bits: peft reads them as they are."""
    return False


def lr(spec: ModelSpec, settings: Settings) -> tuple[float, str]:
    """Gives the learning rate that `auto` stands for."""
    return lora_lr(spec)


def apply(decoder: Any, settings: Settings, seed: int) -> Tuning:
    """Puts the tuner's layers in the place of the linear ones and freezes everything else."""
    if decoder.spec is None:
        first = settings.first(len(decoder.layers)) if settings.top != "all" else 0
        chosen = settings.settings.get("target_modules", "all-linear")
        if first and not (isinstance(chosen, str) and chosen != "all-linear"):
            every = decoder.layers.linear(first)
            ends = ("",) if chosen == "all-linear" else tuple(f".{name}" for name in chosen)
            chosen = [name for name in every if name.endswith(ends)]
        config = {**settings.settings, "peft_type": settings.tuner.upper(), "target_modules": chosen}
        return tuning_of(put(decoder, config, 0, seed, WHERE), first or -1)
    first = settings.first(decoder.spec.layers)
    names = list(layer_shapes(decoder.spec))
    chosen: Any = settings.settings.get("target_modules", names)
    if settings.top != "all" and isinstance(chosen, Sequence) and not isinstance(chosen, str):
        every = [peer for target in targets(decoder) if target.layer >= first for peer in target.pieces]
        chosen = [peer for peer in every if peer.endswith(tuple(f".{name}" for name in chosen))]
    config = {**settings.settings, "peft_type": settings.tuner.upper(), "target_modules": chosen}
    decoder.requires_grad_(False)
    return tuning_of(put(decoder, config, first, seed, WHERE), first)


def tuning_of(model: Any, first: int = -1, ratio: float = 1.0) -> Tuning:
    """Gives what is trained of a model of peft's, and what saves it.

    Args:
        model: peft's.
        first: the lowest layer with something trained.
        ratio: LoRA+: how many times A's learning rate B has.
    """
    named = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    last = [item for item in named if ".lora_B." in item[0]] if ratio != 1 else []
    chosen = {name for name, _ in last}
    groups = [([item for item in named if item[0] not in chosen], 1.0), *([(last, ratio)] if last else [])]
    kind = str(model.peft_config["default"].peft_type.value)

    def save(folder: Path, base: str | None) -> None:
        from peft import get_peft_model_state_dict

        from kogata.engine.adapters import write_adapter

        tensors = get_peft_model_state_dict(model, save_embedding_layers=False)
        held = model.peft_config["default"].to_dict()
        for name in ("peft_type", "task_type", "base_model_name_or_path", "inference_mode"):
            held.pop(name, None)
        plain = {name: sorted(value) if isinstance(value, set) else value for name, value in held.items()}
        write_adapter(folder, kind, base, plain, tensors)

    return Tuning(groups=groups, first=first, save=save)


def load(decoder: Any, config: dict[str, Any], tensors: dict[str, Any], where: str) -> None:
    """Puts a saved adapter of any of these tuners on a decoder.

    Raises:
        DataError: it does not fit the model.
        EnvironmentProblem: peft is not installed.
    """
    try:
        model = put(decoder, config, 0, 0, where)
    except RecipeError as error:
        raise DataError(error.what, where=where, found=error.found, expected=error.expected) from None
    from peft import set_peft_model_state_dict

    try:
        found = set_peft_model_state_dict(model, tensors)
    except (RuntimeError, KeyError, ValueError) as error:
        raise unfit(where, str(error).splitlines()[0][:300], OWN_LAYERS) from None
    if found.unexpected_keys:
        raise unfit(where, ", ".join(found.unexpected_keys[:3]), OWN_LAYERS)
    decoder.requires_grad_(False)


def put(decoder: Any, settings: dict[str, Any], first: int, seed: int, where: str) -> Any:
    """Lets peft change the linear layers under the names transformers gives them; gives its model."""
    need(where)
    from kogata.nn.adapters.joined import Joined, Names, split

    config = _config(settings, where)
    if decoder.spec is None:
        decoder.requires_grad_(False)
        decoder.tuner = _changed(decoder.model, config, seed, where)
        return decoder.tuner
    names = Names()
    every = [target for target in targets(decoder) if target.layer >= first]
    for target in every:
        for peer, piece in zip(
            target.pieces, split(target.module, list(target.pieces.values())), strict=True
        ):
            names.put(peer, piece)
    before = names.sums()
    model = _changed(names, config, seed, where)
    if names.sums() != before:
        raise RecipeError(
            "this tuner changes the model's own weights at its start",
            where=where,
            found=str(settings.get("peft_type")).lower(),
            expected="a tuner, and settings of it, that leave them as they are",
            remedy="for PiSSA take `method: {lora: {init: pissa}}`",
        )
    for target in every:
        target.put(Joined([names.get(peer) for peer in target.pieces], target.module))
    return model


def _changed(module: Any, config: Any, seed: int, where: str) -> Any:
    """Puts the tuner's layers into a module."""
    import torch
    from peft import get_peft_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return get_peft_model(module, config)
        except (ValueError, TypeError, KeyError, RuntimeError, NotImplementedError, AttributeError) as error:
            raise _refused(where, f"{type(error).__name__}: {error}"[:400]) from None


def _config(settings: dict[str, Any], where: str) -> Any:
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    kinds = {str(getattr(kind, "value", kind)): made for kind, made in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    made: Any = kinds.get(str(settings["peft_type"]))
    if made is None:
        raise _refused(where, f"peft_type {settings['peft_type']}")
    known = made.__dataclass_fields__
    apart = ("peft_type", "task_type", "auto_mapping")
    given = {name: value for name, value in settings.items() if name not in apart}
    # What another version of peft wrote is passed over where it says nothing.
    strange = [name for name, value in given.items() if name not in known and value]
    given = {name: value for name, value in given.items() if name in known}
    if strange:
        near = suggest(strange[0], known)
        raise RecipeError(
            f"peft's config of {settings['peft_type'].lower()} has no setting {strange[0]!r}",
            where=where,
            expected=", ".join(sorted(known)),
            remedy=f"did you mean {near!r}?" if near else None,
        )
    try:
        return made(**given | {"inference_mode": False})
    except (ValueError, TypeError) as error:
        raise _refused(where, str(error)[:400]) from None


def _refused(where: str, found: str) -> RecipeError:
    return RecipeError(
        "peft refuses this tuner with these settings",
        where=where,
        found=found,
        expected="what peft's page of the tuner says",
        remedy="change its settings, or take `method: lora`",
    )
