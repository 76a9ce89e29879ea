"""The service as a process of its own, and a client that talks to it as the spawner does."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(what: str, check: Callable[[], Any], seconds: float = 60.0) -> Any:
    """The first true answer of ``check``; AssertionError with ``what`` after the time."""
    until = time.monotonic() + seconds
    while True:
        answer = check()
        if answer:
            return answer
        assert time.monotonic() < until, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)


class Service:
    """``python -m jupyterhub_gpuspawner.service`` on a free port."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.port = free_port()
        self.base = f"http://127.0.0.1:{self.port}/services/gpus/"
        self.state = folder / "state"
        self.log = folder / "log"
        self.config = folder / "config.json"
        section = {"state_dir": str(self.state), "url": f"http://127.0.0.1:{self.port}", **options}
        self.config.write_text(json.dumps({"GPUScheduler": section}))
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def command(self) -> list[str]:
        """The supervisor's command line."""
        module = "jupyterhub_gpuspawner.service"
        return [sys.executable, "-m", module, "--config", str(self.config)]

    def start(self, **environment: str) -> None:
        """Start the supervisor; it lives with this process."""
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=REPOSITORY,
                env={**os.environ, **environment},
                stdout=log,
                stderr=log,
            )

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            assert self.process.wait(60) == 0, self.log.read_text()
            self.process = None

    def scheduler_pid(self) -> int | None:
        """The supervisor's child."""
        assert self.process is not None
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        children = path.read_text().split()
        return int(children[0]) if children else None

    def kill_scheduler(self) -> None:
        pid = self.scheduler_pid()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)

    @property
    def token(self) -> str:
        return (self.state / "service-token").read_text().strip()

    def health(self) -> dict[str, Any] | None:
        """The service's answer; None while nobody listens."""
        try:
            with urllib.request.urlopen(f"{self.base}api/health", timeout=5) as answer:
                data: dict[str, Any] = json.load(answer)
                return data
        except OSError:
            return None

    def serving(self) -> bool:
        health = self.health()
        return health is not None and health["phase"] == "serving"

    def wait_serving(self, seconds: float = 120.0) -> None:
        wait_for("the service serves", self.serving, seconds)

    def post(self, path: str, body: Any = None) -> tuple[int, dict[str, Any]]:
        """(status, JSON) of a POST to the internal API."""
        try:
            with self._open(f"{self.base}api/internal/{path}", body or {}) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def summary(self) -> dict[str, Any]:
        with self._open(f"{self.base}api/internal/summary") as answer:
            data: dict[str, Any] = json.load(answer)
            return data

    def states(self) -> list[str]:
        """The state of each device, in order of index."""
        return [device["state"] for device in self.summary()["devices"]]

    @contextmanager
    def ask(self, user: str, count: int = 1, **more: Any) -> Iterator[Iterator[dict[str, Any]]]:
        """Post a request; yields the stream's lines as they come."""
        body = {"user": user, "boot_id": "boot-1", "request": {"count": count}, **more}
        with self._open(f"{self.base}api/internal/requests", body) as answer:
            yield (json.loads(line) for line in answer)

    def lease(self, user: str, count: int = 1) -> dict[str, Any]:
        """Ask and wait; the granted lease."""
        with self.ask(user, count) as lines:
            *_, last = lines
        assert last["event"] == "granted", last
        lease: dict[str, Any] = last["lease"]
        return lease

    def _open(self, url: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            url, data=data, headers={"Authorization": f"token {self.token}"}
        )
        return urllib.request.urlopen(request, timeout=30)
