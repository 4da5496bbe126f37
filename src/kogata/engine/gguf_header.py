"""The head of a GGUF file: its settings and where its tensors lie. Reads no weight and imports no torch."""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kogata.core.errors import DataError
from kogata.nn.spec import FAMILIES, ModelSpec

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True)
class TensorPlace:
    """One tensor in a GGUF file."""

    name: str
    shape: tuple[int, ...]
    """As numpy and torch write it: rows first."""
    type_id: int
    """ggml's number of its format."""
    offset: int
    """Bytes from the start of the file."""


@dataclass(frozen=True)
class GgufHeader:
    """Settings and tensors of a GGUF file."""

    path: Path
    settings: dict[str, Any]
    tensors: dict[str, TensorPlace]

    @property
    def architecture(self) -> str:
        """llama.cpp's name of the graph."""
        return str(self.settings.get("general.architecture"))

    def of_architecture(self, name: str, default: Any = None) -> Any:
        """Gives a setting that stands under the architecture's name."""
        return self.settings.get(f"{self.architecture}.{name}", default)


class _Reader:
    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.at = data, 0

    def number(self, code: str) -> Any:
        size = struct.calcsize("<" + code)
        (value,) = struct.unpack_from("<" + code, self.data, self.at)
        self.at += size
        return value

    def text(self) -> str:
        length = self.number("Q")
        if self.at + length > len(self.data):
            raise struct.error("a text reaches beyond the end of the file")
        raw = self.data[self.at : self.at + length]
        self.at += length
        return raw.decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            return self.number(_SCALARS[kind])
        inner, count = self.number("I"), self.number("Q")
        if count > len(self.data):
            raise struct.error("a list reaches beyond the end of the file")
        if inner in (_STRING, _ARRAY):
            return [self.value(inner) for _ in range(count)]
        code = f"<{count}{_SCALARS[inner]}"
        values = list(struct.unpack_from(code, self.data, self.at))
        self.at += struct.calcsize(code)
        return values


def read_header(path: str | Path) -> GgufHeader:
    """Reads the head of a GGUF file.

    Raises:
        DataError: the file is missing, is no GGUF file of version 2 or 3, or is cut off.
    """
    path = Path(path)
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if data[:4] != b"GGUF":
                raise _bad(path, f"the bytes {data[:4]!r} at the start", "the bytes b'GGUF'")
            reader = _Reader(data)
            reader.at = 4
            version = reader.number("I")
            if version not in (2, 3):
                raise _bad(path, f"version {version}", "version 2 or 3, little-endian")
            return _read(path, reader)
    except FileNotFoundError:
        raise DataError("no such file", where=str(path), expected="a .gguf file") from None
    except (struct.error, KeyError, ValueError) as error:
        raise _bad(path, f"{type(error).__name__}: {error}", "a whole GGUF file") from None


