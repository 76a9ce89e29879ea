"""Processes that outlive the program that starts them, known by pid *and* start time.

A pid alone is re-used by the kernel; with the start time it names one process for as long as
the machine is up. The boot id does the same over reboots.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

#: Forks, and leaves the child to init: nothing to reap here, and no end with our terminal.
_DETACH = 'log=$1; shift; "$@" >>"$log" 2>&1 </dev/null & echo $!'


def boot_id() -> str:
    """The kernel's name for this run of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _stat(folder: Path) -> list[str] | None:
    """The fields of a process's or thread's ``stat`` from the state on; None when it is gone."""
    try:
        text = (folder / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command's name may hold spaces and brackets: cut after the last one.
    return text.rpartition(")")[2].split()


@dataclass(frozen=True, kw_only=True, slots=True)
class Process:
    """One process on this machine."""

    #: as the host sees it
    pid: int
    #: clock ticks since boot
    started: int

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """The process that has this pid now; None when there is none, or only a zombie."""
        fields = _stat(Path(f"/proc/{pid}"))
        if fields is None or fields[0] in "ZX":
            return None
        return cls(pid=pid, started=int(fields[19]))

    @property
    def alive(self) -> bool:
        return Process.of(self.pid) == self

    def send(self, number: signal.Signals) -> None:
        """Send a signal to exactly this process. A dead one is no error."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return
        try:
            # Checked while the handle is held, so the pid can't change its owner in between.
            if self.alive:
                signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            pass
        finally:
            os.close(handle)

    def wait_gone(self, seconds: float) -> bool:
        """Wait until it is dead; False when it still lives after ``seconds``."""
        end = time.monotonic() + seconds
        while self.alive:
            if time.monotonic() > end:
                return False
            time.sleep(0.02)
        return True

    def stop(self, seconds: float = 10) -> None:
        """SIGSTOP, and wait until each of its threads stands still: the signal takes a moment."""
        self.send(signal.SIGSTOP)
        end = time.monotonic() + seconds
        while any(state != "T" for state in self._thread_states()):
            if time.monotonic() > end:
                raise RuntimeError(f"process {self.pid} does not stop")
            time.sleep(0.01)

    def _thread_states(self) -> Iterator[str]:
        for folder in Path(f"/proc/{self.pid}/task").glob("*"):
            fields = _stat(folder)
            if fields is not None:
                yield fields[0]


def spawn(command: Sequence[str], log: Path) -> Process:
    """Start a process of its own session that appends its output to ``log``."""
    done = subprocess.run(
        ["sh", "-c", _DETACH, "spawn", str(log), *command],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        start_new_session=True,
    )
    process = Process.of(int(done.stdout))
    if process is None:
        raise RuntimeError(f"{command[0]} ended at once, see {log}")
    return process


def all_pids() -> Iterable[int]:
    """Every process that this program can see."""
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def parent(pid: int) -> int:
    """Process id of the parent; 0 = there is no such process."""
    fields = _stat(Path(f"/proc/{pid}"))
    return int(fields[1]) if fields is not None else 0


def descendants(*roots: int) -> set[int]:
    """Process ids of everything that these have started and that still has them above it.

    The roots themselves are among them.
    """
    children: dict[int, list[int]] = {}
    for pid in all_pids():
        children.setdefault(parent(pid), []).append(pid)
    found: set[int] = set()
    todo = list(roots)
    while todo:
        pid = todo.pop()
        if pid not in found:
            found.add(pid)
            todo.extend(children.get(pid, ()))
    return found


def command(pid: int) -> list[str]:
    """The words of its command line; none where it is gone."""
    try:
        text = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return []
    return text.split("\0")


def mount_namespace(pid: int) -> str | None:
    """The kernel's id of the process's mount namespace, such as ``mnt:[4026532281]``."""
    try:
        return os.readlink(f"/proc/{pid}/ns/mnt")
    except OSError:
        return None


def members(namespace: str) -> set[Process]:
    """Every process in a mount namespace, with all its descendants wherever they are.

    For an engine these are dockerd, containerd, the shims, and (as children of the shims) the
    processes in containers. Raises ValueError for the namespace of this program or of init:
    what is asked here is killed there.
    """
    if namespace in (mount_namespace(os.getpid()), mount_namespace(1)):
        raise ValueError(f"{namespace} is the machine's own mount namespace")
    inside = [pid for pid in all_pids() if mount_namespace(pid) == namespace]
    found = descendants(*inside)
    return {process for pid in found if (process := Process.of(pid)) is not None}
