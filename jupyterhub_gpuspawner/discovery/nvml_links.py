"""How the GPUs are connected, as NVML tells it: part of the probe, in the same child process.

What can't be read is left out: a GPU whose neighbours are not known is as good as any other, and
what is wrong with a GPU is found by :mod:`.nvml_probe`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pynvml

#: what stands for an NVSwitch in place of the other GPU
_SWITCH = "switch"


def peers(count: int) -> dict[int, list[list[int]]]:
    """GPU -> ``[other GPU, topology level, NVLinks]`` for each other one; by index.

    The level is one of ``NVML_TOPOLOGY_*``; -1 = not known.
    """
    handles = {}
    for index in range(count):
        handle = _try(pynvml.nvmlDeviceGetHandleByIndex, index)
        if handle is not None:
            handles[index] = handle
    if len(handles) < 2:
        return {}
    buses = {index: _bus(handle) for index, handle in handles.items()}
    links = {index: _links(handle) for index, handle in handles.items()}
    found: dict[int, list[list[int]]] = {}
    for a, first in handles.items():
        for b, second in handles.items():
            if a == b:
                continue
            level = _try(pynvml.nvmlDeviceGetTopologyCommonAncestor, first, second)
            # all that go to the switches reach every other GPU that does
            nvlinks = links[a][buses[b]] or min(links[a][_SWITCH], links[b][_SWITCH])
            found.setdefault(a, []).append([b, -1 if level is None else level, nvlinks])
    return found


def _links(handle: Any) -> Counter[str | None]:
    """Bus id of the other end, or the switches -> active links."""
    found: Counter[str | None] = Counter()
    for link in range(pynvml.NVML_NVLINK_MAX_LINKS):
        state = _try(pynvml.nvmlDeviceGetNvLinkState, handle, link)
        if state is None:
            # this GPU has no more of them
            break
        if state != pynvml.NVML_FEATURE_ENABLED:
            continue
        kind = _try(pynvml.nvmlDeviceGetNvLinkRemoteDeviceType, handle, link)
        if kind == pynvml.NVML_NVLINK_DEVICE_TYPE_SWITCH:
            found[_SWITCH] += 1
        elif kind == pynvml.NVML_NVLINK_DEVICE_TYPE_GPU:
            remote = _try(pynvml.nvmlDeviceGetNvLinkRemotePciInfo, handle, link)
            if remote is not None:
                found[_text(remote.busId)] += 1
    return found


def _bus(handle: Any) -> str | None:
    info = _try(pynvml.nvmlDeviceGetPciInfo, handle)
    return None if info is None else _text(info.busId)


def _text(value: bytes | str) -> str:
    return (value.decode() if isinstance(value, bytes) else value).casefold()


def _try(call: Callable[..., Any], *arguments: Any) -> Any:
    """The answer; None where there is none."""
    try:
        return call(*arguments)
    except pynvml.NVMLError:
        return None
