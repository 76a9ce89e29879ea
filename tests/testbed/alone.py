"""An engine in a network namespace of its own, where Docker's firewall rules are real.

Nothing leads out of the namespace: what is sent in there to any address stays on this machine.
The program that tests enters it, and reaches containers and a hub in it as on a machine.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.testbed import config
from tests.testbed.engine import Engine
from tests.testbed.processes import Process

#: of ``setns``: a network namespace
_CLONE_NEWNET = 0x40000000


class EngineAlone(Engine):
    """An engine whose node has its own network. Its Docker does all that it does by default."""

    namespaces = ("--mount", "--uts", "--net")
    #: the default bridge's address
    bridge_address = "10.79.0.1"

    @classmethod
    def from_environment(cls) -> EngineAlone:
        """One beside the engine of the single-machine tests, of its family."""
        return cls(f"{Engine.from_environment().name}-alone", node="testbed")

    def _connect(self, holder: Process) -> str:
        with inside(holder.pid):
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        return self.bridge_address

    def _settings(self) -> dict[str, Any]:
        # no resolver: there is none that could be reached
        settings = config.daemon_config(self.tag, ["127.0.0.1"])
        for shared in ("bridge", "iptables", "ip-forward", "ip-masq"):
            del settings[shared]
        return {**settings, "bip": f"{self.bridge_address}/24"}


@contextmanager
def inside(pid: int) -> Iterator[None]:
    """Be in the network namespace of a process, with this thread and what it starts."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        _enter(f"/proc/{pid}/ns/net")
        try:
            yield
        finally:
            _enter(f"/proc/self/fd/{home}")
    finally:
        os.close(home)


def _enter(namespace: str) -> None:
    handle = os.open(namespace, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(handle, _CLONE_NEWNET):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), namespace)
    finally:
        os.close(handle)
