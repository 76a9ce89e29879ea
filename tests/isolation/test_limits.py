"""Bombs: memory, processes, disk. The kernel holds the limits, and a neighbour keeps answering."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

#: forks as fast as it can, until the kernel refuses; prints how far it came
FORKS = """
import os, signal, time
children = []
try:
    while len(children) < 5000:
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        children.append(child)
except OSError as error:
    print(error.errno)
finally:
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
print(len(children))
"""

#: writes zeros to a file until it is refused or has as many MiB; prints how many
WRITES = """
import os, sys
path, most = sys.argv[1], int(sys.argv[2])
written = 0
try:
    with open(path, "wb", 0) as out:
        while written < most:
            out.write(bytes(1 << 20))
            written += 1
except OSError as error:
    print(error.errno)
print(written)
os.remove(path)
"""

EAGAIN, ENOSPC = 11, 28


@contextmanager
def answering(person: Any) -> Iterator[list[int]]:
    """Ask a person's server all the time; the status of each answer, which all must be 200."""
    statuses: list[int] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            statuses.append(person.visit("api").status_code)
            over.wait(0.05)

    assert person.visit("api").status_code == 200
    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield statuses
    finally:
        over.set()
        thread.join()
    assert len(statuses) >= 2
    assert set(statuses) == {200}


@pytest.fixture(scope="module")
def neighbour(server: Callable[..., Any]) -> Any:
    _, person = server("nora")
    return person


@pytest.fixture(scope="module")
def bomber(server: Callable[..., Any]) -> Any:
    container, _ = server("bomber", profile="few")
    return container


def pids(container: Any) -> int:
    """Processes of a container, as the kernel counts them."""
    container.reload()
    pid = container.attrs["State"]["Pid"]
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for folder in (Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup")):
            file = folder / path.lstrip("/") / "pids.max"
            if controllers in ("pids", "") and file.exists():
                return int(file.read_text())
    raise AssertionError("no pids controller")


def lines(container: Any, source: str, *arguments: str) -> list[int]:
    code, output = container.exec_run(["python3", "-c", source, *arguments])
    assert code == 0, output
    return [int(line) for line in output.split()]


def test_a_memory_bomb_dies_alone(bomber: Any, neighbour: Any) -> None:
    with answering(neighbour):
        code, _ = bomber.exec_run(["python3", "-c", "x = bytearray(300 << 20)"])
    assert code == 137
    code, _ = bomber.exec_run(["python3", "-c", "x = bytearray(20 << 20)"])
    assert code == 0, "what fits is given"


def test_a_fork_bomb_ends_at_the_limit(bomber: Any, neighbour: Any) -> None:
    limit = pids(bomber)
    assert limit == 40
    with answering(neighbour):
        refused, made = lines(bomber, FORKS)
    assert refused == EAGAIN
    assert 10 < made < limit


def test_shared_memory_ends_at_its_size(bomber: Any, neighbour: Any) -> None:
    with answering(neighbour):
        refused, written = lines(bomber, WRITES, "/dev/shm/big", "64")
    assert refused == ENOSPC
    assert written == 8
    assert lines(bomber, WRITES, "/dev/shm/small", "4") == [4]


def test_a_disk_writer_disturbs_nobodys_answers(bomber: Any, neighbour: Any) -> None:
    # the home has no quota (docs/explanation/not-enforced.md): it is written, and others go on
    with answering(neighbour):
        assert lines(bomber, WRITES, "/home/jovyan/big", "150") == [150]
