"""Memory of processes, from /proc."""

from __future__ import annotations

from pathlib import Path

_SERVICE = b"jupyterhub_gpuspawner.service"


def rss(pid: int, peak: bool = False) -> float:
    """Resident memory of a process in MiB: now, or the most it ever had. 0.0 = it is gone."""
    wanted = "VmHWM:" if peak else "VmRSS:"
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    lines = [line.split()[1] for line in text.splitlines() if line.startswith(wanted)]
    return int(lines[0]) / 1024 if lines else 0.0


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100.0


def service_pids(hub: int) -> tuple[int, list[int]]:
    """Supervisor (0 = there is none) and scheduler processes below a Hub's process."""
    found = [pid for pid in _descendants(hub) if _SERVICE in _command(pid)]
    parents = {pid: _parent(pid) for pid in found}
    tops = [pid for pid in found if parents[pid] not in found]
    return (tops[0] if tops else 0), [pid for pid in found if pid not in tops]


def _descendants(root: int) -> list[int]:
    parents = {int(entry.name): _parent(int(entry.name)) for entry in _processes()}
    family, grown = {root}, True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in family} - family
        family |= more
        grown = bool(more)
    return sorted(family - {root})


def _processes() -> list[Path]:
    return [entry for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return -1


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
