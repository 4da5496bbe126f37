"""Puts a fine-tuning run together: rows, model, method, optimiser, schedule; then runs the loop."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from kogata.core.amounts import format_bytes, format_count, format_seconds
from kogata.core.errors import RecipeError
from kogata.core.stage import Bench
from kogata.core.variants import Choice
from kogata.engine import finetune_costs as costs
from kogata.engine.adapters import MERGE_TOKENS, merge_checked
from kogata.engine.chat import Turns
from kogata.engine.chat_template import Choice as TemplateChoice
from kogata.engine.convert import load_spec
from kogata.engine.finetune._common import Work
from kogata.engine.finetune_ready import Ready, make_ready
from kogata.engine.finetune_trials import CLIP, Trained, Tries, build_optimiser
from kogata.engine.foreign import save_any
from kogata.engine.frozen import KeptOutputs, keep_outputs
from kogata.engine.general import GeneralText, language_of, said
from kogata.engine.heap import give_back, kept
from kogata.engine.hf_folder import copy_tokenizer, write_json
from kogata.engine.keep_best import KeepBest, UntilWorse
from kogata.engine.load import load_tokenizer
from kogata.engine.looks import heldout_loss, look_rows
from kogata.engine.loop import Outcome, Training, train
from kogata.engine.objectives import TrainedTokens
from kogata.engine.parallel import Group as Processes
from kogata.engine.precision import products_in
from kogata.engine.pretraining import Length, prepare_torch
from kogata.engine.rendered import RenderedRows, render_rows
from kogata.engine.rows import Rows, RowSampler
from kogata.engine.schedule import TimeSchedule
from kogata.engine.trials import Trials
from kogata.nn.optim import Optimiser
from kogata.nn.packed import PackedHidden

WARMUP_SHARE = 0.05
LIKELY_STEPS = 200
"""Taken for the warm-up of a run that the clock ends."""


@dataclass(frozen=True, kw_only=True)
class Finetuning:
    """Everything the settings decide."""

    examples: Path
    model: Path
    facts: dict[str, Any]
    """The base model's."""
    base_digest: str
    method: Choice
    length: Length
    epochs: float | None = None
    tokens: int | None = None
    lr: float | None = 1e-3
    """None: found by trials around the method's usual one."""
    batch: int = 8
    context: int = 1024
    micro: int = costs.MICRO
    precision: str = "fp32"
    """Of the products in training steps."""
    prompt_weight: float = 0.0
    turns: Turns = "all"
    template: TemplateChoice = "auto"
    weight_decay: float = 0.0
    patience: int = 3
    merge: bool = False
    form: costs.Form = costs.PLAIN
    spec: Any = None
    """Stands for the shape of a model that only transformers can build."""
    checkpoint_steps: int | None = None


def finetune(job: Finetuning, bench: Bench) -> dict[str, Any]:
    """Trains and writes an adapter or a model into `bench.out`; gives its facts."""
    prepare_torch(bench)
    give_back()
    group = Processes.join(bench.rank, bench.world)
    try:
        return _finetune(job, bench, group)
    finally:
        group.leave()


