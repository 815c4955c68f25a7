"""A proxy between a poller and PostgreSQL that cuts connections: at once, or at a commit, before or after it counts."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# The simple query "COMMIT", as the wire has it: type, length, text, NUL (PostgreSQL's protocol, message Query).
COMMIT = b"Q\x00\x00\x00\x0bCOMMIT\x00"


class Proxy:
    """Listens on a Unix socket in its folder, as PostgreSQL would, and passes everything on."""

    def __init__(self, folder: Path, connect: Callable[[], socket.socket]) -> None:
        self.folder = folder
        self._connect = connect
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / ".s.PGSQL.5432"))
        self._listener.listen()
        self.is_up = True
        self.cuts: list[str] = []
        """How the next connections are cut at their next commit: "before" or "after" it has reached the database."""
        self.made = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Drop every connection."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            _drop(pair)

    def close(self) -> None:
        self.is_up = False
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _address = self._listener.accept()
            except OSError:
                return  # closed
            if not self.is_up:
                client.close()
                continue
            pair = (client, self._connect())
            with self._lock:
                self._pairs.append(pair)
            self.made += 1
            for source, target in (pair, pair[::-1]):
                threading.Thread(target=self._pump, args=(pair, source, target), daemon=True).start()

    def _pump(self, pair: tuple[socket.socket, socket.socket], source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                how = self.cuts.pop(0) if source is pair[0] and data == COMMIT and self.cuts else ""
                if how == "before":
                    break
                if how == "after":
                    # The other direction must not pass the answer on.
                    pair[0].shutdown(socket.SHUT_WR)
                target.sendall(data)
                if how == "after":
                    pair[1].shutdown(socket.SHUT_WR)
                    return
        _drop(pair)


def _drop(pair: tuple[socket.socket, socket.socket]) -> None:
    for end in pair:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()
