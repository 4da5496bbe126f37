"""Several computers at one run, as the first of them sees it.

The first plans, runs the stages that take one process, and alone writes store and receipts. The others
(`runtime/lend.py`) lend it processes for the stages that are divided. They were started with the same recipe;
what differs is refused by name before anything runs.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kogata.core.artifact import list_files
from kogata.core.errors import EnvironmentProblem, KogataError, RecipeError
from kogata.core.paths import hash_files
from kogata.core.recipe import Recipe
from kogata.runtime.keys import code_of, package_version, settings_without_paths
from kogata.runtime.link import Link, LinkLost, interface_of

MEET_SECONDS = 600.0
"""How long computers wait for each other at the start."""
MOST_NODES = 64
VERSIONS = ("kogata", "torch", "transformers", "tokenizers")


@dataclass(frozen=True, kw_only=True)
class Nodes:
    """Where this computer stands among those of one run."""

    count: int = 1
    rank: int = 0
    """0 is the first: it plans, writes and reports."""
    host: str = ""
    """Of the first, as all of them reach it."""
    port: int = 0

    @staticmethod
    def of(count: int, rank: int | None, rendezvous: str | None) -> Nodes:
        """Reads `--nodes`, `--node-rank` and `--rendezvous`.

        Raises:
            RecipeError: one is missing or makes no sense.
        """
        if count == 1 and not rank and rendezvous is None:
            return Nodes()
        if not 2 <= count <= MOST_NODES:
            raise RecipeError(
                "several computers need their number", where="--nodes", found=str(count),
                expected=f"a number from 2 to {MOST_NODES}",
            )  # fmt: skip
        if rank is None or not 0 <= rank < count:
            raise RecipeError(
                "each computer needs a number of its own",
                where="--node-rank",
                found="none" if rank is None else str(rank),
                expected=f"0 to {count - 1}; 0 is the one that writes the result",
            )
        host, _, port = (rendezvous or "").rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise RecipeError(
                "the computers need a place to meet",
                where="--rendezvous",
                found=rendezvous or "none",
                expected="HOST:PORT of node 0, as all of them reach it, for example 10.0.0.1:29400",
            )
        return Nodes(count=count, rank=rank, host=host.strip("[]"), port=int(port))


def greeting(recipe: Recipe, nodes: Nodes, processes: int, device: str) -> dict[str, Any]:
    """Gives what must be the same on every computer; input files are the first one's alone."""
    return {
        "--nodes": nodes.count,
        "--processes": processes,
        "device": device,
        "version of": {name: package_version(name) for name in VERSIONS},
        "plugins": [hash_files([path]) for path in recipe.plugin_files()],
        "stages": {
            step.label: {
                "stage": step.name,
                "use": dict(step.use),
                "code": code_of(step.name),
                **settings_without_paths(step.stage),
            }
            for step in recipe.stages
        },
        "order": [step.label for step in recipe.stages],
        "seed": recipe.seed,
        "budget": recipe.budget.model_dump(mode="json", exclude_none=True),
    }


def difference(here: Any, there: Any, at: str = "") -> tuple[str, str, str] | None:
    """Finds the first place where two greetings differ: its address, what is here, what is there."""
    if isinstance(here, Mapping) and isinstance(there, Mapping):
        for name in [*here, *(name for name in there if name not in here)]:
            found = difference(here.get(name), there.get(name), f"{at}.{name}" if at else str(name))
            if found is not None:
                return found
        return None
    return None if here == there else (at, str(here), str(there))


def mismatch(node: int, here: Any, there: Any) -> RecipeError | None:
    """Says what another computer runs otherwise; None where it runs the same."""
    found = difference(here, there)
    if found is None:
        return None
    at, mine, other = found
    return RecipeError(
        f"node {node} does not run what node 0 runs",
        where=at,
        found=f"{_short(other)} on node {node}",
        expected=f"{_short(mine)}, as on node 0",
        remedy="give every node the same recipe, options and release",
    )


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}…"


@dataclass
class Hub:
    """The other computers of a run and what goes to and fro."""

    nodes: Nodes
    processes: int
    """Of each computer."""
    links: dict[int, Link] = field(default_factory=dict)
    lost: dict[int, str] = field(default_factory=dict)
    """Node → why it is no longer there."""
    words: dict[int, str] = field(default_factory=dict)
    """Rank → how its process ended."""
    asked: list[int] = field(default_factory=list)
    """Signals that another computer was sent."""
    number: int = 0
    """Of the job at hand: what still comes of an earlier one is passed over."""
    tell: Callable[[int, dict[str, Any] | None], None] = lambda rank, event: None
    _artifacts: dict[str, Path] = field(default_factory=dict)

    def listen(self) -> None:
        """Begins to hear the others."""
        for node, link in self.links.items():
            threading.Thread(target=self._hear, args=(node, link), daemon=True).start()

    def interface(self) -> str | None:
        """Names the network interface over which the others are reached."""
        return interface_of(next(iter(self.links.values())).here)

    def _hear(self, node: int, link: Link) -> None:
        try:
            while True:
                message = link.receive()
                if message["do"] == "event" and message["number"] == self.number:
                    self.words[message["rank"]] = message.get("words") or ""
                    self.tell(message["rank"], message["event"])
                elif message["do"] == "need":
                    self._give(link, message["digest"])
                elif message["do"] == "signal":
                    self.asked.append(message["signum"])
        except LinkLost as error:
            self.lost[node] = str(error)
            for rank in range(node * self.processes, (node + 1) * self.processes):
                self.tell(rank, None)

    def _give(self, link: Link, digest: str) -> None:
        """Sends an artifact that the other computer's store does not hold."""
        folder = self._artifacts.get(digest)
        if folder is None:
            raise LinkLost(f"{link.there} asks for {digest!r}, which is no input")
        paths = [*list_files(folder), folder / "manifest.json"]
        sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in paths}
        link.send({"do": "artifact", "digest": digest, "files": sizes}, paths)

    def send(self, rank: int, message: Mapping[str, Any]) -> None:
        """Sends what concerns one rank to its computer."""
        node = rank // self.processes
        try:
            if node in self.lost:
                raise LinkLost(self.lost[node])
            self.links[node].send({"rank": rank, "number": self.number, **message})
        except LinkLost as error:
            self.lost[node] = str(error)
            self.tell(rank, None)

    def hold(self, given: Mapping[str, Any]) -> None:
        """Notes where the inputs of a stage lie."""
        for row in given.values():
            for item in row if isinstance(row, list) else [row] if row else []:
                self._artifacts[item["digest"]] = Path(item["path"])

    def drop(self) -> None:
        """Lets the others kill their workers."""
        self.number += 1
        for link in self.links.values():
            with suppress(LinkLost):
                link.send({"do": "drop"})

    def end(self, error: BaseException | None) -> None:
        """Lets the others go, with what ended the run."""
        told = None
        if error is not None:
            known = error if isinstance(error, KogataError) else KogataError(f"node 0 ended: {error!r}")
            told = {**known.to_dict(), "exit_code": known.exit_code if known is error else 1}
        for link in self.links.values():
            with suppress(LinkLost):
                link.send({"do": "end", "error": told})
            link.close()


