"""Reads the base of an adapter with its frozen matrices in the form that the memory allows.

Weights are read tensor by tensor and narrowed block by block, so that the whole model is never in memory in
float32; the file is read, not mapped, because pages of a mapped file count as the process's memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from kogata.engine.adapters import Fingerprint, fingerprint
from kogata.engine.convert import fill, load_spec, tensor_reader
from kogata.engine.finetune_costs import Hold
from kogata.engine.foreign import load_any
from kogata.engine.heap import trim
from kogata.engine.hf_config import try_spec
from kogata.engine.hf_folder import read_config
from kogata.engine.layered import Layers
from kogata.engine.load import Foreign
from kogata.engine.streamed import Stream
from kogata.nn.decoder import Block, Decoder
from kogata.nn.held import Bfloat16, HeldLinear, Int8

FORMS = {"bf16": Bfloat16, "int8": Int8}


def load_base(
    folder: Path, hold: Hold, streamed: Path | None = None, recompute: bool = False
) -> tuple[Any, str]:
    """Reads a model folder; gives the decoder and the fingerprint of its weights as they are in the file.

    Args:
        folder: the model.
        hold: how the linear layers of the blocks are held; everything else stays in float32.
        streamed: the file that `disk` writes and reads.
        recompute: of a model that only transformers can build, whether its layers are computed again.

    Raises:
        DataError: see `load_decoder`; the layers of a module of transformers are not understood.
    """
    if hold == "fp32":
        decoder = load_any(folder)
        mark = fingerprint(decoder)
        if recompute and isinstance(decoder, Foreign):
            decoder.layers = Layers(decoder.model, recompute).check()
        return decoder, mark
    stream = Stream(streamed) if streamed is not None and hold == "disk" else None
    if try_spec(read_config(folder)) is None:
        from kogata.engine.foreign_held import load_held

        return load_held(folder, *tensor_reader(folder), hold, stream, recompute)
    decoder = Decoder(load_spec(folder), seed=None)
    blocks, mark = decoder.layers(), Fingerprint()
    names, get = tensor_reader(folder)
    narrowed = 0

    def done(name: str, tensor: Tensor) -> None:
        nonlocal narrowed
        mark.add(name, tensor)
        words = name.split(".")
        below = int(words[2]) if words[:2] == ["model", "layers"] else narrowed
        while narrowed < below:
            _narrow(blocks[narrowed], hold, stream)
            narrowed += 1

    fill(decoder, names, get, str(folder), done)
    for block in blocks[narrowed:]:
        _narrow(block, hold, stream)
    return decoder, mark.digest()


def _narrow(block: Block, hold: Hold, stream: Stream | None) -> None:
    parts = [
        (part, name, layer) for part in (block.mixer, block.ffn) for name, layer in part.named_children()
    ]
    linear = [(part, name, layer) for part, name, layer in parts if isinstance(layer, nn.Linear)]
    weights = [layer.weight for _, _, layer in linear]
    held = stream.add(weights) if stream is not None else [FORMS[hold](weight) for weight in weights]
    for (part, name, layer), one in zip(linear, held, strict=True):
        setattr(part, name, HeldLinear(one, layer.bias, layer.in_features, layer.out_features))
    del parts, linear, weights
    trim()
