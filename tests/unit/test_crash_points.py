"""The crash tests kill the two processes of a case and never anything else."""

from __future__ import annotations

import os

import pytest

from tests.crash import points

ME, MY_PARENT = os.getpid(), os.getppid()


@pytest.mark.parametrize(
    ("victim", "parent", "dies"),
    [
        pytest.param(4711, MY_PARENT, True, id="the other process: of the same parent"),
        pytest.param(4711, 1, False, id="a stranger has its number now"),
        pytest.param(4711, 0, False, id="nobody has its number any more"),
        pytest.param(0, 0, False, id="none is known: 0 would be the process group"),
        pytest.param(ME, 1, True, id="this process"),
    ],
)
def test_a_kill_hits_this_process_or_the_other_one_only(
    victim: int, parent: int, dies: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[int] = []
    monkeypatch.setattr(points, "parent", lambda pid: parent)
    monkeypatch.setattr(os, "kill", lambda pid, signal: killed.append(pid))
    points._kill(victim)
    assert killed == ([victim] if dies else [])


def test_the_parent_of_a_process_is_read_and_0_for_none() -> None:
    assert points.parent(os.getpid()) == os.getppid()
    assert points.parent(0) == 0