def _finetune(job: Finetuning, bench: Bench, group: Processes) -> dict[str, Any]:
    began = bench.clock.now() if job.length.began is None else job.length.began
    rendered = _rows(job, bench)
    rows, heldout = rendered.train, rendered.heldout
    name, module, settings = job.method.name, job.method.variant, job.method.settings
    length = _length(job, rows)
    padded = job.spec is not None
    sampler = RowSampler(rows, batch=job.batch, micro=job.micro, seed=bench.seed * 7, by_length=padded)

    def made(settings: Any) -> Ready:
        return make_ready(job.model, module, settings, job.form, sampler, bench, job.spec)

    spec = job.spec or load_spec(job.model)
    work: Work = replace(module.work(spec, settings), best=len(heldout) > 0, foreign=bool(job.spec))
    planned = _planned_tokens(job, bench, spec, work, rows, length)
    steps = length.steps or planned / (job.batch * rows.tokens / len(rows))
    most = costs.look_tokens(planned)
    looked = look_rows(heldout, most, job.micro) if len(heldout) else None
    tries = Tries(
        trials=Trials(bench=bench, group=group),
        sampler=sampler,
        weight_decay=job.weight_decay,
        planned=steps,
        flops=lambda work: costs.token_flops(spec, work, _sizes(rows, job)) / _whole(rows, job),
    )
    usual = module.lr(spec, settings)[0]
    if getattr(settings, "top", None) == "auto":
        look = None if looked is None else lambda ready: heldout_loss(ready.packed, heldout, looked)
        with products_in(job.precision):
            top = tries.layers(made, settings, job.lr or usual, look)
        settings = settings.model_copy(update={"top": top})
    ready = made(settings)
    decoder, tuning, work, packed = ready.decoder, ready.tuning, ready.work, ready.packed
    if tuning.first > 0 and not padded:
        sampler.look_ahead()
    outputs = _kept_outputs(job, bench, packed, rows, tuning.first, length, group)
    with products_in(job.precision):
        lr = tries.rate(ready, usual) if job.lr is None else job.lr
        general = _general(job, rendered, packed)
    optimiser = build_optimiser(tuning, lr, job.weight_decay)
    best = None
    schedule: Any = length.schedule(bench, spec, began)
    if isinstance(schedule, TimeSchedule):
        schedule.reserve += costs.general_seconds(spec, bench.machine, job.precision)
    if looked is not None:
        best = KeepBest(lambda: heldout_loss(packed, heldout, looked), tuning.named(), job.patience)
        if isinstance(schedule, TimeSchedule):
            schedule.reserve += costs.look_seconds(spec, _sizes(heldout, job), bench.machine, most)
        schedule = UntilWorse(schedule, best)
    _say_forecast(job, bench, spec, work, rows, length, outputs)
    run = Training(
        model=Trained(tuning),
        objective=TrainedTokens(packed, tuning.first, outputs),
        sampler=sampler,
        optimiser=optimiser,
        schedule=schedule,
        techniques=(best,) if best else (),
        group=group,
        precision=job.precision,
        flops_per_token=tries.flops(work),
        checkpoint_steps=job.checkpoint_steps,
        clip=CLIP,
    )
    try:
        with kept(), products_in(job.precision):
            outcome = train(run, bench)
            forgot = None if general is None else general.end(packed, job.micro)
    finally:
        if outputs is not None:
            outputs.close()
    training = _record(job, bench, outcome, schedule, best, rendered, optimiser, length.steps)
    training |= {**tries.found, "general": forgot}
    makes = "model" if job.merge or module.MAKES == "model" else "adapter"
    if group.rank == 0:
        _say_outcome(bench, outcome, best)
        for line in said(training["general"] or {}):
            bench.log(line)
        if makes == "model":
            _write_model(job, bench, decoder, rendered, module.MAKES == "adapter")
        else:
            assert tuning.save is not None
            tuning.save(bench.out, job.facts.get("source"))
            if rendered.template.source == "chatml":
                copy_tokenizer(job.model, bench.out)
                rendered.template.save(bench.out)
        training["base_fingerprint"] = ready.mark
        tries.trials.write(bench.out)
        write_json(bench.out / "training.json", training)
        outcome.write_metrics(bench.out, clocked=length.steps is None)
    group.wait()
    if makes == "model":
        return {**job.facts, "tokenizer_digest": _digest(bench.out), "training": training}
    return {
        "method": name,
        "settings": settings.model_dump(mode="json"),
        "base_digest": job.base_digest,
        "base_source": job.facts.get("source"),
        "rank": getattr(settings, "rank", None),
        "trained_parameters": sum(tensor.numel() for _, tensor in tuning.named()),
        "training": training,
    }


