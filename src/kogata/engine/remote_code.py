"""A model of Kogata's own family behind transformers' classes.

Copied beside such a model's config.json; transformers runs it when its user says `trust_remote_code=True`.
It needs Kogata itself (`pip install kogata`), which computes the model.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from kogata.nn.decoder import Decoder
from kogata.nn.spec import ModelSpec


class KogataConfig(PreTrainedConfig):
    """Holds the shape, as `ModelSpec.to_dict` writes it."""

    model_type = "kogata"

    spec: dict[str, Any] | None = None
    vocab_size: int | None = None
    hidden_size: int | None = None
    num_hidden_layers: int | None = None
    tie_word_embeddings: bool = False


class KogataForCausalLM(PreTrainedModel, GenerationMixin):
    """The decoder; without a cache between calls, so generating reads the whole text for each token."""

    config_class = KogataConfig
    base_model_prefix = "decoder"
    main_input_name = "input_ids"
    _no_split_modules: list[str] = []

    def __init__(self, config: KogataConfig) -> None:
        super().__init__(config)
        assert config.spec is not None
        spec = ModelSpec.from_dict(config.spec)
        self.decoder = Decoder(spec, seed=None)
        self.post_init()

    def _init_weights(self, module: torch.nn.Module) -> None:
        """Leaves weights alone: they come from the file."""

    def get_input_embeddings(self) -> torch.nn.Module:
        """Gives the embedding."""
        return self.decoder.embed

    def get_output_embeddings(self) -> torch.nn.Module | None:
        """Gives the head; None when it is the embedding's own rows."""
        return self.decoder.head

    def prepare_inputs_for_generation(self, input_ids: torch.Tensor, *_: Any, **more: Any) -> dict[str, Any]:
        """Hands on the whole text each time."""
        return {"input_ids": input_ids}

    def forward(
        self, input_ids: torch.Tensor, labels: torch.Tensor | None = None, **more: Any
    ) -> CausalLMOutputWithPast:
        """Computes logits [B, T, V], and the loss of labels [B, T] where given (-100 does not count)."""
        decoder: Any = self.decoder
        logits = decoder(input_ids)
        loss = None
        if labels is not None:
            loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return CausalLMOutputWithPast(loss=loss, logits=logits)
