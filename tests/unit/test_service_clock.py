"""The service's clock follows the machine's, but not when that is moved."""

from __future__ import annotations

import logging

import pytest

from jupyterhub_gpuspawner.service.clock import SteadyClock

DAY = 86400.0


class Times:
    wall, steady = 1000.0, 50.0

    def pass_by(self, seconds: float, moved: float = 0.0) -> None:
        self.wall += seconds + moved
        self.steady += seconds

    def clock(self) -> SteadyClock:
        return SteadyClock(lambda: self.wall, lambda: self.steady)


def test_it_follows_a_clock_that_drifts() -> None:
    times = Times()
    clock = times.clock()
    for _ in range(10):
        times.pass_by(60.0, moved=1.5)
        assert clock() == times.wall


@pytest.mark.parametrize("moved", [DAY, -DAY, 6.0])
def test_a_clock_that_is_moved_changes_no_deadline_and_is_told_once(
    moved: float, caplog: pytest.LogCaptureFixture
) -> None:
    times = Times()
    clock = times.clock()
    times.pass_by(10.0, moved=moved)
    with caplog.at_level(logging.WARNING, "gpus.clock"):
        assert clock() == pytest.approx(1010.0)
        times.pass_by(30.0)
        assert clock() == pytest.approx(1040.0)
    assert len(caplog.records) == 1


def test_a_clock_that_is_moved_back_to_what_it_was_is_followed_again() -> None:
    times = Times()
    clock = times.clock()
    times.pass_by(10.0, moved=DAY)
    clock()
    times.pass_by(10.0, moved=-DAY)
    assert clock() == pytest.approx(times.wall)
