"""How often one user may ask: token buckets, with time as an argument."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyterhub_gpuspawner.service import pace
from jupyterhub_gpuspawner.service.pace import Pace


def test_a_burst_is_free_and_then_the_rate_holds() -> None:
    made = Pace(per_minute=60, burst=3)
    assert [made.take("ann", 100.0) for _ in range(4)] == [0, 0, 0, 1]
    assert made.take("ann", 101.0) == 0
    assert made.take("ann", 101.0) == 1


def test_who_is_told_to_wait_may_ask_after_that_time() -> None:
    made = Pace(per_minute=7, burst=1)
    assert made.take("ann", 0.0) == 0
    wait = made.take("ann", 0.0)
    assert wait == 9
    assert made.take("ann", wait - 1.0) > 0
    assert made.take("ann", float(wait)) == 0


def test_asking_while_refused_costs_nothing() -> None:
    made = Pace(per_minute=60, burst=1)
    made.take("ann", 0.0)
    for step in range(1, 100):
        assert made.take("ann", step / 100) == 1
    assert made.take("ann", 1.0) == 0


def test_one_user_does_not_use_up_another_s_tokens() -> None:
    made = Pace(per_minute=1, burst=1)
    assert made.take("ann", 0.0) == 0
    assert made.take("ann", 0.0) > 0
    assert made.take("bob", 0.0) == 0


def test_zero_is_no_bound() -> None:
    assert not any(Pace(per_minute=0, burst=1).take("ann", 0.0) for _ in range(1000))


def test_a_clock_that_is_set_back_gives_nothing() -> None:
    made = Pace(per_minute=60, burst=1)
    assert made.take("ann", 1000.0) == 0
    assert made.take("ann", 0.0) > 0


@pytest.mark.slow
def test_a_flood_of_names_does_not_stay_in_memory() -> None:
    made = Pace(per_minute=60, burst=2)
    for number in range(10 * pace.REMEMBERED):
        made.take(f"user-{number}", number / 100)
    assert len(made) <= pace.REMEMBERED


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(
    st.floats(1, 600),
    st.integers(1, 50),
    st.lists(st.floats(0, 30), max_size=200),
)
def test_nobody_gets_more_than_burst_and_rate_allow(
    rate: float, burst: int, gaps: list[float]
) -> None:
    made = Pace(per_minute=rate, burst=burst)
    now, granted = 0.0, 0
    for gap in gaps:
        now += gap
        granted += made.take("ann", now) == 0
    assert granted <= burst + now * rate / 60 + 1e-6
