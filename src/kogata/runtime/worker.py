"""The worker: a child process in which stages run. Speaks JSON lines with its parent.

Requests on standard input: `{"do": "run", …}` (one step, or several fused ones), `{"do": "nested", …}`
(the answer to `Bench.run`). Events on the descriptor that was standard output: `progress`, `metric`,
`log`, `nested`, `done`, `failed`. What libraries print goes to the run's worker.log.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from kogata.core.amounts import Budget
from kogata.core.artifact import Artifact, Document, Kind
from kogata.core.errors import KogataError, Stopped
from kogata.core.receipt import Machine, Receipt
from kogata.core.recipe import Clock, Step, step_to_dict
from kogata.core.registry import registry
from kogata.core.stage import Account, Facts, Share, Stage
from kogata.engine.heap import trim
from kogata.runtime.draft import load_installed_plugins
from kogata.runtime.pulse import beating

TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
PROGRESS_SECONDS = 0.1
"""The screen needs no more than ten lines a second."""


class Pipe:
    """Both ends of the talk with the parent."""

    def __init__(self, requests: TextIO, events: TextIO) -> None:
        self.requests, self.events = requests, events
        self._lock = threading.Lock()

    def send(self, event: str, **facts: Any) -> None:
        """Sends one event."""
        line = json.dumps({"event": event, **facts}, ensure_ascii=False, default=str)
        with self._lock:
            self.events.write(line + "\n")
            self.events.flush()

    def receive(self) -> dict[str, Any] | None:
        """Waits for a request; None when the parent is gone."""
        line = self.requests.readline()
        return json.loads(line) if line else None


class _Asked:
    """Whether someone asked this process to stop."""

    stop = False


def _stop(signum: int, frame: Any) -> None:
    _Asked.stop = True


class WorkerBench:
    """The bench of a stage that runs in this process."""

    def __init__(self, pipe: Pipe, request: Mapping[str, Any]) -> None:
        self._pipe = pipe
        self.out = Path(request["out"])
        self.checkpoints = Path(request["checkpoints"])
        self.label: str = request["label"]
        self.seed: int = request["seed"]
        self.machine = Machine.from_dict(request["machine"])
        self.device = self.machine.device
        self.share = Share(**request["share"])
        self.clock = Clock(deadline=request["deadline"])
        self.rank: int = request.get("rank", 0)
        self.world: int = request.get("world", 1)
        self.tokens: int | None = None
        self.flops: float | None = None
        self._last = 0.0
        self._cluster: Any = None

    def left(self) -> float | None:
        return self.clock.left()

    def stopping(self) -> bool:
        return _Asked.stop

    def progress(self, done: float, total: float | None, **facts: Any) -> None:
        now = time.monotonic()
        if self.rank == 0 and (now - self._last >= PROGRESS_SECONDS or done == total):
            self._last = now
            self._pipe.send("progress", done=done, total=total, facts=facts)

    def metric(self, row: Mapping[str, Any]) -> None:
        if self.rank == 0:
            self._pipe.send("metric", row=dict(row))

    def log(self, text: str) -> None:
        if self.rank == 0:
            self._pipe.send("log", text=text)

    def count(self, *, tokens: int | None = None, flops: float | None = None) -> None:
        if tokens is not None:
            self.tokens = (self.tokens or 0) + tokens
        if flops is not None:
            self.flops = (self.flops or 0.0) + flops

    def spread(
        self,
        make: Callable[[], Callable[[list[Any]], list[Any]]],
        batches: Iterable[list[Any]],
        seconds: float,
        late: Callable[[Any], Any],
    ) -> Iterator[list[Any]]:
        from kogata.runtime.cluster import Cluster

        self._cluster = self._cluster or Cluster()
        return self._cluster.spread(make, batches, seconds, late)

    def close(self) -> None:
        """Leaves the cluster, where the stage was on one."""
        if self._cluster is not None:
            self._cluster.close()
            self._cluster = None

    def run(self, steps: Sequence[Step], budget: Budget, seed: int) -> list[Receipt]:
        self._pipe.send(
            "nested",
            steps=[step_to_dict(step) for step in steps],
            budget=budget.model_dump(mode="json", exclude_none=True),
            seed=seed,
        )
        return serve(self._pipe)


def serve(pipe: Pipe) -> list[Receipt]:
    """Answers requests until the parent goes or, inside a nested run, until its receipts arrive."""
    while True:
        request = pipe.receive()
        if request is None:
            os._exit(0)
        if request["do"] == "nested":
            if request.get("error"):
                raise KogataError.from_dict(request["error"])
            return [Receipt.from_dict(row) for row in request["receipts"]]
        if request.get("world", 1) > 1:
            with beating(lambda: pipe.send("pulse")):
                _execute(pipe, request)
        else:
            _execute(pipe, request)


def _execute(pipe: Pipe, request: dict[str, Any]) -> None:
    bench: WorkerBench | None = None
    try:
        load_installed_plugins()
        for name in request.get("plugins", ()):
            registry.load_plugin(Path(name))
        _environment(request)
        bench = WorkerBench(pipe, request)
        stages = [_stage(item) for item in request["stages"]]
        accounts: dict[str, Facts] = {}
        seconds: dict[str, float] = {}
        inputs = sum(row is not None for row in request["given"].values())
        if len(stages) > 1 or (stages[0].streams() and inputs <= 1):
            labels = [item["label"] for item in request["stages"]]
            facts = _run_documents(stages, labels, request, bench, accounts, seconds)
        else:
            facts = stages[0].run(_given(request["given"]), bench)
        trim()  # What this stage held must not count as the next one's.
        pipe.send(
            "done", facts=facts, tokens=bench.tokens, flops=bench.flops, accounts=accounts, seconds=seconds
        )
    except KogataError as error:
        pipe.send("failed", error=error.to_dict())
    except MemoryError:
        error = KogataError("out of memory", where=request["label"], remedy="give a smaller memory budget")
        pipe.send("failed", error=error.to_dict())
    except OSError as error:
        known = _os_problem(error)
        pipe.send("failed", error=known.to_dict() if known else None, bug=traceback.format_exc())
    except BaseException as error:
        known = _others_problem(error) if request.get("world", 1) > 1 else None
        problem = known.to_dict() if known else None
        pipe.send("failed", error=problem, apart=known is not None, bug=traceback.format_exc())
    finally:
        if bench is not None:
            bench.close()


def _os_problem(error: OSError) -> KogataError | None:
    from kogata.runtime.system import explain_os_error

    return explain_os_error(error)


def _others_problem(error: BaseException) -> KogataError | None:
    from kogata.engine.parallel import explain_parting

    return explain_parting(error)


def _environment(request: Mapping[str, Any]) -> None:
    world = request.get("world", 1)
    if world > 1:
        os.environ.update(
            RANK=str(request["rank"]),
            LOCAL_RANK=str(request["rank"] % request["here"]),
            WORLD_SIZE=str(world),
            LOCAL_WORLD_SIZE=str(request["here"]),
            MASTER_ADDR=request.get("address", "127.0.0.1"),
            MASTER_PORT=str(request["port"]),
        )
        if request.get("interface"):
            # By themselves both take the interface of this computer's name, which may be loopback.
            os.environ.setdefault("GLOO_SOCKET_IFNAME", request["interface"])
            os.environ.setdefault("NCCL_SOCKET_IFNAME", request["interface"])
    else:
        for name in TORCHRUN:
            os.environ.pop(name, None)


def _stage(item: Mapping[str, Any]) -> Stage:
    return registry.stage(item["name"]).model_validate(item["settings"])


def _given(parts: Mapping[str, Any]) -> dict[str, Any]:
    def artifact(row: Any) -> Any:
        if row is None:
            return None
        if isinstance(row, list):
            return [artifact(item) for item in row]
        return Artifact(
            kind=Kind(row["kind"]), digest=row["digest"], path=Path(row["path"]), facts=row["facts"]
        )

    return {slot: artifact(row) for slot, row in parts.items()}


def _run_documents(
    stages: list[Stage],
    labels: list[str],
    request: Mapping[str, Any],
    bench: WorkerBench,
    accounts: dict[str, Facts],
    seconds: dict[str, float],
) -> Facts:
    """Runs neighbouring per-document stages in one pass; only the last writes."""
    from kogata.engine.text import read_documents, seal_documents

    documents: Iterable[Document] = ()
    for row in request["given"].values():
        if row is not None:
            documents = read_documents(Path(row["path"]))
    timers: list[_Timer] = []
    counts: list[Account] = []
    for label, stage in zip(labels, stages, strict=True):
        account = Account(bench=bench, label=label)
        upstream = _watch(documents, bench)
        timer = _Timer(stage.each(upstream, account))
        timers.append(timer)
        counts.append(account)
        documents = timer
    facts = seal_documents(documents, bench.out)
    before = 0.0
    for label, timer, account in zip(labels, timers, counts, strict=True):
        seconds[label] = max(0.0, timer.seconds - before)
        before = timer.seconds
        accounts[label] = account.to_dict()
    facts["accounts"] = {label: accounts[label] for label in labels}
    return facts


class _Timer:
    """Passes documents on and counts the seconds spent to make them, upstream included."""

    def __init__(self, documents: Iterator[Document]) -> None:
        self._documents, self.seconds = documents, 0.0

    def __iter__(self) -> _Timer:
        return self

    def __next__(self) -> Document:
        start = time.perf_counter()
        try:
            return next(self._documents)
        finally:
            self.seconds += time.perf_counter() - start


def _watch(documents: Iterable[Document], bench: WorkerBench) -> Iterator[Document]:
    seen = 0
    for document in documents:
        if bench.stopping():
            raise Stopped("stopped while reading documents")
        seen += 1
        bench.progress(seen, None, unit="documents")
        yield document


def main() -> None:
    """Runs the worker until its parent goes."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    from kogata.runtime.system import die_with_parent

    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop)
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, _stop)
    requests = os.fdopen(os.dup(0), "r", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    pipe = Pipe(requests, events)
    if "--warm" in sys.argv:
        threading.Thread(target=_warm, daemon=True).start()
    serve(pipe)


def _warm() -> None:
    """Imports torch and compiles the kernels while the parent still reads and plans."""
    from kogata.nn.kernels import Kernels

    Kernels.build()


if __name__ == "__main__":
    # Run as a module, so that its classes have one identity however they are reached.
    from kogata.runtime import worker

    worker.main()
