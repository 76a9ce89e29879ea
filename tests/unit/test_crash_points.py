"""The crash tests kill the two processes of a case and never anything else."""

from __future__ import annotations

import os

import pytest

from tests.crash import points


@pytest.mark.parametrize(
    ("victim", "parent", "dies"),
    [
        (4711, os.getppid(), True),  # the other process: a child of the same parent
        (4711, 1, False),  # its number belongs to a stranger now
        (4711, 0, False),  # nobody has it any more
        (0, 0, False),  # none is known; the kernel would take it for the process group
        (os.getpid(), 1, True),
    ],
)
def test_a_kill_hits_this_process_or_the_other_one_only(
    victim: int, parent: int, dies: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[int] = []
    monkeypatch.setattr(points, "_parent", lambda pid: parent)
    monkeypatch.setattr(os, "kill", lambda pid, signal: killed.append(pid))
    points._kill(victim)
    assert killed == ([victim] if dies else [])


def test_the_parent_of_a_process_is_read_and_0_for_none() -> None:
    assert points._parent(os.getpid()) == os.getppid()
    assert points._parent(0) == 0