class Lent:
    """A worker on another computer, asked and stopped as one of ours is."""

    pid = None

    def __init__(self, hub: Hub, rank: int) -> None:
        self._hub, self.rank = hub, rank
        self.place = f" on node {rank // hub.processes}"

    def ask(self, request: Mapping[str, Any]) -> None:
        """Sends one request; the time it is due is told as seconds left."""
        due = request.get("deadline")
        left = None if due is None else due - time.monotonic()
        self._hub.hold(request["given"])
        self._hub.send(self.rank, {"do": "run", "request": {**request, "deadline": None}, "left": left})

    def ask_to_stop(self) -> None:
        """Asks it to checkpoint and leave the stage."""
        self._hub.send(self.rank, {"do": "stop"})

    def exit_code(self) -> int | None:
        """Gives nothing: how it ended is told in words."""
        return None

    def words(self) -> str:
        """Says how it ended."""
        return self._hub.lost.get(self.rank // self._hub.processes) or self._hub.words.get(self.rank) or ""


@contextmanager
def gathered(
    nodes: Nodes, recipe: Recipe, processes: int, device: str, say: Callable[[str], None]
) -> Iterator[Hub | None]:
    """Waits for the other computers, holds them while the run lasts, and lets them go with its outcome.

    Raises:
        RecipeError: one of them runs something else.
        EnvironmentProblem: the place to meet is taken, or somebody does not come.
    """
    if nodes.count == 1:
        yield None
        return
    hub = Hub(nodes, processes)
    try:
        _meet(hub, greeting(recipe, nodes, processes, device), say)
        hub.listen()
        yield hub
    except BaseException as error:
        hub.end(error)
        raise
    hub.end(None)


def _meet(hub: Hub, mine: dict[str, Any], say: Callable[[str], None]) -> None:
    nodes = hub.nodes
    try:
        listener = socket.create_server((nodes.host, nodes.port))
    except OSError as error:
        raise EnvironmentProblem(
            "node 0 cannot wait for the others at this place",
            where=f"--rendezvous {nodes.host}:{nodes.port}",
            found=str(error),
            expected="an address of this computer and a port that is free",
        ) from None
    with listener:
        listener.settimeout(1.0)
        say(f"waiting for {nodes.count - 1} more of {nodes.count} nodes at {nodes.host}:{nodes.port}")
        waited = 0.0
        while len(hub.links) < nodes.count - 1:
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                waited += 1.0
                if waited >= MEET_SECONDS:
                    missing = [str(rank) for rank in range(1, nodes.count) if rank not in hub.links]
                    raise EnvironmentProblem(
                        f"node {', '.join(missing)} did not come",
                        where=f"--rendezvous {nodes.host}:{nodes.port}",
                        found=f"nobody within {MEET_SECONDS:.0f} s",
                        remedy="start the same command there, with its own --node-rank",
                    ) from None
                continue
            _welcome(hub, Link(connection), mine, say)
    for link in hub.links.values():
        with suppress(LinkLost):  # It is noticed where it is listened to.
            link.send({"do": "welcome"})


def _welcome(hub: Hub, link: Link, mine: dict[str, Any], say: Callable[[str], None]) -> None:
    try:
        message = link.receive()
    except LinkLost:
        link.close()  # Whoever that was, it is none of ours.
        return
    node = message.get("node")
    if message.get("do") != "hello" or not isinstance(node, int):
        link.close()
        return
    error = mismatch(node, mine, message.get("runs"))
    if error is None and (node in hub.links or not 0 < node < hub.nodes.count):
        error = RecipeError(
            "two nodes have the same number" if node in hub.links else "a node's number is out of range",
            where="--node-rank",
            found=str(node),
            expected="0, 1, 2 … once each",
        )
    if error is not None:
        with suppress(LinkLost):
            link.send({"do": "end", "error": {**error.to_dict(), "exit_code": error.exit_code}})
        link.close()
        raise error
    hub.links[node] = link
    say(f"node {node} is here, from {link.there}")
