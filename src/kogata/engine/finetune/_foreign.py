"""Models that only transformers can build: what may be trained of them, and a shape to forecast with.

Imports no torch. They are trained in transformers' own module; forecasts take a llama of as many weights in
their place, and are rough for that.
"""

from __future__ import annotations

from typing import Any

from kogata.core.errors import RecipeError
from kogata.core.registry import registry
from kogata.core.stage import Facts
from kogata.engine.finetune._common import FOLDER
from kogata.nn.spec import ModelSpec

HEAD = 64
"""Width of a head of the llama that stands in a forecast, and its width over its layers."""


def base_spec(model: Facts, method: Any) -> tuple[ModelSpec, bool]:
    """Gives the shape of a base model, and whether it is a stand-in for one that only transformers knows.

    Args:
        model: the model's facts.
        method: the chosen method, with `name` and `settings`.

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
        return spec, False
    if model.get("role") not in (None, "decoder") or not model.get("vocab_size"):
        raise RecipeError(
            "this model cannot be fine-tuned to answer",
            where="train.finetune, slot model",
            found=f"architecture {model.get('architecture')}, role {model.get('role')}",
            expected="a causal language model",
            remedy="for text and labels use train.classify, for a text encoder of your field train.mask",
        )
    _refuse(model, method)
    return stand_in(model), True


def _refuse(model: Facts, method: Any) -> None:
    able = [name for name in registry.variant_names(FOLDER) if _foreign(name)]
    found = f"method: {method.name}" if method.name not in able else None
    settings = method.settings
    if getattr(settings, "top", "all") != "all":
        found = f"top: {settings.top}"
    elif getattr(settings, "init", "uniform") != "uniform":
        found = f"init: {settings.init}"
    elif getattr(settings, "layers", None):
        found = f"layers: {', '.join(settings.layers)}"
    if found is not None:
        raise RecipeError(
            "a model that only transformers can build cannot be trained in this way",
            where="method of train.finetune",
            found=f"{found}, architecture {model.get('architecture')}",
            expected=f"one of {', '.join(able)}, all layers",
            remedy="method: lora",
        )
    if method.variant.MAKES == "adapter":
        registry.variant(FOLDER, "peft").need("method of train.finetune")


def _foreign(name: str) -> bool:
    return bool(getattr(registry.variant(FOLDER, name), "FOREIGN", False))


def stand_in(model: Facts) -> ModelSpec:
    """Gives a llama of about as many weights, for forecasts."""
    vocab, wanted = int(model["vocab_size"]), int(model.get("parameters") or 10**8)
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
        context=int(model.get("context") or 1024),
        norm_eps=1e-5,
        tied=True,
    )
