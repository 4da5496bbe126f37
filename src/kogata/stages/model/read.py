"""model.read: a model that exists already becomes a model artifact."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field, ValidationInfo

from kogata.core.amounts import Cost, Forecast, format_bytes
from kogata.core.artifact import Kind
from kogata.core.errors import EnvironmentProblem
from kogata.core.receipt import Machine
from kogata.core.stage import Bench, Facts, Given, Resolved, Share, Stage

if TYPE_CHECKING:
    from kogata.engine.sources import Source

START_SECONDS = 2.5
"""Importing torch and what reads models."""
READ_BYTES_PER_SECOND = 150e6
"""Of float32 weights read, widened, written and sealed."""
DEQUANTISE_BYTES_PER_SECOND = 250e6
"""Of float32 weights made from a GGUF file's blocks, on top."""
BASE_BYTES = 420 * 2**20
"""Memory of a process with torch, before any model."""


def _place(name: str, info: ValidationInfo) -> str:
    """Makes a path absolute where one is meant: written as a path, or lying beside the recipe."""
    folder = Path((info.context or {}).get("folder") or ".")
    written = name.startswith((".", "~", "/")) or name.endswith(".gguf") or Path(name).is_absolute()
    if written or (folder / name).is_dir():
        return str((folder / Path(name).expanduser()).resolve())
    return name


ModelName = Annotated[str, AfterValidator(_place), "input_path"]


class Read(Stage):
    """Reads a model that exists: from a folder, a GGUF file, the Hugging Face hub, or a Python package.

    Takes a Hugging Face folder, the folder of a run, a .gguf file, a hub name such as
    `HuggingFaceTB/SmolLM2-135M`, or the short names `smollm2` and `minilm` of models that Python packages
    carry. The plan reads only the config and the head of the weights. Only safetensors and GGUF are opened,
    never a pickle, and no code that comes with a model is run.

    Weights become float32, GGUF blocks are dequantised. Models of the families llama, qwen2, qwen3, smollm3,
    arcee, gemma3, lfm2 and qwen3_5 (of text alone) run on Kogata's own decoder; others are kept as they are
    and run through transformers.

    Pays when: a model for your language exists: adapting one costs far less than training one.
    Hurts when: the model is larger than the memory you can give it: float32 takes 4 bytes a parameter.
    Cost: the download, then about 1 s for 150 MB of float32 weights; memory 4 bytes a parameter and 0.3 GiB.
    Source: Kogata; logits equal transformers' (float32, largest difference below 1e-4, in the tests).
    Measured here: not yet measured.
    """

    makes = Kind.MODEL
    imports_torch = True

    name: ModelName = Field(
        description="folder, run folder, .gguf file, hub name owner/model, `smollm2` or `minilm`"
    )
    revision: str | None = Field(
        default=None,
        description="branch, tag or commit on the hub; by default the newest of main, pinned when planned",
    )

    def resolve(self, facts: Mapping[str, Facts | None], machine: Machine, share: Share) -> Resolved:
        """Pins what the name means now: the hub's commit, or the package's version."""
        source = self._source()
        _check_disk(source)
        if source.revision is None or source.revision == self.revision:
            return Resolved(stage=self)
        what = "the commit that" if source.kind == "hub" else "the installed version that"
        meant = self.revision or ("main" if source.kind == "hub" else self.name)
        pinned = self.model_copy(update={"revision": source.revision})
        return Resolved(stage=pinned, reasons={"revision": f"{what} {meant} is now"})

    def forecast(self, facts: Mapping[str, Facts | None], machine: Machine, share: Share) -> Forecast:
        """Counts from the config and the head of the weights; a download's time is not in it."""
        source = self._source()
        size = _written_bytes(source)
        seconds = START_SECONDS + size / READ_BYTES_PER_SECOND
        if source.kind == "gguf":
            seconds += size / DEQUANTISE_BYTES_PER_SECOND
        seconds = machine.paced(seconds)
        peak = BASE_BYTES + (round(1.12 * size) if source.spec is not None else 0)
        return Forecast(
            facts=_facts(source, None if source.kind == "gguf" else source.path),
            cost=Cost(
                seconds=seconds,
                cpu_seconds=seconds,
                joules=machine.joules(seconds),
                peak_bytes=peak,
                size_bytes=size,
            ),
            disk_bytes=size + source.download_bytes,
        )

    def run(self, given: Given, bench: Bench) -> Facts:
        """Downloads where needed, then writes the Hugging Face folder."""
        from kogata.engine.convert import load_decoder, save_decoder
        from kogata.engine.gguf_read import convert_gguf
        from kogata.engine.hf_folder import copy_model
        from kogata.engine.model_hub import download

        source = self._source()
        if source.kind == "gguf":
            assert source.path is not None
            bench.log(f"{self.name}: dequantising {format_bytes(source.weight_bytes)}")
            convert_gguf(source.path, bench.out)
        else:
            if source.download_bytes:
                bench.log(f"{self.name}: downloading {format_bytes(source.download_bytes)}")
            folder = download(source)
            if source.spec is not None:
                save_decoder(load_decoder(folder), bench.out, tokenizer_files_from=folder)
            else:
                copy_model(folder, bench.out)
        return _facts(source, bench.out)

    def _source(self) -> Source:
        from kogata.engine.sources import find_model

        return find_model(self.name, self.revision)


def _written_bytes(source: Source) -> int:
    vocabulary = 4 * 2**20
    return vocabulary + (4 * source.parameters if source.spec is not None else source.weight_bytes)


def _facts(source: Source, folder: Path | None) -> Facts:
    from kogata.engine.foreign_shape import shape_of
    from kogata.engine.sources import end_id_of

    facts: dict[str, Any] = {
        "spec": source.spec.to_dict() if source.spec else None,
        "architecture": source.architecture,
        "role": source.role,
        "parameters": source.parameters,
        "vocab_size": source.spec.vocab_size if source.spec else source.config.get("vocab_size"),
        "context": source.context,
        "shape": None if source.spec or source.role != "decoder" else shape_of(source.config),
        "tokenizer_digest": None,
        "end_id": end_id_of(source, folder),
        "source": None if Path(source.name).is_absolute() else source.name,
        "revision": source.revision,
        "training": {},
    }
    if source.role == "encoder":
        names = {"width": "hidden_size", "layers": "num_hidden_layers", "ffn_width": "intermediate_size"}
        facts["encoder"] = {name: source.config.get(field) for name, field in names.items()}
    if folder is not None and (folder / "tokenizer.json").is_file():
        from kogata.engine.tokens import tokenizer_digest

        facts["tokenizer_digest"] = tokenizer_digest(folder)
    return facts


def _check_disk(source: Source) -> None:
    if not source.download_bytes:
        return
    import shutil

    from kogata.engine.model_hub import cache_folder

    place = cache_folder()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < source.download_bytes * 1.02:
        raise EnvironmentProblem(
            "too little disk for the download",
            where=f"{source.name} → {place}",
            found=f"{format_bytes(free)} free",
            expected=f"{format_bytes(source.download_bytes)}",
            remedy="free some space, or set HF_HOME to another disk",
        )
