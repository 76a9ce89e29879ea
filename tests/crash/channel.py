"""A command channel between the controller and a child: JSON lines over a unix socket."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import threading
import time
from pathlib import Path
from typing import Any


class Dead(Exception):
    """The child is gone, or does not answer in time."""


class Child:
    """One forked process, as the controller sees it.

    Parameters
    ----------
    pid:
        Of the process.
    connection:
        Its side of the conversation.
    """

    def __init__(self, pid: int, connection: socket.socket) -> None:
        self.pid = pid
        self._connection = connection
        self._answers: dict[int, dict[str, Any]] = {}
        self._news = threading.Condition()
        self._next = 0
        self.gone = False
        # Daemon: it ends with the connection.
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            with self._connection.makefile("rb") as lines:
                for line in lines:
                    answer = json.loads(line)
                    with self._news:
                        self._answers[answer["id"]] = answer
                        self._news.notify_all()
        except (OSError, ValueError):
            pass
        with self._news:
            self.gone = True
            self._news.notify_all()
        self._connection.close()

    def send(self, verb: str, **arguments: Any) -> int:
        """Begin a command; its number."""
        with self._news:
            number = self._next = self._next + 1
        line = json.dumps({"id": number, "do": verb, **arguments}).encode() + b"\n"
        with contextlib.suppress(OSError):  # it is dead; who waits for the answer hears of it
            self._connection.sendall(line)
        return number

    def wait(self, number: int, seconds: float) -> dict[str, Any] | None:
        """The answer to a command; None = not within the time. Dead."""
        until = time.monotonic() + seconds
        with self._news:
            while number not in self._answers:
                if self.gone:
                    raise Dead(f"process {self.pid} is gone")
                left = until - time.monotonic()
                if left <= 0:
                    return None
                self._news.wait(left)
            return self._answers.pop(number)

    def ask(self, verb: str, seconds: float = 20.0, **arguments: Any) -> Any:
        """Do a command to its end; its result. Dead; RuntimeError for an error."""
        answer = self.wait(self.send(verb, **arguments), seconds)
        if answer is None:
            raise Dead(f"process {self.pid}: no answer to {verb}")
        if "error" in answer:
            raise RuntimeError(f"{verb}: {answer['error']}")
        return answer["result"]

    def kill(self) -> None:
        """kill -9, and wait until it is gone. May be repeated."""
        if not self.gone:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, 9)
        with self._news:
            self._news.wait_for(lambda: self.gone, 10)
        _wait_for_end(self.pid, 10)


def _wait_for_end(pid: int, seconds: float) -> None:
    """Until a process has closed everything: its connection may end before it leaves its port."""
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        try:
            select.select([handle], [], [], seconds)
        finally:
            os.close(handle)


class Listener:
    """Where a child that is about to be forked will call."""

    def __init__(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self.path = str(path)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(self.path)
        self._socket.listen(1)

    def accept(self, pid: int, seconds: float = 20.0) -> Child:
        """The child's call."""
        self._socket.settimeout(seconds)
        try:
            connection, _ = self._socket.accept()
        except TimeoutError:
            raise Dead(f"process {pid} does not call") from None
        finally:
            self._socket.close()
        connection.settimeout(None)
        return Child(pid, connection)
