"""Wait for what NVIDIA's driver reports by itself, and print each event as one line of JSON.

Runs as a child process (``python -m jupyterhub_gpuspawner.discovery.nvml_events``) for as long as
its parent lives: a wait in the driver may never return. :mod:`.alarms` draws the conclusions.

Lines: ``{"listening": [uuid…]}`` once, then ``{"gpu": uuid|null, "kind": "xid"|"ecc", "code":
number}``; at last ``{"error": NVML code}`` where listening is not possible (any more).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import pynvml

from ..lifeline import die_with_parent

#: critical errors of the driver (XID), and double-bit memory errors
WANTED = pynvml.nvmlEventTypeXidCriticalError | pynvml.nvmlEventTypeDoubleBitEccError
#: milliseconds of one wait; its end is no event
WAIT = 5000


def listen(say: Callable[[dict[str, Any]], None]) -> None:
    """Say what happens until NVML fails. One that can't tell of events is left to the polls."""
    try:
        pynvml.nvmlInit()
        events = pynvml.nvmlEventSetCreate()
        names = _register(events)
        say({"listening": sorted(names.values())})
        while names:
            try:
                event = pynvml.nvmlEventSetWait_v2(events, WAIT)
            except pynvml.NVMLError as error:
                if error.value != pynvml.NVML_ERROR_TIMEOUT:
                    raise
                continue
            memory = event.eventType == pynvml.nvmlEventTypeDoubleBitEccError
            kind = "ecc" if memory else "xid"
            gpu = names.get(_address(event.device))
            say({"gpu": gpu, "kind": kind, "code": int(event.eventData)})
    except pynvml.NVMLError as error:
        say({"error": error.value})


def _register(events: Any) -> dict[int | None, str]:
    """Handle -> UUID of the GPUs that tell of events. A GPU tells for its MIG instances too."""
    names = {}
    for index in range(pynvml.nvmlDeviceGetCount()):
        # one that is lost already is what the polls find
        with contextlib.suppress(pynvml.NVMLError):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            name = pynvml.nvmlDeviceGetUUID(handle)
            # a kind of event that a GPU doesn't have makes the whole call fail
            kinds = pynvml.nvmlDeviceGetSupportedEventTypes(handle) & WANTED
            if kinds:
                pynvml.nvmlDeviceRegisterEvents(handle, kinds, events)
                names[_address(handle)] = name
    return names


def _address(handle: Any) -> int | None:
    return ctypes.cast(handle, ctypes.c_void_p).value


def main() -> int:
    """Print the lines. Standard output carries nothing else."""
    if not die_with_parent(signal.SIGKILL):
        return 1
    with os.fdopen(os.dup(1), "w") as out:
        os.dup2(2, 1)

        def say(line: dict[str, Any]) -> None:
            out.write(json.dumps(line) + "\n")
            out.flush()

        listen(say)
    return 0


if __name__ == "__main__":
    sys.exit(main())
