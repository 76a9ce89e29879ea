"""The source for "no source was named": real GPUs where there are any, else simulated ones
where the configuration asks for them, else none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..errors import DiscoveryError
from .base import Report, Source
from .facts import NodeFacts, nvidia_hardware, read_node
from .nvml import NvmlAbsent


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
