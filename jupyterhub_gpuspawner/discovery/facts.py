"""Memory, processors and boot id of the machine.

Paths are arguments so that tests can bring their own ``/proc``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..errors import DiscoveryError
from ..scheduler.models import Node

#: makes the node's facts from its name; ``read_node`` is one
NodeFacts = Callable[[str], Node]

_MEM_TOTAL = re.compile(r"^MemTotal:\s+(\d+) kB$", re.MULTILINE)
_NVIDIA_VENDOR = "0x10de"
#: PCI base class 0x03: display controllers, which all GPUs are (0x0300 VGA, 0x0302 3D)
_DISPLAY_CLASS = "0x03"


def read_node(
    name: str, *, info: Mapping[str, Any] | None = None, proc: Path = Path("/proc")
) -> Node:
    """The node called ``name``, as this machine's kernel describes it.

    ``info`` is Docker's ``/info``: where given, its ``MemTotal`` and ``NCPU`` count, because
    they are what the engine measures limits against.

    Raises
    ------
    DiscoveryError
        ``/proc`` can't be read. A made-up boot id would lift quarantines.
    """
    boot_id = _read(proc / "sys/kernel/random/boot_id").strip()
    memory = _positive(info, "MemTotal")
    if memory is None:
        match = _MEM_TOTAL.search(_read(proc / "meminfo"))
        if match is None:
            raise DiscoveryError(f"{proc / 'meminfo'}: no line 'MemTotal: … kB'")
        memory = int(match[1]) * 1024
    cpus = _positive(info, "NCPU") or os.cpu_count() or 1
    return Node(name=name, memory=memory, cpus=float(cpus), boot_id=boot_id)


def nvidia_hardware(sys_root: Path = Path("/sys")) -> int:
    """How many NVIDIA GPUs sit on the PCI bus, driver or not. 0 where that can't be seen."""
    found = 0
    for device in sorted(sys_root.glob("bus/pci/devices/*")):
        try:
            vendor = (device / "vendor").read_text().strip()
            kind = (device / "class").read_text().strip()
        except OSError:
            continue
        found += vendor == _NVIDIA_VENDOR and kind.startswith(_DISPLAY_CLASS)
    return found


def _positive(info: Mapping[str, Any] | None, key: str) -> int | None:
    value = (info or {}).get(key)
    return value if isinstance(value, int) and value > 0 else None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise DiscoveryError(f"{path}: {error}") from error
