"""Masked-language modelling: windows with hidden tokens, the loss on those alone, encoders written."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import AddedToken, Tokenizer, processors
from torch import Tensor, nn

from kogata.core.errors import DataError, RecipeError
from kogata.engine.encoders import layers_of, quietly
from kogata.engine.hf_folder import copy_tokenizer, special_id, write_json
from kogata.engine.mask_costs import HELDOUT_WINDOWS
from kogata.engine.sampler import Batch, StepBatch, WindowSampler
from kogata.engine.tokens import TokenStore
from kogata.nn.optim import AdamW, Group, Matrix, Muon, Optimiser, matrices_of

MASK, PAD = "[MASK]", "[PAD]"
"""Added to a tokenizer that has none."""
EMBED_RATIO, VECTOR_RATIO = 0.43, 0.29
"""Rates of embedding and vectors beside Muon's, as in pretraining of decoders with one table."""


@dataclass(frozen=True, kw_only=True)
class Specials:
    """Ids of the special tokens that windows need."""

    mask: int
    start: int
    vocab_size: int
    """With what was added."""
    added: bool
    """Whether `[MASK]` and `[PAD]` had to be added."""


def specials_of(tokenizer: Path, vocab_size: int, end_id: int) -> Specials:
    """Finds a tokenizer's mask and start tokens; without a mask token two ids are added behind the last."""
    mask = special_id(tokenizer, "mask_token")
    start = special_id(tokenizer, "cls_token")
    start = end_id if start is None else start
    if mask is not None:
        return Specials(mask=mask, start=start, vocab_size=max(vocab_size, mask + 1), added=False)
    size = Tokenizer.from_file(str(tokenizer / "tokenizer.json")).get_vocab_size()
    return Specials(mask=size, start=start, vocab_size=max(vocab_size, size + 2), added=True)


