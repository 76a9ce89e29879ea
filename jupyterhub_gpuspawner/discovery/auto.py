"""The source for "no source was named": real GPUs where there are any, else simulated ones
where the configuration asks for them, else none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ..errors import DiscoveryError
from ..scheduler.models import Device, DeviceStatus, Node
from .base import Report, Source, Usage
from .facts import NodeFacts, nvidia_hardware, read_node
from .nvml import NvmlAbsent


def merge(reports: Sequence[Report]) -> Report:
    """One report of several about the same node. The first one's node facts count.

    Raises
    ------
    DiscoveryError
        No report, reports of different nodes, or a device in two of them.
    """
    if not reports:
        raise DiscoveryError("no device source is configured")
    node: Node = reports[0].node
    devices: dict[str, tuple[Device, DeviceStatus]] = {}
    usage: dict[str, Usage] = {}
    for report in reports:
        if report.node.name != node.name:
            raise DiscoveryError(
                f"sources report different nodes: {node.name!r} and {report.node.name!r}"
            )
        for device, status in report.devices:
            if device.id in devices:
                raise DiscoveryError(f"two sources report {device.id!r}; remove one of them")
            devices[device.id] = (device, status)
        usage.update(report.usage)
    return Report(
        node=node,
        devices=tuple(devices.values()),
        usage=usage,
        notes=tuple(note for report in reports for note in report.notes),
    )


class MergedSource:
    """Several sources of one node as one. If one can't be read, nothing is known."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = tuple(sources)
        self.name = "+".join(source.name for source in self._sources)

    def discover(self) -> Report:
        """All reports, merged."""
        return merge([source.discover() for source in self._sources])


class AutoSource:
    """NVML if it finds a GPU; else ``simulated``, if there is one; else no device.

    The choice holds: once real GPUs were seen, a machine that shows none any more is an
    error, never a reason to simulate. Simulated GPUs stay until the process ends.

    ``hardware`` counts the NVIDIA GPUs on the PCI bus.
    """

    name = "auto"

    def __init__(
        self,
        node: str,
        nvml: Source,
        simulated: Source | None = None,
        *,
        facts: NodeFacts = read_node,
        hardware: Callable[[], int] = nvidia_hardware,
    ) -> None:
        self._node = node
        self._nvml = nvml
        self._simulated = simulated
        self._facts = facts
        self._hardware = hardware
        self._chosen: Source | None = None

    def discover(self) -> Report:
        """The report of the source that was chosen at the first success.

        Raises
        ------
        DiscoveryError
            The chosen source can't be read; or GPUs are on the bus without a driver, and
            no simulation is configured.
        """
        if self._chosen is not None:
            return self._chosen.discover()
        try:
            report = self._nvml.discover()
        except NvmlAbsent as error:
            note = self._explain(error)
        else:
            self._chosen = self._nvml
            return report
        if self._simulated is not None:
            self._chosen = self._simulated
            report = self._simulated.discover()
            return replace(report, notes=(*report.notes, note))
        return Report(node=self._facts(self._node), notes=(note,))

    def _explain(self, error: NvmlAbsent) -> str:
        count = self._hardware()
        if count and self._simulated is None:
            raise DiscoveryError(
                f"This machine has {count} NVIDIA GPU(s), but their driver does not answer "
                f"({error}). Install or load the NVIDIA driver, or configure simulated GPUs"
            ) from error
        return f"No NVIDIA GPU: {error}"
