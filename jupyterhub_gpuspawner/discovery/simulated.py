"""GPUs that don't exist, to try and test everything else without hardware.

Inside a container a simulated device shows as the marker file ``/run/gpus/<id>``; with CDI
also as the device node ``/dev/nvidia<k>``, which is the kernel's null device.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..device_names import CDI_KIND, marker_path, qualified
from ..errors import ConfigError, DiscoveryError
from ..scheduler.models import Device, DeviceStatus
from . import boards, cdi
from .base import Report, Usage
from .facts import NodeFacts, read_node

#: what all ids begin with, so that nobody takes one for a real GPU
PREFIX = "SIMULATED-"
DEFAULT_MODEL = "SIMULATED GPU"
DEFAULT_MEMORY = 16 * 1024**3

_MAX_COUNT = 256
_NODE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,62}[A-Za-z0-9])?", re.ASCII)


def simulated_devices(
    count: int, node: str, *, model: str = DEFAULT_MODEL, memory: int = DEFAULT_MEMORY
) -> tuple[Device, ...]:
    """``count`` devices ``SIMULATED-<node>-<k>`` of ``memory`` bytes each, k from 0.

    Raises
    ------
    ConfigError
        ``count`` is not 1 to 256, or ``node`` can't be part of a CDI name.
    """
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= _MAX_COUNT:
        raise ConfigError(f"simulated GPUs: want a whole number 1 to {_MAX_COUNT}, not {count!r}")
    if not _NODE.fullmatch(node):
        raise ConfigError(
            f"node name {node!r}: want 1 to 64 letters, digits, '-', '_' or '.', "
            "with a letter or digit at both ends"
        )
    return tuple(
        Device(
            id=f"{PREFIX}{node}-{k}",
            node=node,
            index=k,
            model=model,
            memory=memory,
            simulated=True,
        )
        for k in range(count)
    )


def cdi_spec(devices: Sequence[Device]) -> dict[str, Any]:
    """The CDI spec (JSON-able) that injects ``devices``, which all are simulated.

    Version 0.5.0 is the first with ``hostPath`` for device nodes.
    """
    real = [device.id for device in devices if not device.simulated]
    if real:
        raise ValueError(f"not simulated: {', '.join(real)}")
    return {
        "cdiVersion": "0.5.0",
        "kind": CDI_KIND,
        "devices": [{"name": device.id, "containerEdits": _edits(device)} for device in devices],
    }


def _edits(device: Device) -> dict[str, Any]:
    return {
        "deviceNodes": [{"path": f"/dev/nvidia{device.index}", "hostPath": "/dev/null"}],
        "mounts": [
            {
                "hostPath": "/dev/null",
                "containerPath": marker_path(device.id),
                "options": ["bind", "ro", "nosuid", "noexec"],
            }
        ],
    }


class SimulatedSource:
    """Reports ``count`` simulated devices: always healthy, always empty.

    ``memory`` is bytes per device, ``board`` one of :data:`.boards.MODELS`, like which they are
    connected. Parameters are checked at once (ConfigError).
    """

    name = "simulated"

    def __init__(
        self,
        count: int,
        node: str,
        *,
        model: str = DEFAULT_MODEL,
        memory: int = DEFAULT_MEMORY,
        board: str = "",
        facts: NodeFacts = read_node,
    ) -> None:
        self._node = node
        self._facts = facts
        self.devices = simulated_devices(count, node, model=model, memory=memory)
        if board:
            if board not in boards.MODELS:
                known = ", ".join(boards.MODELS)
                raise ConfigError(f"simulated GPUs: no machine {board!r}; known are {known}")
            self.devices = boards.wired(self.devices, boards.MODELS[board])

    def discover(self) -> Report:
        """All devices and this machine's facts."""
        return Report(
            node=self._facts(self._node),
            devices=tuple((device, DeviceStatus()) for device in self.devices),
            usage={device.id: Usage(memory_used=0) for device in self.devices},
        )

    def cdi_path(self, directory: Path | str) -> Path:
        """The one file in ``directory`` that belongs to this node's simulated devices."""
        return Path(directory) / f"jupyterhub-gpuspawner-simulated-{self._node}.json"

    def write_cdi_spec(self, directory: Path | str) -> bool:
        """Define the devices for engines that read ``directory``. True where it changed.

        Only :meth:`cdi_path` is written, and only where it holds nothing but simulated
        devices. Where other files define all of the devices already, nothing is written: an
        engine takes a name that two files define as unknown.

        Raises
        ------
        DiscoveryError
            The file can't be written, somebody else's spec has that name, or other files
            define some of the devices.
        """
        path = self.cdi_path(directory)
        names = {qualified(device.id) for device in self.devices}
        elsewhere = names & cdi.names_in([directory], without=path)
        if elsewhere == names:
            return False
        if elsewhere:
            raise DiscoveryError(
                f"another CDI spec in {directory} defines {min(elsewhere)!r}, but not all "
                f"{len(names)} simulated GPUs of this node. Remove that spec"
            )
        if not _is_ours(path):
            raise DiscoveryError(
                f"{path} is not a CDI spec of simulated GPUs; it stays as it is. Move it away"
            )
        return cdi.write_spec(path, cdi_spec(self.devices))


def _is_ours(path: Path) -> bool:
    """Whether ``path`` may be overwritten: absent, or a spec of simulated devices only."""
    try:
        spec = json.loads(path.read_text())
        return all(str(device["name"]).startswith(PREFIX) for device in spec["devices"])
    except FileNotFoundError:
        return True
    except OSError as error:
        raise DiscoveryError(f"{path} can't be read: {error}") from error
    except (ValueError, KeyError, TypeError):
        return False
