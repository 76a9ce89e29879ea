"""The engine's HTTP API over its socket, with the standard library alone."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode


class EngineSilent(Exception):
    """The engine gave no answer that can be used."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(self._path)
        except OSError:
            self.sock.close()
            raise


class EngineApi:
    """GET requests to one engine. A new connection for each: nothing is shared or kept.

    Parameters
    ----------
    path:
        The engine's socket.
    timeout:
        Seconds for each answer.
    """

    def __init__(self, path: str, timeout: float = 30.0) -> None:
        self.path = path
        self.timeout = timeout

    def get(self, path: str, **query: Any) -> Any:
        """The JSON answer; None for 404. EngineSilent for everything else."""
        connection = _UnixConnection(self.path, self.timeout)
        try:
            connection.request("GET", _address(path, query))
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise EngineSilent(f"GET {path}: {error!r}") from error
        finally:
            connection.close()
        if response.status == 404:
            return None
        if response.status != 200:
            raise EngineSilent(f"GET {path}: {response.status} {body[:200]!r}")
        return json.loads(body)

    def containers(self) -> list[dict[str, Any]]:
        """Every container, whatever its state, as inspect shows it."""
        rows = self.get("/containers/json", all="1") or []
        seen = (self.container(str(row["Id"])) for row in rows)
        return [info for info in seen if info is not None]

    def container(self, container_id: str) -> dict[str, Any] | None:
        """One container; None = there is none."""
        found: dict[str, Any] | None = self.get(f"/containers/{quote(container_id, safe='')}/json")
        return found

    def memory(self) -> int:
        """Bytes of memory of the engine's machine; 0 = it does not say."""
        info: dict[str, Any] = self.get("/info") or {}
        return int(info.get("MemTotal") or 0)

    def networks(self) -> list[dict[str, Any]]:
        """Every network."""
        found: list[dict[str, Any]] = self.get("/networks") or []
        return found

    def volumes(self) -> list[dict[str, Any]]:
        """Every volume."""
        answer: dict[str, Any] = self.get("/volumes") or {}
        return list(answer.get("Volumes") or [])

    def past_events(self, since: float, until: float) -> list[dict[str, Any]]:
        """The events between two POSIX times, as far as the engine remembers (256 of them)."""
        return list(self._events({"since": f"{since:.9f}", "until": f"{until:.9f}"}, self.timeout))

    def events(self, since: float) -> Iterator[dict[str, Any]]:
        """Events from ``since`` on, as they come, until the connection breaks (EngineSilent)."""
        yield from self._events({"since": f"{since:.9f}"}, None)

    def _events(self, query: dict[str, str], timeout: float | None) -> Iterator[dict[str, Any]]:
        connection = _UnixConnection(self.path, timeout)
        try:
            connection.request("GET", _address("/events", query))
            response = connection.getresponse()
            if response.status != 200:
                raise EngineSilent(f"GET /events: {response.status}")
            while line := response.readline():
                if line.strip():
                    yield json.loads(line)
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise EngineSilent(f"GET /events: {error!r}") from error
        finally:
            connection.close()


def _address(path: str, query: dict[str, Any]) -> str:
    return f"{path}?{urlencode(query)}" if query else path
