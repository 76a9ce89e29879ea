"""A socket before the engine's that writes down what each container is created with.

It changes nothing: what comes from one side goes to the other, as it came.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from jupyterhub_gpuspawner.engine import labels


class Recorder:
    """Listens on ``path`` and passes on to the engine's socket.

    Parameters
    ----------
    path:
        The socket to be made.
    engine:
        The engine's own.
    """

    def __init__(self, path: Path, engine: str) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        #: (user, server) -> the bodies of its creates, oldest first
        self._creates: dict[tuple[str, str], list[dict[str, Any]]] = {}
        #: names asked for, oldest first
        self.names: list[str] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(64)
        self.url = f"unix://{path}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def creates(self, user: str, server: str = "") -> list[dict[str, Any]]:
        """What the containers of a server were created with."""
        with self._lock:
            return list(self._creates.get((user, server), ()))

    def total(self) -> int:
        """How many containers were created."""
        with self._lock:
            return sum(map(len, self._creates.values()))

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        upstream = socket.socket(socket.AF_UNIX)
        upstream.connect(self._engine)
        threading.Thread(target=_pass_on, args=(upstream, client), daemon=True).start()
        with suppress(OSError), client.makefile("rb") as stream:
            for head, body in _requests(stream):
                self._note(head, body)
                upstream.sendall(head + body)
        with suppress(OSError):
            upstream.shutdown(socket.SHUT_WR)

    def _note(self, head: bytes, body: bytes) -> None:
        method, target, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
        address = urlsplit(target)
        if method != "POST" or not address.path.endswith("/containers/create"):
            return
        made = json.loads(body)
        of = made.get("Labels") or {}
        with self._lock:
            self.names += parse_qs(address.query).get("name", [])
            key = (of.get(labels.USER, ""), of.get(labels.SERVER, ""))
            self._creates.setdefault(key, []).append(made)


def _requests(stream: Any) -> Iterator[tuple[bytes, bytes]]:
    """(head, body) of each request of a connection. The SDK always says the length."""
    while True:
        lines = []
        while (line := stream.readline()) not in (b"\r\n", b""):
            lines.append(line)
        if not line:
            return
        head = b"".join(lines) + b"\r\n"
        length = 0
        for line in lines[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        yield head, stream.read(length)


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()
