"""What bench_long.py measures on: specs of a pattern, one training step, and associative recall."""

from __future__ import annotations

import time
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kogata.engine.optimisers import build_optimiser, hold_gains
from kogata.nn.decoder import Decoder
from kogata.nn.fused import FusedHidden, fits
from kogata.nn.kernels import Kernels
from kogata.nn.losses import linear_cross_entropy
from kogata.nn.mixers import read_pattern
from kogata.nn.spec import ModelSpec

VOCAB = 4096
LAYERS, WIDTH, HEADS, FFN_WIDTH = 8, 256, 4, 704


def spec_of(pattern: list[Any], context: int, **more: Any) -> ModelSpec:
    """Makes the spec of a pattern, of our own family."""
    sizes = {"vocab_size": VOCAB, "layers": LAYERS, "width": WIDTH, "heads": HEADS, "ffn_width": FFN_WIDTH}
    sizes |= {"tied": False, **more}
    mixers, settings = read_pattern(pattern, sizes["layers"])
    return ModelSpec.of_family("kogata", context=context, mixers=mixers, mixer_settings=settings, **sizes)


class Step:
    """Forward and backward pass of some sequences, as pretraining computes them."""

    def __init__(self, spec: ModelSpec, rows: int, tokens: int, kernels: Kernels | None) -> None:
        self.decoder = Decoder(spec, seed=0)
        hold_gains(self.decoder)
        self.kernels = kernels
        fused = kernels is not None and fits(self.decoder)
        self.hidden = FusedHidden(self.decoder, kernels) if kernels and fused else self.decoder.hidden
        generator = torch.Generator().manual_seed(0)
        self.ids = torch.randint(0, spec.vocab_size, (rows, tokens), generator=generator)

    def seconds(self) -> float:
        """Takes one step and says how long it took."""
        began = time.perf_counter()
        for parameter in self.decoder.parameters():
            parameter.grad = None
        hidden, weight = self.decoder.for_head(self.hidden(self.ids))
        scale = 1 / self.ids.numel()
        linear_cross_entropy(hidden, weight, self.ids, scale=scale, kernels=self.kernels).backward()
        return time.perf_counter() - began


def tensors_of(value: Any) -> list[Tensor]:
    """Lists the tensors of a mixer's state."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, list):
        inner = value
    else:
        inner = list((value if isinstance(value, dict) else getattr(value, "__dict__", {})).values())
    return [tensor for one in inner for tensor in tensors_of(one)]


KEYS = VALUES = 32
FILLERS = 16
LEVELS = ((4, 16), (8, 32))
"""Pairs and fillers of the sequences trained on first, and of those trained on then and measured on."""
RECALL_TOKENS = 4 * LEVELS[-1][0] + LEVELS[-1][1]
RECALL_WINDOW = 8


def recall_batch(rows: int, generator: torch.Generator, level: int = -1) -> tuple[Tensor, Tensor]:
    """Draws sequences for multi-query associative recall (Zoology, arXiv 2312.04927, section 4).

    Pairs of a key and a value, then fillers, then every key again in another order, each followed by its
    value. Gives ids [rows, T] and whether the next token is a value that has to be recalled.
    """
    pairs_of, gap = LEVELS[level]
    keys = torch.rand(rows, KEYS, generator=generator).argsort(1)[:, :pairs_of]
    values = KEYS + torch.randint(0, VALUES, (rows, pairs_of), generator=generator)
    fill = KEYS + VALUES + torch.randint(0, FILLERS, (rows, gap), generator=generator)
    order = torch.rand(rows, pairs_of, generator=generator).argsort(1)
    pairs = torch.stack([keys, values], 2)
    asked = pairs.gather(1, order[..., None].expand_as(pairs))
    ids = torch.cat([pairs.flatten(1), fill, asked.flatten(1)], 1)
    wanted = torch.zeros_like(ids, dtype=torch.bool)
    wanted[:, 2 * pairs_of + gap :: 2] = True
    return ids, wanted


def recall(pattern: list[Any], steps: int, rows: int, lr: float, seed: int) -> dict[str, Any]:
    """Trains a small model on recall and gives the share of values it then recalls on new sequences.

    A third of the steps at most are on shorter sequences, from which all patterns learn sooner; it ends early
    once it is perfect on two looks in a row.
    """
    spec = spec_of(
        pattern, RECALL_TOKENS, vocab_size=KEYS + VALUES + FILLERS, layers=2, width=64, heads=2, ffn_width=128
    )
    decoder = Decoder(spec, seed=seed)
    hold_gains(decoder)
    optimiser = build_optimiser(decoder, "adamw", lr=lr)
    generator, fresh = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(1000 + seed)
    began, perfect, found, step, level = time.perf_counter(), 0, 0.0, 0, 0
    while step < steps:
        ids, wanted = recall_batch(rows, generator, level)
        chosen = wanted[:, :-1]
        logits = decoder.logits(decoder.hidden(ids[:, :-1])[chosen])
        F.cross_entropy(logits, ids[:, 1:][chosen]).backward()
        torch.nn.utils.clip_grad_norm_(optimiser.parameters(), 1.0)
        optimiser.step(min(1.0, (step + 1) / 50, 2.5 * (1 - step / steps)), step / steps)
        optimiser.clear()
        step += 1
        if step % 50 == 0 or step == steps:
            if level == 0 and (step >= steps // 3 or recalled(decoder, fresh, level=0) >= 0.95):
                level = 1
            found = recalled(decoder, fresh)
            perfect = perfect + 1 if found >= 0.999 else 0
            if perfect == 2:
                break
    seconds = time.perf_counter() - began
    return {"recall": recalled(decoder, fresh, 512), "steps": step, "seconds": seconds, "seed": seed}


@torch.no_grad()
def recalled(decoder: Decoder, generator: torch.Generator, rows: int = 64, level: int = -1) -> float:
    """Gives the share of values that are the likeliest token where they are asked for."""
    ids, wanted = recall_batch(rows, generator, level)
    chosen = wanted[:, :-1]
    best = decoder.logits(decoder.hidden(ids[:, :-1])[chosen]).argmax(-1)
    return float((best == ids[:, 1:][chosen]).double().mean())
