"""What a device source is, and what it reports.

A source answers completely or raises :class:`~jupyterhub_gpuspawner.errors.DiscoveryError`.
An error means "nothing is known": the caller then grants nothing and releases nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ..scheduler.models import Device, DeviceStatus, Node

#: bytes of device memory that an idle GPU may show as used. Contexts of the driver itself
#: (display server, persistence) take tens of MiB, the smallest CUDA context more than 200 MiB
EMPTY_TOLERANCE = 128 * 1024**2


@dataclass(frozen=True, kw_only=True, slots=True)
class Process:
    """A process that computes on a device."""

    #: as the driver gives it, which is the machine's PID namespace
    pid: int
    #: bytes of device memory; None = the driver doesn't say
    memory: int | None = None
    #: id of the innermost container it runs in; None = in none, or not known
    container: str | None = None
    #: it is in no container of ours, or nobody can tell
    foreign: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """What goes on on a device at the moment of the report."""

    #: bytes in use by programs, without what the driver reserves; None = could not be read
    memory_used: int | None = None
    #: share of time in which it computed, 0..1; None = not known (always so on MIG)
    utilisation: float | None = None
    #: degrees Celsius; None = not known
    temperature: int | None = None
    #: processes that compute on it; None = could not be read
    processes: tuple[Process, ...] | None = ()

    def empty(self, tolerance: int = EMPTY_TOLERANCE) -> bool | None:
        """Whether nobody uses it. None where that could not be read: treat as "no"."""
        if self.processes:
            return False
        if self.memory_used is None or self.processes is None:
            return None
        return self.memory_used <= tolerance


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """Everything a source knows about one node, at one moment."""

    node: Node
    #: in order of index. ``DeviceStatus.admin`` and ``quarantined`` carry defaults here: they
    #: are decisions, which no measurement knows
    devices: tuple[tuple[Device, DeviceStatus], ...] = ()
    #: by device id. A device that its source can't measure at all (static, simulated by
    #: configuration) has no entry; one that failed to be measured has one with None in it
    usage: Mapping[str, Usage] = field(default_factory=dict)
    #: facts for the admin that belong to no device, one sentence each
    notes: tuple[str, ...] = ()


class Source(Protocol):
    """Something that knows which devices a node has."""

    #: for logs: ``static``, ``simulated``, ``nvml``, ``auto``
    name: str

    def discover(self) -> Report:
        """Look now. Blocks, within a time limit of its own; any thread may call it.

        Raises
        ------
        DiscoveryError
            The source could not be read, or only in part. Nothing is known.
        """
        ...
