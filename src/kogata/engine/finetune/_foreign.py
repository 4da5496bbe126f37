"""Models that only transformers can build: what may be trained of them, and a shape to forecast with.

Imports no torch. They are trained in transformers' own module; forecasts take a llama of as many weights in
their place, with their layers and width where the config names them, and are rough for that.
"""

from __future__ import annotations

from typing import Any

from kogata.core.errors import KogataError, RecipeError
from kogata.core.registry import registry
from kogata.core.stage import Facts
from kogata.engine.finetune._common import FOLDER
from kogata.engine.foreign_shape import LAYERED, layered
from kogata.nn.spec import ModelSpec

HEAD = 64
"""Width of a head of the llama that stands in a forecast, and its width over its layers, where neither is
known."""


def base_spec(model: Facts, method: Any) -> tuple[ModelSpec, dict[str, Any] | None]:
    """Gives the shape of a base model, and what is known of one that only transformers can build.

    Args:
        model: the model's facts.
        method: the chosen method, with `name` and `settings`.

    Returns:
        The shape, which only stands for the model's where a second thing comes with it: the model's `kind`,
        and what else `shape_of` read.

    Raises:
        RecipeError: the model cannot be fine-tuned, or not by this method.
    """
    if model.get("spec"):
        spec = ModelSpec.from_dict(dict(model["spec"]))
        if spec.sharing is not None:
            raise RecipeError(
                "a model with shared layers cannot be fine-tuned yet",
                where="train.finetune, slot model",
                found=f"sharing {spec.sharing}",
                expected="a model whose layers have weights of their own",
            )
        return spec, None
    if model.get("role") not in (None, "decoder") or not model.get("vocab_size"):
        raise RecipeError(
            "this model cannot be fine-tuned to answer",
            where="train.finetune, slot model",
            found=f"architecture {model.get('architecture')}, role {model.get('role')}",
            expected="a causal language model",
            remedy="for text and labels use train.classify, for a text encoder of your field train.mask",
        )
    shape = model.get("shape") or {"kind": model.get("architecture")}
    _refuse(model, method, shape)
    return stand_in(model), shape


def _refuse(model: Facts, method: Any, shape: dict[str, Any]) -> None:
    able = [name for name in registry.variant_names(FOLDER) if _foreign(name)]
    found = f"method: {method.name}" if method.name not in able else None
    settings = method.settings
    layers = getattr(method.variant, "LAYERS", False) or getattr(settings, "top", "all") != "all"
    if found is None and layers:
        refuse_layers_of(shape, f"method: {{{method.name}: {{top: {settings.top}}}}}")
    if getattr(settings, "init", "uniform") != "uniform":
        found = f"init: {settings.init}"
    elif getattr(settings, "layers", None):
        found = f"layers: {', '.join(settings.layers)}"
    if found is not None:
        raise RecipeError(
            "a model that only transformers can build cannot be trained in this way",
            where="method of train.finetune",
            found=f"{found}, architecture {model.get('architecture')}",
            expected=f"one of {', '.join(able)}",
            remedy="method: lora",
        )
    if method.variant.MAKES == "adapter":
        registry.variant(FOLDER, "peft").need("method of train.finetune")


def refuse_layers_of(shape: dict[str, Any], asked: str) -> None:
    """Refuses what needs single layers of a model of which they are not understood.

    Args:
        shape: what is known of the model.
        asked: the setting that needs them.

    Raises:
        RecipeError: with the kinds of models that can be.
    """
    if not layered(shape):
        raise RecipeError(
            "the layers of this kind of model are not understood: they can only be trained all, and as they "
            "are",
            where="train.finetune, slot model",
            found=f"{asked} with model_type {shape['kind']}",
            expected=", ".join(LAYERED),
            remedy="leave the setting out: `method: lora` and `method: full` train all layers",
        )


def _foreign(name: str) -> bool:
    return bool(getattr(registry.variant(FOLDER, name), "FOREIGN", False))


def stand_in(model: Facts) -> ModelSpec:
    """Gives a llama of about as many weights, for forecasts."""
    vocab, wanted = int(model["vocab_size"]), int(model.get("parameters") or 10**8)
    context, shape = int(model.get("context") or 1024), model.get("shape") or {}
    if shape:
        sizes = {name: shape[name] for name in ("layers", "width", "heads", "kv_heads", "head_dim", "tied")}
        ffn = int(shape["width"])
        try:
            more: dict[str, Any] = {"vocab_size": vocab, "context": context, "norm_eps": 1e-5, **sizes}
            first = ModelSpec.of_family("llama", ffn_width=ffn, **more)
            ffn += round((wanted - first.parameters()) / (3 * first.width * first.layers))
            return ModelSpec.of_family("llama", ffn_width=max(1, ffn), **more)
        except KogataError:
            pass
    width = HEAD
    while vocab * width + 12 * width**3 // HEAD < wanted:
        width += HEAD
    return ModelSpec.of_family(
        "llama",
        vocab_size=vocab,
        layers=width // HEAD,
        width=width,
        heads=width // HEAD,
        kv_heads=width // HEAD,
        ffn_width=8 * width // 3,
        context=context,
        norm_eps=1e-5,
        tied=True,
    )
