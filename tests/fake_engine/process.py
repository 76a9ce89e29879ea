"""The fake engine as a process of its own: it outlives every kill of Hub and scheduler."""

from __future__ import annotations

import ctypes
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
_PR_SET_PDEATHSIG = 1


class FakeEngine:
    """A running fake engine; a context manager.

    Parameters
    ----------
    path:
        Of its socket.
    cdi:
        Fully qualified names of the CDI devices it can inject; none = it has no CDI.
    """

    def __init__(self, path: str | Path, cdi: Sequence[str] = ()) -> None:
        self.socket = str(path)
        self.base_url = f"unix://{path}"
        self._cdi = list(cdi)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> FakeEngine:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start and wait until it answers."""
        libc = ctypes.CDLL(None)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fake_engine", self.socket, *self._cdi],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            # it ends with who started it, however that ends
            preexec_fn=lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL),
        )
        until = time.monotonic() + 30
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError("the fake engine does not start")
            time.sleep(0.02)

    def stop(self) -> None:
        """End it; all it had is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        Path(self.socket).unlink(missing_ok=True)

    # -- knobs -----------------------------------------------------------------------------

    def reset(self) -> None:
        """Empty it, and disarm all faults."""
        self._tell("reset")

    def die(self, container: str, code: int = 1, oom: bool = False) -> None:
        """The main process of a container ends."""
        self._tell("die", id=container, code=code, oom=oom)

    def log(self, container: str, text: str) -> None:
        """What a container said."""
        self._tell("log", id=container, text=text)

    def fault(self, call: str, action: str, **more: Any) -> None:
        """Arm a fault; see :mod:`.faults`. ``call`` is a regular expression."""
        self._tell("fault", call=call, action=action, **more)

    def slow_removal(self, seconds: float) -> None:
        """Each removal takes this long from now on."""
        self._tell("removal", seconds=seconds)

    def calls(self) -> list[str]:
        """``METHOD /path`` of all calls since the last reset."""
        answer: list[str] = self._tell("calls")
        return answer

    def _tell(self, verb: str, **body: Any) -> Any:
        status, answer = self._post(f"/_fake/{verb}", body)
        if status != 200:
            raise RuntimeError(f"fake engine: {verb}: {status} {answer}")
        return answer

    def _post(self, path: str, body: Any) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("localhost", timeout=10)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(10)
        try:
            connection.sock.connect(self.socket)
            connection.request("POST", path, json.dumps(body))
            response = connection.getresponse()
            return response.status, json.loads(response.read() or b"null")
        finally:
            connection.close()

    def _answers(self) -> bool:
        try:
            return self._post("/_fake/calls", {})[0] == 200
        except OSError:
            return False
