"""Who trains what: matrices of the blocks by Muon (or AdamW), embedding, head and vectors by AdamW."""

from __future__ import annotations

from torch import Tensor, nn

from kogata.nn.decoder import Decoder
from kogata.nn.norm import AfterNorm
from kogata.nn.optim import AdamW, Group, Matrix, Muon, Optimiser, matrices_of

MUON_LR = 0.014
NORMUON_ROWS = 0.95
ADAMW_LR = 0.004  # The other rates were found beside this one; `auto` takes half of it, and so of them all.
"""Learning rates of the blocks' matrices that `auto` stands for, at 1,024 tokens a step."""
EMBED_LR, HEAD_LR = 0.01, 0.004
"""Of embedding and head that start at random, beside the matrices' usual one."""
CORPUS_EMBED_LR, CORPUS_HEAD_LR = 0.001, 0.0002
"""The same when both start from the corpus's statistics: they already know most of what they can."""
TIED_LR = 0.006
VECTOR_LR = 0.004
CONTINUED = 0.25
"""A model that was trained before is trained on at this part of the rates."""


def build_optimiser(
    decoder: Decoder,
    kind: str = "muon",
    *,
    lr: float | None = None,
    weight_decay: float = 0.0,
    corpus_start: bool = False,
    continued: bool = False,
    tables_every: int = 1,
) -> Optimiser:
    """Makes the optimiser of a whole decoder.

    Args:
        decoder: whose weights are trained; those that need no gradient are left out.
        kind: `muon`, `normuon` or `adamw`.
        lr: of the blocks' matrices; the other rates keep their ratio to it. None takes the usual one.
        weight_decay: of the blocks' matrices, a share per unit of learning rate.
        corpus_start: embedding and head were set from the corpus's statistics.
        continued: the model was trained before.
        tables_every: steps from one update of the untied head to the next. Its rate grows with their root, as
            rates do with the batch: fewer updates then reach as far, through the same noise.
    """
    usual = ADAMW_LR if kind == "adamw" else MUON_LR
    base = usual * (CONTINUED if continued else 1.0) if lr is None else lr
    ratio = base / usual
    matrices, vectors = split_parameters(decoder)
    embed, head = (CORPUS_EMBED_LR, CORPUS_HEAD_LR) if corpus_start else (EMBED_LR, HEAD_LR)
    # Rows that are multiplied after the lookup are smaller by that, and so are their steps.
    embed /= decoder.spec.embed_scale
    if decoder.head is None:
        assert tables_every == 1, "a tied table is the embedding too, which every step moves"
        groups = [Group(named=_alive([("embed.weight", decoder.embed.weight)]), lr=TIED_LR * ratio)]
    else:
        groups = [
            Group(named=_alive([("embed.weight", decoder.embed.weight)]), lr=embed * ratio),
            Group(
                named=_alive([("head.weight", decoder.head.weight)]),
                lr=head * ratio * tables_every**0.5,
                every=tables_every,
            ),
        ]
    groups.append(Group(named=vectors, lr=VECTOR_LR * ratio))
    if kind != "adamw":
        rows = NORMUON_ROWS if kind == "normuon" else 0.0
        muon = Muon(matrices=matrices, lr=base, weight_decay=weight_decay, rows=rows)
        parts: dict[str, Muon | AdamW] = {"muon": muon}
    else:
        parts = {}
        named = {matrix.name: matrix.parameter for matrix in matrices}
        groups.insert(0, Group(named=list(named.items()), lr=base, weight_decay=weight_decay))
    parts["adamw"] = AdamW(groups=[group for group in groups if group.named])
    return Optimiser(parts=parts)


def split_parameters(decoder: Decoder) -> tuple[list[Matrix], list[tuple[str, Tensor]]]:
    """Parts the blocks' weights (and the last norm) into matrices, fused ones cut, and vectors."""
    matrices: list[Matrix] = []
    vectors: list[tuple[str, Tensor]] = []
    for layer, block in enumerate(decoder.layers()):
        rows: dict[str, list[int]] = {}
        for part in ("mixer", "ffn"):
            cuts = getattr(block, part).parts()
            rows |= {f"{part}.{name}.weight": list(sizes.values()) for name, sizes in cuts.items()}
        for name, weight in block.named_parameters():
            if not weight.requires_grad:
                continue
            full = f"blocks.{layer}.{name}"
            if weight.ndim == 2:
                matrices += matrices_of(full, weight, rows.get(name, [weight.shape[0]]))
            else:
                vectors.append((full, weight))
    vectors += _alive([("norm.weight", decoder.norm.weight)])
    if decoder.mask is not None:
        vectors += _alive([("mask", decoder.mask)])
    if decoder.added is not None:
        vectors += _alive([(f"added.{name}", weight) for name, weight in decoder.added.named_parameters()])
    # What stands beside the blocks: the changes of loops, and what widens narrow embeddings.
    for name, weight in decoder.named_parameters():
        if (name.startswith("loops.") or ".widen." in name) and weight.requires_grad:
            matrices += matrices_of(name, weight, [weight.shape[0]])
    return matrices, vectors


def hold_gains(decoder: Decoder) -> None:
    """Keeps the gains of the norms before mixers, feed-forward parts and head at one: the matrices behind
    them can say the same, and a step is cheaper. Gains of queries and keys are trained."""
    for module in decoder.modules():
        if not isinstance(module, nn.RMSNorm) or isinstance(module, AfterNorm):
            continue
        if module.normalized_shape[0] == decoder.spec.width:
            module.weight.requires_grad_(False)


def _alive(named: list[tuple[str, Tensor]]) -> list[tuple[str, Tensor]]:
    return [(name, weight) for name, weight in named if weight.requires_grad]
