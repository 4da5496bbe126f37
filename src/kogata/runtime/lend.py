"""Lending this computer's processes to a run whose first computer is another (`runtime/nodes.py`).

What a stage takes is found in this computer's own store, by digest, or sent by the first one and checked.
Nothing is made, sealed or noted here; where inputs lie and where a stage writes is for this computer to say.
"""

from __future__ import annotations

import os
import queue
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kogata.core.artifact import read_artifact
from kogata.core.errors import ArtifactError, EnvironmentProblem, KogataError, Stopped
from kogata.core.recipe import Recipe
from kogata.runtime.link import Link, LinkLost, interface_of
from kogata.runtime.nodes import MEET_SECONDS, Nodes, greeting
from kogata.runtime.processes import state_of
from kogata.runtime.pulse import Watch
from kogata.runtime.signals import listening
from kogata.runtime.store import Store
from kogata.runtime.workers import Group

POLL_SECONDS = 0.05


def lend(
    recipe: Recipe, nodes: Nodes, processes: int, cores: int, device: str, say: Callable[[str], None]
) -> None:
    """Serves the first computer until its run is over.

    Raises:
        KogataError: what ended the run there, or that the first computer is gone.
    """
    link = _reach(nodes, say)
    try:
        runs = greeting(recipe, nodes, processes, device)
        link.send({"do": "hello", "node": nodes.rank, "runs": runs})
        _Lender(link, recipe, nodes, processes, cores, say).serve()
    except LinkLost as error:
        raise _gone(str(error)) from None
    finally:
        link.close()


def _reach(nodes: Nodes, say: Callable[[str], None]) -> Link:
    said, waited = False, 0.0
    while True:
        try:
            return Link(socket.create_connection((nodes.host, nodes.port), timeout=10.0))
        except OSError as error:
            if not said:
                say(f"waiting for node 0 at {nodes.host}:{nodes.port}")
                said = True
            waited += 1.0
            if waited >= MEET_SECONDS:
                raise EnvironmentProblem(
                    "node 0 is not there",
                    where=f"--rendezvous {nodes.host}:{nodes.port}",
                    found=str(error),
                    remedy="start the same command on node 0, with --node-rank 0",
                ) from None
            time.sleep(1.0)


def _gone(found: str) -> KogataError:
    error = KogataError(
        "node 0 was lost",
        found=found,
        remedy="run the same command on every node again; it goes on from the last checkpoint",
    )
    error.exit_code = 1
    return error