def _rows(job: Finetuning, bench: Bench) -> RenderedRows:
    rendered = render_rows(
        job.examples,
        job.model,
        context=job.context,
        prompt_weight=job.prompt_weight,
        turns=job.turns,
        template=job.template,
        where=bench.label,
    )
    vocab = int(job.facts.get("vocab_size") or 0)
    top = max(int(rows.ids.max()) if len(rows) else 0 for rows in (rendered.train, rendered.heldout))
    if vocab and top >= vocab:
        raise RecipeError(
            "the tokenizer does not fit the model",
            where=f"stage {bench.label}",
            found=f"token id {top}",
            expected=f"ids below the model's {vocab}",
            remedy="use the tokenizer that the model was trained with",
        )
    for line in rendered.notes:
        bench.log(line)
    return rendered


def _general(job: Finetuning, rendered: RenderedRows, packed: PackedHidden) -> GeneralText | None:
    """Reads the general text in the rows' language with the model as it is; None where there is none."""
    tokenizer, end_id = load_tokenizer(job.model), job.facts.get("end_id")
    if end_id is None:
        end_id = tokenizer.token_to_id(rendered.template.end)
    window = min(256, job.facts.get("context") or 256)
    general = GeneralText(language_of(job.examples), tokenizer, int(end_id), window)
    return general.begun(packed, job.micro) if general else None


def _length(job: Finetuning, rows: Rows) -> Length:
    """Turns epochs and tokens into steps, now that the rows are known."""
    steps = job.length.steps
    if job.epochs is not None:
        steps = max(1, math.ceil(job.epochs * len(rows) / job.batch))
    if job.tokens is not None:
        steps = max(1, round(job.tokens / (rows.tokens / len(rows)) / job.batch))
    warmup = job.length.warmup
    if warmup is None:
        warmup = math.ceil(WARMUP_SHARE * (LIKELY_STEPS if steps is None else steps))
    return replace(job.length, steps=steps, warmup=warmup)


def _kept_outputs(
    job: Finetuning,
    bench: Bench,
    packed: PackedHidden,
    rows: Rows,
    first: int,
    length: Length,
    group: Processes,
) -> KeptOutputs | None:
    """Opens the file for the frozen layers' outputs where rows are seen more than once."""
    seen = None if length.steps is None else length.steps * job.batch / len(rows)
    if first <= 0 or group.world > 1 or (seen is not None and seen <= 1):
        return None
    outputs = keep_outputs(packed, rows, first, bench.checkpoints / "frozen.bin")
    bench.log(
        f"outputs of the {first} frozen layers are kept after the first pass: {format_bytes(outputs.bytes)}"
    )
    return outputs


def _planned_tokens(
    job: Finetuning, bench: Bench, spec: Any, work: Work, rows: Rows, length: Length
) -> float:
    """Gives the tokens that will be trained on: by the steps, or by a forecast of what the time allows."""
    each = job.batch * rows.tokens / len(rows)
    if length.steps is not None:
        return length.steps * each
    given = [seconds for seconds in (job.length.limit, bench.share.seconds) if seconds is not None]
    return min(given, default=0.0) / _step_seconds(job, bench, spec, work, rows) * each


def _step_seconds(
    job: Finetuning, bench: Bench, spec: Any, work: Work, rows: Rows, *, again: bool = False
) -> float:
    return costs.step_seconds(
        spec,
        work,
        _sizes(rows, job),
        bench.machine,
        batch=job.batch,
        micro=job.micro,
        again=again,
        fused=bench.machine.compiler,
        processes=bench.world,
        form=job.form,
        precision=job.precision,
    )


def _whole(rows: Rows, job: Finetuning) -> float:
    """Gives the tokens of rows as they were rendered, for each that is computed."""
    return rows.tokens / len(rows) / _sizes(rows, job).tokens


def _sizes(rows: Rows, job: Finetuning) -> costs.Rowful:
    """Measures the rows as they are computed: what all begin with counts once in a pass."""
    tokens, shared = (int(rows.offsets[-1]) - len(rows)) / len(rows), rows.shared(range(len(rows)))
    once = tokens - shared * (1 - 1 / max(1.0, min(float(job.batch), job.micro / tokens)))
    return costs.Rowful(
        rows=len(rows),
        tokens=once,
        below=min(1.0, (tokens - shared * (1 - tokens / costs.AHEAD_TOKENS)) / once),
        trained=int((rows.weights > 0).sum()) / len(rows),
        longest=rows.longest,
    )


