"""A connection between two computers of one run: JSON lines, files behind them, beats beside them.

Nothing that arrives is executed or unpickled. The line is neither encrypted nor signed, like those over which
gradients travel: it belongs in a network whose computers are trusted.
"""

from __future__ import annotations

import json
import select
import socket
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from kogata.runtime import pulse

SEND_SECONDS = 60.0
"""How long a piece may take to leave before the other side counts as gone."""
PIECE_BYTES = 2**20
MOST_LINE_BYTES = 2**26


class LinkLost(OSError):
    """The other side closed the connection or is silent."""


class Link:
    """One end of a connection."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(SEND_SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connection
        self.here: str = connection.getsockname()[0]
        self.there: str = connection.getpeername()[0]
        self._lock = threading.Lock()
        self._held = b""
        self._beating = pulse.beating(lambda: self.send({"do": "beat"}))
        self._beating.__enter__()

    def send(self, message: Mapping[str, Any], files: Sequence[Path] = ()) -> None:
        """Sends a message and the content of files behind it.

        Raises:
            LinkLost: the other side is gone.
        """
        line = json.dumps(message, ensure_ascii=False, default=str).encode("utf-8", "surrogatepass") + b"\n"
        try:
            with self._lock:
                self._socket.sendall(line)
                for path in files:
                    with path.open("rb") as file:
                        while piece := file.read(PIECE_BYTES):
                            self._socket.sendall(piece)
        except OSError as error:
            raise LinkLost(f"{self.there} cannot be reached: {error}") from None

    def receive(self) -> dict[str, Any]:
        """Waits for a message; beats are taken for what they are.

        Raises:
            LinkLost: the other side is gone, silent, or sends what is no message.
        """
        while True:
            while b"\n" not in self._held:
                if len(self._held) > MOST_LINE_BYTES:
                    raise LinkLost(f"{self.there} sends what is no message")
                self._fill()
            line, _, self._held = self._held.partition(b"\n")
            try:
                message = json.loads(line.decode("utf-8", "surrogatepass"))
                if message["do"] != "beat":
                    return message
            except (ValueError, KeyError, TypeError):
                raise LinkLost(f"{self.there} sends what is no message") from None

    def receive_files(self, folder: Path, sizes: Mapping[str, int]) -> None:
        """Writes the files behind a message below a folder.

        Raises:
            LinkLost: the other side is gone, or names a place outside the folder.
        """
        for name, size in sizes.items():
            place = PurePosixPath(name)
            if place.is_absolute() or ".." in place.parts or "\\" in name:
                raise LinkLost(f"{self.there} names a file outside its folder: {name!r}")
            path = folder.joinpath(*place.parts)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                while size:
                    if not self._held:
                        self._fill()
                    piece, self._held = self._held[:size], self._held[size:]
                    size -= file.write(piece)

    def _fill(self) -> None:
        """Waits for bytes and holds them."""
        silent = 0.0
        while not select.select([self._socket], [], [], pulse.STEP_SECONDS)[0]:
            # Counted in looks: after a sleep of this computer the other's beats lie ready.
            silent += pulse.STEP_SECONDS
            if silent >= pulse.LOST_SECONDS:
                raise LinkLost(f"{self.there} gave no sign of life for {silent:.0f} s")
        try:
            found = self._socket.recv(PIECE_BYTES)
        except OSError as error:
            raise LinkLost(f"{self.there} cannot be reached: {error}") from None
        if not found:
            raise LinkLost(f"{self.there} closed the connection")
        self._held += found

    def close(self) -> None:
        """Ends the connection."""
        self._beating.__exit__(None, None, None)
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def interface_of(address: str) -> str | None:
    """Names the network interface that has an address; None where none has it."""
    import psutil

    for name, addresses in psutil.net_if_addrs().items():
        if any(item.address == address for item in addresses):
            return name
    return None
