"""What the node has: from a device source and the engine to one report for the scheduler."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .. import units
from ..device_names import qualified
from ..discovery import cdi
from ..discovery.alarms import Alarms
from ..discovery.auto import AutoSource
from ..discovery.base import Report, Source, Usage
from ..discovery.engine import Capabilities, Plan, capabilities, plan
from ..discovery.facts import read_node
from ..discovery.nvml import NvmlSource
from ..discovery.simulated import SimulatedSource
from ..discovery.static import StaticSource
from ..engine import labels
from ..engine.observe import UNNAMED, Observation
from ..errors import DiscoveryError
from ..scheduler.events import NodeReported
from ..scheduler.models import Device, DeviceStatus, Health, Injection, Lease
from ..scheduler.state import SchedulerState
from .options import GPUScheduler

log = logging.getLogger("gpus.inventory")

#: seconds a source may take; it has a shorter limit of its own
LIMIT = 120.0

Devices = tuple[tuple[Device, DeviceStatus], ...]


class NoSource:
    """A node without GPUs."""

    name = "none"

    def __init__(self, node: str) -> None:
        self._node = node

    def discover(self) -> Report:
        """The machine and no device."""
        return Report(node=read_node(self._node))


@dataclass(frozen=True, kw_only=True, slots=True)
class Sources:
    """The device source that the options ask for."""

    source: Source
    #: the part of it that simulates, if any: its CDI spec is ours to write
    simulated: SimulatedSource | None
    #: whether it asks NVIDIA's driver where it finds one
    nvml: bool = False


def make_sources(options: GPUScheduler, containers: Callable[[], Collection[str]]) -> Sources:
    """Build the source. ``containers`` gives the ids of our containers, from any thread."""
    node = options.node_name
    simulated = None
    if options.simulate and options.discovery in ("auto", "simulated"):
        simulated = SimulatedSource(options.simulate, node, board=options.simulate_board)
    nvml = NvmlSource(node, containers)
    source: Source
    if options.discovery == "simulated" and simulated is not None:
        source = simulated
    elif options.discovery == "static":
        source = StaticSource(options.static_devices, node)
    elif options.discovery == "nvml":
        source = nvml
    elif options.discovery == "auto":
        source = AutoSource(node, nvml, simulated)
    else:
        source = NoSource(node)
    asks_driver = options.discovery in ("auto", "nvml")
    return Sources(source=source, simulated=simulated, nvml=asks_driver)


@dataclass(kw_only=True)
class Inventory:
    """Looks at the node's devices, and knows how each gets into a container."""

    sources: Sources
    #: POSIX seconds
    clock: Callable[[], float]
    #: what the driver has reported by itself
    alarms: Alarms
    #: set once GPUs were seen whose driver can report something
    listens: asyncio.Event = field(default_factory=asyncio.Event)
    #: directory for the CDI spec of simulated devices; "" = find one
    cdi_dir: str = ""
    #: the engine shares this machine's file system
    local_engine: bool = True
    #: device id -> way in; filled by each look
    injections: Mapping[str, Injection] = field(default_factory=dict)
    #: device id -> what goes on on it, as of the last look
    usage: Mapping[str, Usage] = field(default_factory=dict)
    #: why the last look failed; "" = it did not
    trouble: str = ""
    _notes: frozenset[str] = frozenset()
    _thread: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="discovery")
    )
    _busy: bool = False

    async def look(self, info: Mapping[str, Any], api_version: str) -> tuple[Report, Plan]:
        """Report and plan, from Docker's ``/info``. Raises ``DiscoveryError``."""
        if self._busy:
            raise DiscoveryError("the last look at the GPUs still hangs")
        self._busy = True
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._thread, self._look, dict(info), api_version)
        future.add_done_callback(self._done)
        # not wait_for: it loses a cancel that comes together with the answer (before Python 3.12)
        await asyncio.wait([future], timeout=LIMIT)
        if not future.done():
            raise DiscoveryError(f"no answer about the GPUs after {LIMIT:g} s")
        report, how = future.result()
        if self.sources.nvml and any(not device.simulated for device, _ in report.devices):
            self.listens.set()
        report = self.alarms.heed(report, self.clock())
        self.injections = how.injections
        self.usage = report.usage
        for note in sorted(set(report.notes) - self._notes):
            log.warning("%s: %s", report.node.name, note)
        self._notes = frozenset(report.notes)
        return report, how

    def close(self) -> None:
        """Let the thread end; a look that hangs is left behind."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _done(self, future: asyncio.Future[Any]) -> None:
        self._busy = False
        if not future.cancelled():
            future.exception()

    def _look(self, info: dict[str, Any], api_version: str) -> tuple[Report, Plan]:
        report = self.sources.source.discover()
        report = replace(report, node=read_node(report.node.name, info=info))
        engine = capabilities(info, api_version)
        devices = [device for device, _ in report.devices]
        return report, plan(devices, engine, self._local_names(devices, engine))

    def _local_names(self, devices: list[Device], engine: Capabilities) -> frozenset[str]:
        """CDI names that spec files define; simulated ones are written where they are missing."""
        folders: tuple[str, ...] = (self.cdi_dir,) if self.cdi_dir else ()
        if not folders and self.local_engine:
            folders = engine.spec_dirs
        if not engine.cdi or not folders:
            return frozenset()
        simulated = self.sources.simulated
        if simulated is None or not any(device.simulated for device in devices):
            return cdi.names_in(folders)
        # a name that two files define is one that the engine can't resolve
        names = cdi.names_in(folders, without=simulated.cdi_path(folders[0]))
        own = frozenset(qualified(device.id) for device in simulated.devices)
        if own <= names or self._write_simulated(simulated, folders[0]):
            return names | own
        return names

    def _write_simulated(self, simulated: SimulatedSource, folder: str) -> bool:
        try:
            if simulated.write_cdi_spec(Path(folder)):
                log.info("simulated GPUs are defined in %s", simulated.cdi_path(folder))
        except DiscoveryError as error:
            if not self.injections:
                log.info("simulated GPUs get in by bind mount: %s", error)
            return False
        return True


class SwarmInventory:
    """How the devices of all nodes get into a service."""

    def __init__(self) -> None:
        #: device id -> way in; filled by each look
        self.injections: dict[str, Injection] = {}
        #: device id -> what goes on on it; a manager sees nothing of that
        self.usage: dict[str, Usage] = {}
        #: why the last look failed; never so, as the manager's list is the look
        self.trouble = ""

    def close(self) -> None:
        """Nothing to end."""


def foreign_use(
    seen: Iterable[Observation], leases: Iterable[Lease], devices: Collection[Device]
) -> dict[str, str]:
    """Device id -> which running container uses it without holding it. Pure.

    ``seen`` are containers of anybody; ``leases`` are the live ones. One that its admin calls an
    observer has GPUs and leaves them alone; should it compute, the driver tells.
    """
    held = {lease.container_id: set(lease.devices) for lease in leases}
    used: dict[str, str] = {}
    for container in seen:
        watches = container.labels.get(labels.KIND) == labels.Kind.OBSERVER
        if container.live and container.injected and not watches:
            own = held.get(container.container_id, set())
            name = container.name or container.container_id[:12]
            for device in _named(container.injected, devices) - own:
                used[device] = f"container {name} uses it"
    return used


def _named(injected: Iterable[str], devices: Collection[Device]) -> set[str]:
    """Ids of our devices that the words in a container's configuration mean."""
    found: set[str] = set()
    for name in injected:
        for device in devices:
            path = f"/dev/nvidia{device.index}"
            real = not device.simulated
            if name == device.id or (real and name in (UNNAMED, path, device.parent)):
                found.add(device.id)
    return found


