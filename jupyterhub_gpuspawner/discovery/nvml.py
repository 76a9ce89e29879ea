"""NVIDIA GPUs, asked through NVML in a child process that can be abandoned.

A hung driver call can't be interrupted: the process stays in uninterruptible sleep and even
SIGKILL has to wait. So the child is left behind, and no other is started until it is gone.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import IO, Any, Protocol

from ..errors import DiscoveryError, GPUSpawnerError
from ..scheduler.models import Device
from . import health
from .base import Report
from .facts import NodeFacts, read_node
from .nvml_report import make_report

#: seconds a probe may take. A driver without persistence mode wakes up each GPU first, which
#: takes 1 to 2 s for each
TIME_LIMIT = 45.0
#: seconds a killed probe gets to end
KILL_GRACE = 2.0

_MODULE = "jupyterhub_gpuspawner.discovery.nvml_probe"
_MAX_STDERR = 300


class NvmlAbsent(DiscoveryError):
    """No NVML library, no driver loaded, or no GPU listed."""


class Child(Protocol):
    """What is used of :class:`subprocess.Popen`."""

    pid: int

    def communicate(self, input: None = None, timeout: float | None = None) -> tuple[str, str]: ...
    def kill(self) -> None: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...

    @property
    def stdout(self) -> IO[str] | None: ...
    @property
    def stderr(self) -> IO[str] | None: ...
    @property
    def returncode(self) -> int | None: ...


def start_probe() -> Child:
    """Start the probe with this interpreter and this package, wherever they are installed."""
    return subprocess.Popen(
        [sys.executable, "-m", _MODULE],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        # a Ctrl-C at the terminal ends the service in its own order, not the probe first
        start_new_session=True,
    )


class NvmlSource:
    """Reports the NVIDIA GPUs and MIG instances of this machine.

    Parameters
    ----------
    node:
        Name of this machine.
    containers:
        Gives the full ids of our containers. A process on a GPU that is in none of them is
        foreign. Called before and after each probe, so that a container that starts or ends
        meanwhile counts as ours.
    time_limit:
        Seconds a probe may take.
    start:
        Starts a probe; :func:`start_probe`.
    """

    name = "nvml"

    def __init__(
        self,
        node: str,
        containers: Callable[[], Collection[str]],
        *,
        time_limit: float = TIME_LIMIT,
        facts: NodeFacts = read_node,
        start: Callable[[], Child] = start_probe,
    ) -> None:
        self._node = node
        self._containers = containers
        self._time_limit = time_limit
        self._facts = facts
        self._start = start
        self._lock = threading.Lock()
        self._abandoned: Child | None = None
        self._remembered: tuple[Device, ...] = ()

    def discover(self) -> Report:
        """Ask NVML. One probe at a time; further callers wait their turn.

        Raises
        ------
        NvmlAbsent
            No library, no driver, or no GPU.
        DiscoveryError
            No answer in time, an earlier probe still hangs, or NVML failed as a whole.
        """
        with self._lock:
            node = self._facts(self._node)
            before = self._ours()
            document = self._probe()
            ours = before | self._ours()
            report = make_report(document, node, ours, self._remembered)
            self._remembered = tuple(device for device, _ in report.devices)
            return report

    def document(self) -> Mapping[str, Any]:
        """What the probe says, unjudged. Raises as :meth:`discover`."""
        with self._lock:
            return self._probe()

    def _ours(self) -> frozenset[str]:
        try:
            return frozenset(self._containers())
        except GPUSpawnerError as error:
            raise DiscoveryError(f"our containers can't be listed: {error}") from error

    def _probe(self) -> Mapping[str, Any]:
        if self._abandoned is not None:
            if self._abandoned.poll() is None:
                raise self._hangs(self._abandoned)
            self._abandoned = None
        try:
            child = self._start()
        except OSError as error:
            raise DiscoveryError(f"NVML probe can't be started: {error}") from error
        try:
            out, err = child.communicate(timeout=self._time_limit)
        except subprocess.TimeoutExpired:
            self._abandon(child)
            raise DiscoveryError(
                f"NVML gave no answer within {self._time_limit:g} s, the probe was killed. "
                "If this repeats, look for 'NVRM' and 'Xid' in dmesg"
            ) from None
        return _parse(child.returncode, out, err)

    def _abandon(self, child: Child) -> None:
        """Kill ``child``; where that doesn't end it, leave it behind and raise."""
        child.kill()
        try:
            child.wait(timeout=KILL_GRACE)
        except subprocess.TimeoutExpired:
            self._abandoned = child
            raise self._hangs(child) from None
        finally:
            for pipe in (child.stdout, child.stderr):
                if pipe is not None:
                    pipe.close()

    def _hangs(self, child: Child) -> DiscoveryError:
        return DiscoveryError(
            f"NVML probe (PID {child.pid}) hangs in the driver and can't be killed. No other "
            "is started until it is gone; most often only a reboot of the machine helps"
        )


def _parse(returncode: int | None, out: str, err: str) -> Mapping[str, Any]:
    """The document that a probe printed.

    Raises
    ------
    NvmlAbsent, DiscoveryError
        It printed none, or one that says that NVML failed.
    """
    if returncode != 0:
        last = err.strip()[-_MAX_STDERR:] or "nothing on standard error"
        raise DiscoveryError(f"NVML probe ended with status {returncode}: {last}")
    try:
        document = json.loads(out)
    except ValueError:
        raise DiscoveryError(f"NVML probe printed no JSON: {out[:80]!r}") from None
    failure = document.get("error")
    if failure is None:
        if not document["gpus"]:
            raise NvmlAbsent("NVML lists no GPU")
        return dict(document)
    text = f"{failure['call']}: {failure['text']} (NVML error {failure['code']})"
    if failure["code"] in (health.LIBRARY_NOT_FOUND, health.DRIVER_NOT_LOADED):
        raise NvmlAbsent(text)
    if failure["code"] == health.LIB_RM_VERSION_MISMATCH:
        text += ". The driver was updated while loaded; reboot the machine"
    raise DiscoveryError(text)
