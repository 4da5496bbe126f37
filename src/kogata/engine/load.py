"""Loading a model to use or train it: ours where our decoder can express it, else transformers' own class."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kogata.core.errors import DataError
from kogata.engine.convert import load_decoder
from kogata.engine.sources import Source, end_id_of, find_model
from kogata.nn.decoder import Decoder
from kogata.nn.spec import ModelSpec


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory with its tokenizer."""

    decoder: Any
    """Our `Decoder`; or a `Foreign` with the same calls; or, of an encoder, transformers' module."""
    tokenizer: Any
    """A `tokenizers.Tokenizer`: `encode(text, add_special_tokens=False).ids`, `decode(ids)`."""
    spec: ModelSpec | None
    """None where only transformers can build it."""
    folder: Path
    """The Hugging Face folder, or the .gguf file."""
    source: Source

    @property
    def context(self) -> int | None:
        """The longest sequence it is meant for."""
        return self.source.context

    @property
    def special_ids(self) -> dict[str, Any]:
        """`bos_token_id`, `eos_token_id`, `pad_token_id` as config.json or the GGUF file states them."""
        names = ("bos_token_id", "eos_token_id", "pad_token_id")
        return {name: self.source.config.get(name) for name in names} | self.source.special_ids

    @property
    def end_ids(self) -> tuple[int, ...]:
        """The ids that end a text."""
        stated = self.special_ids.get("eos_token_id")
        stated = stated if isinstance(stated, list) else [stated]
        return tuple(dict.fromkeys(item for item in (self.end_id, *stated) if item is not None))

    @property
    def end_id(self) -> int | None:
        """The id that ends a text and stands before its start; None where the model names none."""
        return end_id_of(self.source, self.folder if self.folder.is_dir() else None)

    @cached_property
    def chat_tokenizer(self) -> Any:
        """Transformers' tokenizer, which knows the chat template; only of a folder."""
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.folder, local_files_only=True, trust_remote_code=False)

    def encode(self, text: str) -> list[int]:
        """Gives the ids of a text, without special ones around it."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids


class Foreign(nn.Module):
    """A transformers language model behind the calls of our Decoder; its linear layers keep their names.

    Attributes:
        model: the transformers module.
    """

    spec = None
    front = None

    def __init__(self, model: Any, context: int | None) -> None:
        super().__init__()
        self.model = model
        self.context = context
        self.tuner: Any = None
        """What peft put into the module, where it did."""
        self.layers: Any = None
        """Its `Layers`, where they have been asked for."""

    @property
    def head_weight(self) -> Tensor:
        """The output matrix [V, D]. Only meaningful where `plain_head` is true."""
        return self.model.get_output_embeddings().weight

    @cached_property
    def plain_head(self) -> bool:
        """Whether logits are just hidden vectors times `head_weight` (measured on a few ids)."""
        if getattr(self.model.get_output_embeddings(), "bias", None) is not None:
            # It may be zero now and be trained later.
            return False
        ids = torch.arange(4)[None]
        with torch.no_grad():
            theirs = self.model(input_ids=ids).logits
            ours = F.linear(self.hidden(ids), self.head_weight)
        return bool((ours - theirs).abs().max() < 1e-3 * theirs.abs().max().clamp(min=1))

    def hidden(
        self, ids: Tensor, *, cache: Any = None, positions: Tensor | None = None, documents: Any = None
    ):
        """Computes the last hidden vectors [B, T, D]; see `Decoder.hidden`."""
        assert documents is None, "packed documents need our own decoder"
        more: dict[str, Any] = {} if positions is None else {"position_ids": positions.expand(ids.shape)}
        if cache is not None:
            more["past_key_values"] = cache.states
            cache.length += ids.shape[1]
        found = self.model.base_model(input_ids=ids, use_cache=cache is not None, **more)
        return found.last_hidden_state

    def logits(self, hidden: Tensor) -> Tensor:
        """Computes the scores of every token, [..., V]."""
        assert self.plain_head, "this model does more to its logits than one product: call the module itself"
        return F.linear(hidden, self.head_weight)

    def forward(self, ids: Tensor) -> Tensor:
        """Computes logits [B, T, V]."""
        return self.model(input_ids=ids, use_cache=False).logits

    def new_cache(self, batch: int = 1, capacity: int | None = None) -> Any:
        """Makes an empty cache; it grows by itself."""
        from transformers import DynamicCache

        from kogata.nn.cache import Cache

        return Cache(DynamicCache(config=self.model.config), capacity or 0)  # type: ignore[arg-type]


def load_model(
    name: str | Path, revision: str | None = None, adapter: str | Path | None = None
) -> LoadedModel:
    """Loads a model in float32.

    Args:
        name: a folder, a run's folder, a .gguf file, `smollm2`, `minilm`, a hub name, or the folder of an
            adapter, which names its base.
        revision: branch, tag or commit on the hub.
        adapter: the folder of an adapter that was trained on this model.

    Raises:
        DataError, EnvironmentProblem: see `find_model`; the adapter is for another base.
    """
    from kogata.engine.adapters import base_of, can_merge, is_adapter, merge, put_on

    if adapter is None and is_adapter(Path(name)):
        name, adapter = base_of(Path(name)), name
    loaded = load_source(find_model(str(name), revision))
    if adapter is not None:
        if loaded.source.role != "decoder":
            raise DataError(
                "an adapter needs a causal language model",
                where=str(adapter),
                found=f"architecture {loaded.source.architecture}",
            )
        if can_merge(put_on(loaded.decoder, Path(adapter))):
            # Merged, it computes the same with no work beside each layer.
            merge(loaded.decoder)
    return loaded


def load_source(source: Source) -> LoadedModel:
    """Loads a model that `find_model` found; downloads it first where it lies on the hub."""
    if source.kind == "gguf":
        from kogata.engine.gguf_header import read_header
        from kogata.engine.gguf_read import build_tokenizer, load_gguf

        assert source.path is not None
        tokenizer, _ = build_tokenizer(read_header(source.path))
        return LoadedModel(load_gguf(source.path).eval(), tokenizer, source.spec, source.path, source)
    folder = source.path
    if folder is None:
        from kogata.engine.model_hub import download

        folder = download(source)
    tokenizer = load_tokenizer(folder)
    if source.spec is not None:
        return LoadedModel(load_decoder(folder).eval(), tokenizer, source.spec, folder, source)
    import transformers

    encoder = source.role == "encoder"
    kind: Any = transformers.AutoModel if encoder else transformers.AutoModelForCausalLM
    model = kind.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False, local_files_only=True
    ).eval()
    return LoadedModel(model if encoder else Foreign(model, source.context), tokenizer, None, folder, source)


def load_tokenizer(folder: Path) -> Any:
    """Loads a folder's tokenizer as a `tokenizers.Tokenizer`.

    Raises:
        DataError: the folder has none that can be read.
    """
    from tokenizers import Tokenizer

    try:
        if (folder / "tokenizer.json").is_file():
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        else:
            from transformers import AutoTokenizer

            built = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            tokenizer = built.backend_tokenizer
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer
    except Exception as error:
        found = f"{type(error).__name__}: {error}"
    raise DataError(
        "the model's tokenizer cannot be read",
        where=str(folder),
        found=found.splitlines()[0],
        expected="tokenizer.json",
        remedy="copy the tokenizer's files into the folder",
    )


__all__ = ["Decoder", "Foreign", "LoadedModel", "load_model", "load_source", "load_tokenizer"]