def merged(report: Report, how: Plan, foreign: Mapping[str, str], held: Collection[str]) -> Devices:
    """The report's devices with all that is known about their use. Pure.

    ``held``: devices that were in a live lease at any time since before the report was made.
    A free device that is not seen empty is in use by somebody.
    """
    devices: list[tuple[Device, DeviceStatus]] = []
    for device, status in report.devices:
        notes = [status.note] if status.note else []
        problem = how.problems.get(device.id)
        if problem is not None:
            notes.append(problem)
            if status.health is Health.OK:
                status = replace(status, health=Health.SUSPECT)
        use = foreign.get(device.id) or _leftover(report.usage.get(device.id), device.id in held)
        if use is not None:
            notes.append(use)
            status = replace(status, foreign=True)
        devices.append((device, replace(status, note="; ".join(dict.fromkeys(notes)))))
    return tuple(devices)


def _leftover(usage: Usage | None, held: bool) -> str | None:
    """Why a device counts as used although nobody holds it; None = it doesn't."""
    if usage is None or held or usage.empty() is True:
        return None
    if usage.memory_used is None:
        return "how much of its memory is in use can't be read"
    return f"{units.format_memory(usage.memory_used)} of its memory are still in use"


def occupied(report: Report) -> frozenset[str]:
    """Devices that were not seen empty: released ones are not granted again yet. Pure."""
    return frozenset(
        device_id for device_id, usage in report.usage.items() if usage.empty() is not True
    )


def working(report: Report) -> dict[str, bool]:
    """Device id -> whether it computed at the moment of the report. Pure.

    Without those of which nobody knows: a MIG instance with a process on it, a device that no
    source measures.
    """
    found = {}
    for device_id, usage in report.usage.items():
        if usage.utilisation is not None:
            found[device_id] = usage.utilisation > 0
        elif usage.processes == ():
            found[device_id] = False
    return found


def doubtful(state: SchedulerState, node: str, why: str) -> NodeReported | None:
    """The event for "the device source can't be read": nothing is granted, nothing released.

    The node stays up, because its engine answers: leases are certain, only devices are not.
    None while the node was never reported.
    """
    known = state.tables.nodes.get(node)
    if known is None:
        return None
    devices = []
    for device_id in sorted(state.tables.devices_of_node[node]):
        status = state.tables.status[device_id]
        if status.present:
            health = Health.SUSPECT if status.health is Health.OK else status.health
            note = f"its source can't be read: {why}"
            devices.append(
                (state.tables.devices[device_id], replace(status, health=health, note=note))
            )
    return NodeReported(node=known, devices=tuple(devices))


def held(state: SchedulerState) -> frozenset[str]:
    """Devices in live leases."""
    return frozenset(device for lease in state.tables.leases.values() for device in lease.devices)
