"""Keeps the scheduler process running, and ends with the Hub.

The Hub itself restarts a service only after 24 to 29 s. This small process does it at once,
and after repeated failures more slowly. It imports little, so that it stays small.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

log = logging.getLogger("gpus.supervisor")

#: the scheduler ends with this where a younger scheduler writes its ledger
EXIT_FENCED = 75
#: wrong configuration: starting again does not help
EXIT_CONFIG = 78

#: seconds a child has to live before a failure counts as a new one
STABLE = 10.0
FIRST_DELAY, LONGEST_DELAY = 0.2, 5.0
#: seconds after a fence: the younger one does the work, this one only stands by
FENCED_DELAY = 30.0
#: seconds a child gets to end after SIGTERM
STOP_LIMIT = 10.0
#: seconds between two looks at child and parent
_LOOK = 0.1


@dataclass(kw_only=True, slots=True)
class Backoff:
    """How long to wait before the next start. Pure."""

    failures: int = 0

    def delay(self, exit_code: int, lived: float) -> float:
        """Seconds to wait after a child ended with ``exit_code`` (negative: killed by a signal).

        ``lived`` is how many seconds it ran. Always below 2 s for the first failure.
        """
        if exit_code == EXIT_FENCED:
            return FENCED_DELAY
        self.failures = 1 if lived >= STABLE else self.failures + 1
        return min(FIRST_DELAY * 2.0 ** min(self.failures - 1, 16), LONGEST_DELAY)


class Supervisor:
    """Starts ``command`` again and again until it is told to end.

    Parameters
    ----------
    command:
        The scheduler's command line.
    parent:
        Process id to live with; None = run until a signal comes.
    """

    def __init__(self, command: Sequence[str], parent: int | None) -> None:
        self._command = list(command)
        self._parent = parent
        self._child: subprocess.Popen[bytes] | None = None
        self._ending = False
        self._backoff = Backoff()

    def run(self) -> int:
        """Run until SIGTERM, SIGINT, the parent's end, or a wrong configuration."""
        for sig in (signal.SIGTERM, signal.SIGINT):
            signal.signal(sig, self._end)
        while not self._ending:
            started = time.monotonic()
            child = self._child = subprocess.Popen(self._command, env=self._environment())
            if not self._wait(lambda child=child: child.poll() is not None):
                break
            code = child.returncode
            if code == EXIT_CONFIG:
                log.error("scheduler: its configuration is wrong, not started again")
                return EXIT_CONFIG
            delay = self._backoff.delay(code, time.monotonic() - started)
            log.error("scheduler: ended with %s, started again in %.1f s", _words(code), delay)
            until = time.monotonic() + delay
            self._wait(lambda until=until: time.monotonic() >= until)
        self._stop_child()
        return 0

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "GPUS_SUPERVISOR_PID": str(os.getpid())}

    def _wait(self, done: Callable[..., bool]) -> bool:
        """Wait until ``done()``; False where it is time to end instead."""
        while not self._ending:
            if done():
                return True
            if self._parent is not None and os.getppid() != self._parent:
                log.warning("supervisor: the Hub is gone, ending")
                self._ending = True
            else:
                time.sleep(_LOOK)
        return False

    def _end(self, number: int, frame: object) -> None:
        self._ending = True

    def _stop_child(self) -> None:
        child = self._child
        if child is None or child.poll() is not None:
            return
        child.terminate()
        try:
            child.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            # Nothing is lost: what the scheduler decided is on disk before anybody knows of it.
            log.error("scheduler: did not end within %g s, killed", STOP_LIMIT)
            child.kill()
            child.wait()


def child_command(arguments: Sequence[str]) -> list[str]:
    """The command line of the scheduler itself."""
    return [sys.executable, "-m", "jupyterhub_gpuspawner.service", "--scheduler", *arguments]


def _words(code: int) -> str:
    if code == EXIT_FENCED:
        return "a younger scheduler in its place"
    if code < 0:
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"
    return f"exit code {code}"