def _say_forecast(
    job: Finetuning,
    bench: Bench,
    spec: Any,
    work: Work,
    rows: Rows,
    length: Length,
    outputs: KeptOutputs | None,
) -> None:
    step = _step_seconds(job, bench, spec, work, rows)
    rate = job.batch * rows.tokens / len(rows) / step
    said = f"about {rate:.0f} tokens a second"
    if length.steps is not None:
        later = 0
        if outputs is not None:
            later = max(0, length.steps - math.ceil(len(rows) / job.batch))
        again = _step_seconds(job, bench, spec, work, rows, again=True)
        seconds = (length.steps - later) * step + later * again
        said += f", {format_seconds(seconds)} for {length.steps:,} steps"
    tokens = costs.pass_tokens(_sizes(rows, job), job.batch, job.micro)
    sizes: Any = {"form": job.form, "processes": bench.world, "precision": job.precision}
    peak = costs.peak_bytes(spec, work, tokens=tokens, **sizes)
    bench.log(f"{len(rows):,} rows, {format_count(rows.tokens)} tokens; {said}, {format_bytes(peak)} at most")


def _record(
    job: Finetuning,
    bench: Bench,
    outcome: Outcome,
    schedule: Any,
    best: KeepBest | None,
    rendered: RenderedRows,
    optimiser: Optimiser,
    planned: int | None,
) -> dict[str, Any]:
    record, name = schedule.record(outcome.steps), job.method.name
    found: dict[str, Any] = {
        **record,
        "decay": round((outcome.steps - record["decay_start"]) / max(1, outcome.steps), 4),
        "method": name,
        "planned_steps": planned,
        "tokens": outcome.tokens,
        "epochs": round(outcome.epochs, 4),
        "loss": None if outcome.loss is None else round(outcome.loss, 6),
        "batch": job.batch,
        "context": job.context,
        "lr": optimiser.lr,
        "rows": len(rendered.train),
        "rows_left_out": rendered.left_out,
        "template": rendered.template.source,
        "hold": job.form.hold,
        "recompute": job.form.recompute,
        "precision": job.precision,
        "processes": bench.world,
        "heldout": None,
    }
    if best is not None:
        found["heldout"] = {
            "rows": len(rendered.heldout),
            "loss_before": round(best.first, 6),
            "loss": round(best.best, 6),
            "best_step": best.at,
            "ended_early": best.ended_early,
        }
    return found


def _say_outcome(bench: Bench, outcome: Outcome, best: KeepBest | None) -> None:
    loss = "none measured" if outcome.loss is None else f"{outcome.loss:.3f}"
    bench.log(f"{outcome.steps:,} steps, {format_count(outcome.tokens)} tokens, loss {loss}")
    if best is None:
        return
    early = ", ended early" if best.ended_early else ""
    bench.log(f"held-out loss {best.first:.3f} before, {best.best:.3f} after step {best.at:,}{early}")
    if best.at == 0:
        bench.log("no step made the held-out loss better: the weights are those it started from")


def _write_model(job: Finetuning, bench: Bench, decoder: Any, rendered: RenderedRows, adapter: bool) -> None:
    if adapter:
        ids = torch.from_numpy(rendered.train.ids[:MERGE_TOKENS].astype("int64"))[None]
        gap = merge_checked(decoder, ids.to(bench.device))
        bench.log(f"merged: logits differ by {gap:.1e} of their size")
    save_any(decoder.cpu(), bench.out, tokenizer_files_from=job.model)
    rendered.template.save(bench.out)


def _digest(folder: Path) -> str | None:
    from kogata.engine.tokens import tokenizer_digest

    return tokenizer_digest(folder) if (folder / "tokenizer.json").is_file() else None