class MaskSampler(WindowSampler):
    """Windows of `context` tokens, some of them hidden: which, is decided by window number and seed.

    Every window begins with the start token, which is never hidden.

    Args:
        specials: the ids.
        share: of the tokens that are hidden.
        more: see `WindowSampler`.
    """

    def __init__(self, *given: Any, specials: Specials, share: float, **more: Any) -> None:
        super().__init__(*given, **more)
        self.specials = specials
        self.hidden = max(1, round(share * (self.context - 1)))
        """Tokens hidden in a window."""

    def take(self, rank: int = 0, world: int = 1, progress: float = 0.0) -> StepBatch:
        """Gives the next step's batch, this process's part of it."""
        whole = super().take(rank, world, progress)
        return StepBatch(
            parts=whole.parts, count=float(self.batch * self.hidden), tokens=self.batch * self.context
        )

    def _parts(self, first: int, last: int) -> Iterator[Batch]:
        passes = max(1, -(-(last - first) // self.micro))
        for part in range(passes):
            start = first + (last - first) * part // passes
            stop = first + (last - first) * (part + 1) // passes
            if start < stop:
                yield self.window_batch(start, stop)

    def window_batch(self, first: int, last: int) -> Batch:
        """Makes the batch of windows by number: inputs with hidden tokens, targets, and what counts."""
        targets = self.read_windows(first, last)[:, : self.context]
        targets[:, 0] = self.specials.start
        weights = np.zeros(targets.shape, dtype=np.float32)
        for row, number in enumerate(range(first, last)):
            chance = np.random.default_rng([self.seed, number])
            weights[row, 1 + chance.permutation(self.context - 1)[: self.hidden]] = 1.0
        inputs = np.where(weights > 0, self.specials.mask, targets)
        return Batch(
            inputs=torch.from_numpy(inputs).to(self.device),
            targets=torch.from_numpy(targets).to(self.device),
            weights=torch.from_numpy(weights).to(self.device),
        )


class MaskedModelling:
    """Predicts the hidden tokens: head and cross-entropy work on them alone.

    Args:
        module: transformers' masked-language model.
    """

    def __init__(self, module: Any) -> None:
        self.module, self.head = module, head_of(module)

    def logits(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Gives the scores of the hidden tokens [n, V], and the tokens [n]."""
        assert batch.weights is not None
        places = batch.weights > 0
        hidden = self.module.base_model(input_ids=batch.inputs).last_hidden_state
        return self.head(hidden[places]), batch.targets[places]

    def __call__(self, batch: Batch, scale: float) -> Tensor:
        logits, targets = self.logits(batch)
        return F.cross_entropy(logits, targets, reduction="sum") * scale


def head_of(module: Any) -> Callable[[Tensor], Tensor]:
    """Gives what turns hidden vectors into scores of tokens.

    Raises:
        RecipeError: an architecture whose head is not known here.
    """
    if hasattr(module, "cls"):
        return module.cls
    if hasattr(module, "lm_head"):
        return module.lm_head
    if hasattr(module, "head") and hasattr(module, "decoder"):
        return lambda hidden: module.decoder(module.head(hidden))
    raise RecipeError(
        "this encoder's head is not known here",
        where="train.mask, slot model",
        found=str(module.config.model_type),
        expected="bert, roberta, xlm-roberta, camembert or modernbert",
    )


def new_encoder(
    family: str,
    specials: Specials,
    *,
    layers: int,
    width: int,
    heads: int,
    ffn_width: int,
    context: int,
    end_id: int,
    seed: int,
) -> Any:
    """Makes an encoder with a masked-language head at random."""
    from transformers import AutoConfig, AutoModelForMaskedLM

    pad = specials.mask + 1 if specials.added else None
    sizes: dict[str, Any] = {
        "vocab_size": specials.vocab_size,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": ffn_width,
        "max_position_embeddings": context,
        "pad_token_id": pad,
        "bos_token_id": specials.start,
        "eos_token_id": end_id,
    }
    if family == "modernbert":
        sizes |= {"cls_token_id": specials.start, "sep_token_id": end_id}
    else:
        sizes |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    torch.manual_seed(seed)
    return AutoModelForMaskedLM.from_config(AutoConfig.for_model(family, **sizes), dtype=torch.float32)


def open_windows(tokens: Path, context: int, label: str) -> TokenStore:
    """Opens the training tokens.

    Raises:
        DataError: they fill no window.
    """
    store = TokenStore.open(tokens, "train")
    if store.tokens <= context:
        raise DataError(
            "the training tokens fill no window",
            where=f"stage {label}",
            found=f"{store.tokens:,} tokens for training",
            expected=f"more than the context of {context}",
            remedy="give more text, or a smaller `context`",
        )
    return store


def given_encoder(folder: Path, specials: Specials) -> Any:
    """Loads an encoder to be trained on; a head that it lacks starts at random, on its embedding.

    Raises:
        RecipeError: its tokenizer has no mask token.
    """
    from transformers import AutoModelForMaskedLM

    more: dict[str, Any] = {"dtype": torch.float32, "use_safetensors": True, "trust_remote_code": False}
    with quietly():
        module = AutoModelForMaskedLM.from_pretrained(folder, local_files_only=True, **more)
    if specials.vocab_size > module.config.vocab_size:
        raise RecipeError(
            "the encoder's tokenizer has no mask token",
            where="train.mask, slot model",
            found=str(module.config.model_type),
            expected="a tokenizer with a mask token",
            remedy="choose an encoder that was trained by hiding tokens",
        )
    return module


def build_optimiser(module: Any, kind: str, lr: float, weight_decay: float) -> Optimiser:
    """Makes the optimiser: matrices of the layers by Muon or AdamW, the rest by AdamW."""
    named: dict[int, tuple[str, Tensor]] = {id(p): (name, p) for name, p in module.named_parameters()}
    layers = layers_of(module.base_model)
    inner = {id(p) for p in layers.parameters() if p.ndim == 2} if layers is not None else set()
    embeddings = {
        id(p) for part in module.modules() if isinstance(part, nn.Embedding) for p in part.parameters()
    }
    used = [key for key in named if not _unused(named[key][0])]
    embed = [named[key] for key in used if key in embeddings]
    rest = [named[key] for key in used if key not in embeddings and key not in inner]
    if kind == "muon":
        matrices: list[Matrix] = []
        for key in used:
            if key in inner:
                name, weight = named[key]
                matrices += matrices_of(name, weight, _rows_of(name, weight))
        groups = [Group(named=embed, lr=lr * EMBED_RATIO), Group(named=rest, lr=lr * VECTOR_RATIO)]
        muon = Muon(matrices=matrices, lr=lr, weight_decay=weight_decay)
        return Optimiser(parts={"muon": muon, "adamw": AdamW(groups=groups)})
    inside = [named[key] for key in used if key in inner]
    groups = [Group(named=inside, lr=lr, weight_decay=weight_decay), Group(named=[*embed, *rest], lr=lr)]
    return Optimiser(parts={"adamw": AdamW(groups=groups, betas=(0.9, 0.98), eps=1e-8)})


def heldout_scores(module: Any, store: TokenStore, sampler: MaskSampler) -> dict[str, Any] | None:
    """Scores hidden tokens of held-out windows, always the same ones; None where no window is filled."""
    if store.tokens <= sampler.context:
        return None
    windows = MaskSampler(
        store.ids,
        store.offsets,
        context=sampler.context,
        batch=1,
        seed=0,
        specials=sampler.specials,
        share=sampler.hidden / (sampler.context - 1),
    )
    objective, loss, right, count = MaskedModelling(module), 0.0, 0, 0
    with torch.no_grad():
        for first in range(0, min(HELDOUT_WINDOWS, windows.windows), 8):
            last = min(first + 8, HELDOUT_WINDOWS, windows.windows)
            logits, targets = objective.logits(windows.window_batch(first, last))
            loss += float(F.cross_entropy(logits, targets, reduction="sum"))
            right += int((logits.argmax(1) == targets).sum())
            count += len(targets)
    share = right / count
    return {
        "loss_nats_per_hidden_token": round(loss / count, 6),
        "accuracy": round(share, 6),
        "standard_error": round(math.sqrt(share * (1 - share) / count), 6),
        "hidden_tokens": count,
    }


def write_encoder(module: Any, out: Path, tokenizer: Path, specials: Specials, end_id: int) -> None:
    """Writes the Hugging Face folder, its tokenizer with `[MASK]` and `[PAD]` where they were added."""
    with quietly():
        module.save_pretrained(out)
    copy_tokenizer(tokenizer, out)
    if not specials.added:
        return
    made = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    made.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in (MASK, PAD)])
    assert made.token_to_id(MASK) == specials.mask, "the tokenizer numbers its tokens with gaps"
    end = made.id_to_token(end_id)
    made.post_processor = processors.Sequence(
        [
            *([made.post_processor] if made.post_processor is not None else []),
            processors.TemplateProcessing(
                single=f"{end} $A {end}", pair=f"{end} $A {end} $B {end}", special_tokens=[(end, end_id)]
            ),
        ]
    )
    made.save(str(out / "tokenizer.json"))
    path = out / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config |= {"mask_token": MASK, "pad_token": PAD, "cls_token": end, "sep_token": end}
    config["model_max_length"] = int(module.config.max_position_embeddings)
    config.pop("added_tokens_decoder", None)
    write_json(path, config)


def _unused(name: str) -> bool:
    """Tells weights that no masked-language loss reaches: a pooler."""
    return ".pooler." in name


def _rows_of(name: str, weight: Tensor) -> list[int]:
    """Parts fused matrices: ModernBERT's query, key and value, and its gate and input."""
    rows = int(weight.shape[0])
    if name.endswith("Wqkv.weight"):
        return [rows // 3] * 3
    if name.endswith("Wi.weight"):
        return [rows // 2] * 2
    return [rows]
