"""What the kernel shows of a container, whatever the engine says."""

from __future__ import annotations

from tests.auditor.history import MARKERS


def devices_of(pid: int) -> frozenset[str] | None:
    """Ids of the marker files that are mounted in the process's file system; None = not seen.

    ``/proc/<pid>/mountinfo`` is the kernel's own list of mounts; its fifth field is the path.
    """
    if pid <= 1:
        return None
    try:
        with open(f"/proc/{pid}/mountinfo", encoding="utf-8") as lines:
            paths = [line.split()[4] for line in lines]
    except (OSError, IndexError):
        return None
    if not paths:
        return None  # a zombie: its mounts are gone already
    return frozenset(path[len(MARKERS) :] for path in paths if path.startswith(MARKERS))