def _read(path: Path, reader: _Reader) -> GgufHeader:
    tensor_count, setting_count = reader.number("Q"), reader.number("Q")
    settings: dict[str, Any] = {}
    for _ in range(setting_count):
        key = reader.text()
        settings[key] = reader.value(reader.number("I"))
    found = []
    for _ in range(tensor_count):
        name = reader.text()
        shape = tuple(reader.number("Q") for _ in range(reader.number("I")))[::-1]
        found.append((name, shape, reader.number("I"), reader.number("Q")))
    align = int(settings.get("general.alignment", 32))
    start = -(-reader.at // align) * align
    tensors = {name: TensorPlace(name, shape, kind, start + offset) for name, shape, kind, offset in found}
    return GgufHeader(path, settings, tensors)


def spec_from_gguf(header: GgufHeader) -> ModelSpec:
    """Reads the shape of a model from a GGUF head.

    Raises:
        DataError: our decoder cannot express it; the message names the setting.
    """
    family = header.architecture
    if family not in FAMILIES:
        raise _not_ours(header, "general.architecture", family, " | ".join(FAMILIES))
    sizes = {
        "layers": "block_count",
        "width": "embedding_length",
        "heads": "attention.head_count",
        "ffn_width": "feed_forward_length",
        "context": "context_length",
    }
    values: dict[str, Any] = {name: header.of_architecture(key) for name, key in sizes.items()}
    for name, key in sizes.items():
        if not isinstance(values[name], int):
            raise _not_ours(header, f"{family}.{key}", repr(values[name]), "one whole number for all layers")
    head_dim = header.of_architecture("attention.key_length", values["width"] // values["heads"])
    turned = header.of_architecture("rope.dimension_count", head_dim)
    if turned != head_dim:
        raise _not_ours(header, f"{family}.rope.dimension_count", str(turned), f"the whole head, {head_dim}")
    # llama.cpp leaves positions out of every fourth layer of smollm3; the file does not say so.
    rope_layers = None
    if family == "smollm3":
        rope_layers = tuple((layer + 1) % 4 != 0 for layer in range(values["layers"]))
    return ModelSpec.of_family(
        family,
        **values,
        kv_heads=header.of_architecture("attention.head_count_kv", values["heads"]),
        head_dim=head_dim,
        vocab_size=header.tensors["token_embd.weight"].shape[0],
        tied="output.weight" not in header.tensors,
        rope_theta=float(header.of_architecture("rope.freq_base", 10000.0)),
        rope_layers=rope_layers,
        rope_scaling=_scaling(header, head_dim),
        # Written as float32: the nearest short decimal is what the model was trained with.
        norm_eps=float(f"{header.of_architecture('attention.layer_norm_rms_epsilon', 1e-5):.6g}"),
    )


def _scaling(header: GgufHeader, head_dim: int) -> dict[str, Any] | None:
    family, kind = header.architecture, header.of_architecture("rope.scaling.type", "none")
    if "rope_freqs.weight" in header.tensors:
        return _llama3_scaling(header, head_dim)
    if kind == "none":
        return None
    factor = header.of_architecture("rope.scaling.factor")
    if kind == "linear" and factor:
        return {"rope_type": "linear", "factor": float(factor)}
    if kind == "yarn" and factor:
        scaling = {"rope_type": "yarn", "factor": float(factor)}
        original = header.of_architecture("rope.scaling.original_context_length")
        return scaling | ({"original_max_position_embeddings": int(original)} if original else {})
    raise _not_ours(header, f"{family}.rope.scaling.type", str(kind), "none | linear | yarn")


def _llama3_scaling(header: GgufHeader, head_dim: int) -> dict[str, Any]:
    """Finds the settings of Llama 3's scaling behind llama.cpp's table of divisors, one a pair of a head.

    A pair that turns less than once within the original context is divided by the factor, one that turns
    more than four times by 1, those between by a mean of both. Any other table is refused.
    """
    place = header.tensors["rope_freqs.weight"]
    pairs = head_dim // 2
    theta = float(header.of_architecture("rope.freq_base", 10000.0))
    plain = [theta ** (-2 * pair / head_dim) for pair in range(pairs)]
    table: tuple[float, ...] = ()
    if place.type_id == 0 and place.shape == (pairs,):
        with header.path.open("rb") as file:
            file.seek(place.offset)
            table = struct.unpack(f"<{pairs}f", file.read(4 * pairs))
    factor = max(table, default=1.0)
    between = [pair for pair, value in enumerate(table) if 1.001 < value < factor * 0.999]
    if between:
        pair = between[0]
        share = (1 / table[pair] - 1 / factor) / (1 - 1 / factor)
        original = round((1 + 3 * share) * 2 * math.pi / plain[pair])
        shares = [min(1.0, max(0.0, (original * turn / (2 * math.pi) - 1) / 3)) for turn in plain]
        expected = [1 / (share + (1 - share) / factor) for share in shares]
        if all(math.isclose(a, b, rel_tol=1e-3) for a, b in zip(table, expected, strict=True)):
            return {
                "rope_type": "llama3",
                "factor": float(factor),
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": original,
            }
    raise _not_ours(header, "rope_freqs.weight", "a table of frequencies not Llama 3's", "Llama 3's, or none")


def _not_ours(header: GgufHeader, setting: str, found: str, expected: str) -> DataError:
    return DataError(
        "our decoder cannot express this GGUF file",
        where=f"{header.path}: {setting}",
        found=found,
        expected=expected,
    )


def _bad(path: Path, found: str, expected: str) -> DataError:
    return DataError("not a GGUF file that can be read", where=str(path), found=found, expected=expected)
