"""The supervisor: restarts its child, and knows when to end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jupyterhub_gpuspawner.lifeline import die_with_parent
from jupyterhub_gpuspawner.service import supervisor
from jupyterhub_gpuspawner.service.supervisor import (
    EXIT_CONFIG,
    EXIT_FENCED,
    FENCED_DELAY,
    LONGEST_DELAY,
    Backoff,
    Supervisor,
)

# real sockets, files or processes
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _signals(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = {sig: signal.getsignal(sig) for sig in (signal.SIGTERM, signal.SIGINT)}
    monkeypatch.setattr(supervisor, "_LOOK", 0.005)
    monkeypatch.setattr(supervisor, "FIRST_DELAY", 0.001)
    yield
    for sig, handler in before.items():
        signal.signal(sig, handler)


def test_a_child_that_ran_well_is_back_within_two_seconds() -> None:
    backoff = Backoff(failures=9)
    assert backoff.delay(-9, lived=60.0) < 2.0


def test_a_child_that_fails_at_once_is_started_more_and_more_slowly() -> None:
    backoff = Backoff()
    delays = [backoff.delay(1, lived=0.1) for _ in range(16)]
    assert delays == sorted(delays)
    assert delays[0] < 2.0
    assert delays[-1] == LONGEST_DELAY


def test_a_fenced_child_leaves_the_work_to_the_younger_one() -> None:
    assert Backoff().delay(EXIT_FENCED, lived=60.0) == FENCED_DELAY


def script(tmp_path: Path, *lines: str) -> list[str]:
    """A child that counts its starts in ``count`` and does ``lines``."""
    count = tmp_path / "count"
    code = "\n".join(
        (
            "import os, signal, sys, time",
            f"starts = open({str(count)!r}, 'a+')",
            "starts.write('x'); starts.flush(); starts.seek(0)",
            "number = len(starts.read()); starts.close()",
            *lines,
        )
    )
    return [sys.executable, "-S", "-c", code]


def test_it_is_restarted_until_its_configuration_is_wrong(tmp_path: Path) -> None:
    command = script(tmp_path, f"sys.exit({EXIT_CONFIG} if number == 3 else 1)")
    assert Supervisor(command, None).run() == EXIT_CONFIG
    assert (tmp_path / "count").read_text() == "xxx"


def test_a_signal_is_passed_on_and_nothing_is_left(tmp_path: Path) -> None:
    told = tmp_path / "told"
    command = script(
        tmp_path,
        f"end = lambda *a: (open({str(told)!r}, 'w').close(), sys.exit(0))",
        "signal.signal(signal.SIGTERM, end)",
        "os.kill(os.getppid(), signal.SIGTERM)",
        # Short ones: a signal that comes just before a sleep begins is handled when that ends.
        "while True: time.sleep(0.05)",
    )
    assert Supervisor(command, None).run() == 0
    assert told.exists()


def test_it_ends_when_its_parent_is_another_process(tmp_path: Path) -> None:
    command = script(tmp_path, "time.sleep(60)")
    assert Supervisor(command, parent=os.getppid() + 100_000).run() == 0


def test_a_child_learns_who_its_supervisor_is(tmp_path: Path) -> None:
    told = tmp_path / "told"
    command = script(
        tmp_path,
        f"open({str(told)!r}, 'w').write(os.environ['GPUS_SUPERVISOR_PID'])",
        f"sys.exit({EXIT_CONFIG})",
    )
    Supervisor(command, None).run()
    assert told.read_text() == str(os.getpid())


def test_the_death_of_a_parent_is_noticed_even_before_it_is_asked_for() -> None:
    code = (
        "import signal, sys; "
        "from jupyterhub_gpuspawner.lifeline import die_with_parent; "
        "sys.exit(0 if not die_with_parent(signal.SIGKILL, 1 << 30) else 1)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert callable(die_with_parent)
