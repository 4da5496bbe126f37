"""Files that others can run."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from kogata.core.amounts import Bytes, Cost, Forecast, format_bytes
from kogata.core.artifact import Artifact, Kind
from kogata.core.errors import EnvironmentProblem, RecipeError, Refused, Stopped
from kogata.core.receipt import Machine
from kogata.core.registry import suggest
from kogata.core.stage import Bench, Facts, Given, Resolved, Share, Slot, Stage, one

SCORED_BYTES, LARGE_SCORED_BYTES = 40_000, 12_000
LARGE_PARAMETERS = 30e6


def _formats(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class Export(Stage):
    """Writes the model in formats that others load, and scores each file in its own runtime.

    `hf` is a folder that plain transformers loads; `gguf-f32`, `gguf-f16` and `gguf-q8_0` are files for
    llama.cpp. A file whose bits per byte rise above the model's by more than its tolerance is refused: so a
    file that loads but computes something else is never handed out. An adapter is merged into the model,
    the merged model compared with model and adapter; the adapter itself lies beside it as peft reads it.
    Of a chat model with a GGUF file, a Modelfile tells Ollama its template and where an answer stops.

    Pays when: the model leaves Kogata.
    Hurts when: never, but each format costs its bytes on disk.
    Cost: seconds for small models: the bytes are written once, and some 40 kB of text is scored per file.
    Source: the formats of transformers and llama.cpp.
    Measured here: not yet measured.
    """

    takes = {
        "model": Slot(kinds=(Kind.MODEL,)),
        "corpus": Slot(kinds=(Kind.CORPUS,), optional=True),
        "adapter": Slot(kinds=(Kind.ADAPTER,), optional=True),
        "examples": Slot(kinds=(Kind.EXAMPLES,), optional=True),
    }
    makes = Kind.BUNDLE
    imports_torch = True

    formats: Annotated[list[str], BeforeValidator(_formats)] = Field(
        default=["hf", "gguf-q8_0"],
        description="what to write: hf, gguf-f32, gguf-f16, gguf-q8_0; []: an adapter alone",
    )
    tolerance: float | Literal["auto"] = Field(
        default="auto",
        description="how much a file's bits per byte may rise above the model's; auto: 0.001 for hf, 0.005 "
        "for gguf-f32 and gguf-f16, 0.02 for gguf-q8_0",
    )
    scored_bytes: Literal["auto"] | Bytes = Field(
        default="auto", description="bytes of held-out text each file is scored on at most; auto: 40kB"
    )

    @field_validator("formats")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        from kogata.engine.export._common import format_names

        names = format_names()
        for name in value:
            if name not in names:
                near = suggest(name, names)
                hint = f"; did you mean {near!r}?" if near else ""
                raise ValueError(f"unknown format {name!r}; expected one of {', '.join(names)}{hint}")
        return list(dict.fromkeys(value))

    @field_validator("tolerance")
    @classmethod
    def _some(cls, value: float | str) -> float | str:
        if not isinstance(value, str) and not 0 <= value < math.inf:
            raise ValueError(f"found {value}; a tolerance is 0 or more bits per byte")
        return value

    def resolve(self, facts: Mapping[str, Facts | None], machine: Machine, share: Share) -> Resolved:
        """Refuses what a format cannot hold, and chooses how much text each file is scored on."""
        from kogata.engine.export._common import get_format
        from kogata.engine.finetune._common import refuse_merge

        model, corpus, adapter = facts["model"], facts.get("corpus"), facts.get("adapter")
        assert model is not None
        if not self.formats and adapter is None:
            raise RecipeError(
                "export has nothing to write",
                where="formats of export",
                found="[], and no adapter",
                expected="at least one format",
            )
        if self.formats and adapter is not None:
            refuse_merge(
                adapter.get("method"),
                "formats of export",
                "`formats: []` hands on the adapter alone; evaluate and `kogata chat` use it with its model",
            )
        for name in self.formats:
            why = get_format(name).refuse(model) if model.get("parameters") is not None else None
            if why:
                raise RecipeError(
                    f"{name} cannot hold this model",
                    where="formats of export",
                    found=why,
                    expected="another format, for example hf",
                )
        reasons: dict[str, str] = {}
        if self.tolerance == "auto":
            allowed = ", ".join(f"{get_format(name).tolerance:g} for {name}" for name in self.formats)
            reasons["tolerance"] = f"what rounding explains: {allowed}"
        if self.scored_bytes != "auto":
            return Resolved(stage=self, reasons=reasons)
        large = (model.get("parameters") or 0) > LARGE_PARAMETERS
        chosen = LARGE_SCORED_BYTES if large else SCORED_BYTES
        few = f"{format_bytes(chosen)} a file: a check, no measurement"
        if _reads_only(model):
            few = f"a model of the role {model['role']} writes no text"
        reasons["scored_bytes"] = few if corpus or _reads_only(model) else "no text to score on"
        return Resolved(stage=self.model_copy(update={"scored_bytes": chosen}), reasons=reasons)

    def forecast(self, facts: Mapping[str, Facts | None], machine: Machine, share: Share) -> Forecast:
        """Counts the bytes to write and the tokens to score."""
        from kogata.engine import inference_costs as costs
        from kogata.engine.export._common import get_format

        model, corpus = facts["model"], facts.get("corpus")
        assert model is not None
        sizes = {name: get_format(name).forecast_bytes(model) for name in self.formats}
        known = [size for size in sizes.values() if size is not None]
        text = 0
        if corpus and not _reads_only(model):
            most = self.scored_bytes if isinstance(self.scored_bytes, int) else SCORED_BYTES
            text = min((corpus.get("splits") or {}).get("heldout", {}).get("bytes", 0), most)
        language = (corpus or {}).get("language_hint")
        tokens = text / costs.bytes_per_token(model.get("vocab_size"), language)
        window = min(model.get("context") or 256, 256)
        seconds = machine.paced(0.2 + sum(known) / costs.WRITE_BYTES_PER_SECOND)
        if tokens:
            seconds += machine.paced(costs.load_seconds(model))
            seconds += costs.read_seconds(model, tokens, window, machine)
        for name in self.formats:
            runtime = get_format(name).runtime
            if runtime == "llama.cpp":
                seconds += machine.paced(costs.LLAMA_WRITE_SECONDS * (model.get("vocab_size") or 0) / 1e5)
            if tokens:
                seconds += costs.runtime_seconds(runtime, model, tokens, window, machine)
        cost = Cost(
            seconds=seconds,
            cpu_seconds=seconds * 1.2,
            joules=machine.joules(seconds),
            tokens=int(tokens) * (len(self.formats) + 1),
            flops=tokens * (len(self.formats) + 1) * costs.forward_flops(model, window),
            peak_bytes=costs.read_bytes(model, 4096) + 4 * int(model.get("parameters") or 0),
            size_bytes=max(known) if known else None,
        )
        return Forecast(facts={}, cost=cost, disk_bytes=sum(known))

    def run(self, given: Given, bench: Bench) -> Facts:
        """Writes each format, weighs it, scores it."""
        from kogata.engine import evaluate as engine
        from kogata.engine.export._common import get_format

        model, corpus = one(given, "model"), given.get("corpus")
        adapter = given.get("adapter")
        if adapter is not None and self.formats:
            model = _merged(model, adapter, bench)
        unread = _reads_only(model.facts) or not self.formats
        texts = [] if unread else self._texts(corpus, given.get("examples"))
        window = engine.default_window(model.facts.get("context"))
        size = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
        own, ids, end_id = _own_score(model, texts, window) if texts else (None, [], None)
        files: dict[str, Facts] = {}
        for at, name in enumerate(self.formats):
            if bench.stopping():
                raise Stopped("stopped while exporting", remedy="the same command starts the export again")
            bench.progress(at, len(self.formats), unit="files")
            form = get_format(name)
            place = bench.out / form.place
            written = form.write(model.path, place, {"model": model.facts, "corpus": corpus and corpus.facts})
            for note in written.notes:
                bench.log(f"{name}: {note}")
            row: Facts = {
                "format": name,
                "bytes": sum(item.stat().st_size for item in written.files),
                "largest_file": max((item.stat().st_size for item in written.files), default=0),
                "runtime": form.runtime,
                "bits_per_byte": None,
                "scored_bytes": 0,
                "notes": written.notes,
            }
            _within_size(form.place, row["largest_file"], bench.share.size_bytes)
            if texts and own is not None:
                try:
                    scored = form.score(place, texts, end_id=end_id, window=window)
                except EnvironmentProblem as problem:
                    row["notes"] = [*row["notes"], f"not scored: {problem.what} ({problem.found})"]
                    bench.log(f"{name}: {row['notes'][-1]}")
                    files[form.place] = row
                    continue
                row["bits_per_byte"] = scored.loss / math.log(2) / size
                row["scored_bytes"], row["rise"] = size, row["bits_per_byte"] - own
                row["same_token_ids"] = scored.ids == ids
                self._within_tolerance(form, row, own)
                bench.count(tokens=scored.tokens)
            said = (
                f", {row['bits_per_byte']:.3f} bits per byte in {form.runtime}" if row["scored_bytes"] else ""
            )
            bench.log(f"{name}: {format_bytes(row['bytes'])}{said}")
            files[form.place] = row
        if adapter is not None:
            files["adapter"] = _copied(adapter.path, bench.out / "adapter")
        _write_modelfile(model.path, [place for place in files if place.endswith(".gguf")], bench)
        found = {"files": files, "model_bits_per_byte": own, "scored_bytes": size, "window": window}
        text = json.dumps(found, ensure_ascii=False, indent=1)
        (bench.out / "files.json").write_text(text + "\n", encoding="utf-8")
        return found

    def _texts(self, corpus: Any, examples: Any) -> list[str]:
        from kogata.engine.evaluate import sample_texts
        from kogata.engine.examples import read_examples
        from kogata.engine.text import read_corpus

        limit = self.scored_bytes if isinstance(self.scored_bytes, int) else SCORED_BYTES
        if corpus is not None:
            texts = (document.text for document in read_corpus(corpus.path, "heldout"))
        elif examples is not None:
            texts = ("\n".join(row.texts()) for row in read_examples(examples.path, "heldout"))
        else:
            return []
        return sample_texts(texts, limit)[0]

    def _within_tolerance(self, form: Any, row: Facts, own: float) -> None:
        allowed = form.tolerance if self.tolerance == "auto" else self.tolerance
        if row["rise"] > allowed or not math.isfinite(row["bits_per_byte"]):
            raise Refused(
                f"{row['format']} loses more than its tolerance",
                where=form.place,
                found=f"{row['bits_per_byte']:.4f} bits per byte in {form.runtime}, {row['rise']:+.4f}"
                + ("" if row["same_token_ids"] else "; its token ids differ from the model's"),
                expected=f"at most {own:.4f} {allowed:+g}",
                remedy="export a wider format, or raise `tolerance` of export",
            )


def _reads_only(model: Facts) -> bool:
    """Says whether a model reads text and writes none: an encoder, a classifier, a tagger."""
    return model.get("role") in ("encoder", "classifier", "tagger")


def _merged(model: Artifact, adapter: Artifact, bench: Bench) -> Artifact:
    """Merges an adapter into its base beside the bundle, checked."""
    from kogata.engine.adapters import merged_folder

    folder = bench.checkpoints / "merged"
    gap = merged_folder(model.path, adapter.path, folder)
    bench.log(f"adapter merged: logits differ by {gap:.1e} of their size")
    facts = {**model.facts, "training": adapter.facts.get("training") or {}}
    return replace(model, path=folder, facts=facts)


def _write_modelfile(model: Path, places: list[str], bench: Bench) -> None:
    """Writes what Ollama needs beside a GGUF file of a chat model; of several files the smallest is meant."""
    from kogata.engine.modelfile import modelfile

    if places:
        place = min(places, key=lambda place: (bench.out / place).stat().st_size)
        text = modelfile(model, place)
        if text is not None:
            (bench.out / "Modelfile").write_text(text, encoding="utf-8")
            bench.log(f"Modelfile: `ollama create NAME` beside it runs {place}")


def _copied(adapter: Path, place: Path) -> Facts:
    """Copies what peft reads of an adapter; or Kogata, where peft has no such kind."""
    import shutil

    from kogata.engine.adapters import OWN, read_config

    place.mkdir()
    for item in sorted(adapter.iterdir()):
        if item.is_file() and item.name not in ("manifest.json", "metrics.jsonl"):
            shutil.copyfile(item, place / item.name)
    sizes = [item.stat().st_size for item in place.iterdir()]
    reader = "kogata" if str(read_config(adapter).get("peft_type")).startswith(OWN) else "peft"
    return {
        "format": reader,
        "bytes": sum(sizes),
        "largest_file": max(sizes),
        "runtime": reader,
        "bits_per_byte": None,
        "scored_bytes": 0,
        "notes": [],
    }


def _own_score(model: Any, texts: list[str], window: int) -> tuple[float, list[list[int]], int]:
    """Scores the texts with the model itself: bits per byte, the token ids, the end token."""
    from kogata.engine import evaluate as engine
    from kogata.engine.load import load_model

    loaded = load_model(model.path)
    end_id = model.facts.get("end_id")
    end_id = loaded.end_id if end_id is None else end_id
    if end_id is None:
        raise RecipeError(
            "the model cannot be scored", where="export", found="a tokenizer without an end token",
            expected="an end token", remedy="export without a corpus",
        )  # fmt: skip
    documents = list(engine.encode_documents(engine.encoder(model.path), texts))
    found = engine.bits_per_byte(loaded.decoder, documents, end_id=end_id, window=window)
    return found.value, [ids for ids, _ in documents], end_id


def _within_size(place: str, size: int, budget: int | None) -> None:
    if budget is not None and size > budget:
        raise Refused(
            "an exported file is larger than the budget's size",
            where=place,
            found=format_bytes(size),
            expected=f"at most {format_bytes(budget)}",
            remedy="export a narrower format, such as gguf-q8_0 alone, or train a smaller model",
        )