class _Lender:
    def __init__(
        self, link: Link, recipe: Recipe, nodes: Nodes, processes: int, cores: int, say: Callable[[str], None]
    ) -> None:
        self.link, self.recipe, self.nodes, self.say = link, recipe, nodes, say
        self.processes, self.first = processes, nodes.rank * processes
        self.store = Store()
        folder = self.store.root / "lent" / f"node-{nodes.rank}"
        folder.mkdir(parents=True, exist_ok=True)
        self.group = Group(folder, cores)
        self.inbox: queue.Queue[dict[str, Any]] = queue.Queue()
        self.number, self.place = -1, folder
        self.waiting: set[int] = set()
        self.watch: Watch | None = None

    def serve(self) -> None:
        """Does what the first computer asks until it says that the run is over."""
        threading.Thread(target=self._hear, daemon=True).start()
        asked: list[int] = []
        told = False
        try:
            with listening(asked):
                while True:
                    if asked and not told:
                        self.link.send({"do": "signal", "signum": asked[0]})
                        told = True
                    self._forward()
                    while not self.inbox.empty():
                        if self._handle(self.inbox.get()):
                            return
        finally:
            self.group.drop()

    def _hear(self) -> None:
        try:
            while True:
                message = self.link.receive()
                if message["do"] == "artifact":
                    message["folder"] = self._incoming(message["digest"])
                    self.link.receive_files(message["folder"], message["files"])
                self.inbox.put(message)
        except LinkLost as error:
            self.inbox.put({"do": "lost", "found": str(error)})

    def _incoming(self, digest: str) -> Path:
        folder = self.store.partial(f"incoming-{digest[:32]}-node-{self.nodes.rank}")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def _forward(self) -> None:
        """Passes on what the workers say, and that one of them hangs."""
        try:
            rank, event = self.group.events.get(timeout=POLL_SECONDS)
        except queue.Empty:
            rank, event = None, None
        if rank is not None and rank in self.waiting:
            if event is None:
                code = self.group.workers[rank].exit_code()
                words = f"exit code {code}\n{self.group.last_words()}".strip()
                self.waiting.discard(rank)
                self._tell(rank, None, words)
            else:
                if self.watch is not None:
                    self.watch.heard(rank)
                if event["event"] in ("done", "failed"):
                    self.waiting.discard(rank)
                if event["event"] == "done" and not self.waiting:
                    shutil.rmtree(self.place, ignore_errors=True)
                if event["event"] != "pulse":
                    self._tell(rank, event)
        if self.watch is not None and (silent := self.watch.lost(self.waiting)) is not None:
            pid = self.group.workers[silent[0]].pid
            hangs = {"event": "hangs", "seconds": silent[1], "pid": pid, "doing": state_of(pid)}
            self.waiting.clear()
            self._tell(silent[0], hangs)

    def _tell(self, rank: int, event: dict[str, Any] | None, words: str | None = None) -> None:
        message = {"do": "event", "rank": self.first + rank, "number": self.number}
        self.link.send({**message, "event": event, "words": words})

    def _handle(self, message: dict[str, Any]) -> bool:
        """Does one thing; says whether the run is over."""
        if message["do"] == "welcome":
            self.say(f"node {self.nodes.rank} of {self.nodes.count} is ready")
        elif message["do"] == "run":
            self._run(message)
        elif message["do"] == "stop":
            for worker in self.group.workers:
                worker.ask_to_stop()
        elif message["do"] == "drop":
            self.waiting.clear()
            self.group.drop()
        elif message["do"] == "lost":
            raise _gone(message["found"])
        elif message["do"] == "end":
            if message["error"] is not None:
                raise _ended(message["error"])
            return True
        return False

    def _run(self, message: dict[str, Any]) -> None:
        rank, request = message["rank"] - self.first, dict(message["request"])
        new = message["number"] != self.number
        try:
            given = {slot: self._input(row) for slot, row in request["given"].items()}
        except _Dropped:
            return
        if new:
            self.number = message["number"]
            self.say(f"{request['label']}: lends {self.processes} of {request['world']} processes")
            # The key names the work: checkpoints that each process writes for itself are found again.
            key = Path(request["out"]).parent.name
            self.place = self.store.partial(_plain(key)) / f"node-{self.nodes.rank}"
            shutil.rmtree(self.place / "out", ignore_errors=True)
            (self.place / "checkpoints").mkdir(parents=True, exist_ok=True)
            (self.place / "out").mkdir()
            workers = self.group.ready(self.processes)
            self.waiting.clear()
            self.watch = Watch({worker.rank: worker.pid for worker in workers})
        self.waiting.add(rank)
        left = message["left"]
        self.group.workers[rank].ask(
            request
            | {
                "given": given,
                "out": str(self.place / "out"),
                "checkpoints": str(self.place / "checkpoints"),
                "deadline": None if left is None else time.monotonic() + left,
                "plugins": [str(path) for path in self.recipe.plugin_files()],
                "interface": interface_of(self.link.here),
            }
        )

    def _input(self, row: Any) -> Any:
        if row is None:
            return None
        if isinstance(row, list):
            return [self._input(item) for item in row]
        return {**row, "path": str(self._artifact(row["digest"]))}

    def _artifact(self, digest: str) -> Path:
        """Finds an input in this computer's store, or has it sent."""
        folder = self.store.objects / _plain(digest)[:32]
        if folder.exists() and read_artifact(folder, verify=False).digest == digest:
            return folder
        self.say(f"fetches {digest[:16]} from node 0")
        self.link.send({"do": "need", "digest": digest})
        later = []
        while (message := self.inbox.get())["do"] != "artifact" or message["digest"] != digest:
            if message["do"] in ("drop", "end", "lost"):
                self._requeue([*later, message])
                raise _Dropped
            later.append(message)
        self._requeue(later)
        found = read_artifact(message["folder"], verify=True)
        if found.digest != digest:
            raise ArtifactError(
                "what node 0 sent is not what it named", found=found.digest[:16], expected=digest[:16]
            )
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(message["folder"], folder)
        return folder

    def _requeue(self, messages: list[dict[str, Any]]) -> None:
        """Puts messages back before those that came since."""
        since = []
        while not self.inbox.empty():
            since.append(self.inbox.get())
        for message in [*messages, *since]:
            self.inbox.put(message)


def _plain(name: str) -> str:
    """Refuses what is no hash where one names a folder."""
    if not re.fullmatch(r"[0-9a-f]{32,64}", name):
        raise ArtifactError("node 0 sent what is no hash", found=repr(name))
    return name


class _Dropped(Exception):
    """The first computer gave the job up while its inputs were on their way."""


def _ended(parts: dict[str, Any]) -> KogataError:
    error = KogataError.from_dict(parts)
    code = parts.get("exit_code")
    error.exit_code = code if isinstance(code, int) else 1
    if not isinstance(error, Stopped):
        error.what = f"node 0 ended the run: {error.what}"
        error.args = (str(error),)
    return error
