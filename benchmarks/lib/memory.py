"""Memory of processes, from /proc."""

from __future__ import annotations

from pathlib import Path

from tests.testbed import processes

_SERVICE = "jupyterhub_gpuspawner.service"


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
    below = sorted(processes.descendants(hub) - {hub})
    found = [pid for pid in below if _SERVICE in " ".join(processes.command(pid))]
    tops = [pid for pid in found if processes.parent(pid) not in found]
    return (tops[0] if tops else 0), [pid for pid in found if pid not in tops]
