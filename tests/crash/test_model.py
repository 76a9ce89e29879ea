"""Every world of a small site that can come about, on the shipped scheduler, ledger and plan.

``python -m tests.model`` is the same by hand, ``./run-tests proof`` a larger one.
"""

from __future__ import annotations

import pytest

from tests.model.check import Found, look

SPECIAL = {
    "two run",
    "a create that nobody waits for",
    "a lease waits for proof",
    "somebody waits while another holds",
}


def told(found: Found) -> str:
    return "\n".join((*found.way, found.broken))


@pytest.mark.timeout(600)
def test_no_world_of_one_server_that_is_started_twice_breaks_a_rule() -> None:
    found, _ = look(2, ("ann",), faults=3, starts=2)
    assert not found.broken, told(found)
    assert set(found.met) >= SPECIAL - {"two run"} and found.worlds > 5000


@pytest.mark.timeout(600)
def test_no_world_of_two_servers_breaks_a_rule() -> None:
    found, _ = look(2, ("ann", "bob"), faults=1)
    assert not found.broken, told(found)
    assert set(found.met) == SPECIAL and found.worlds > 5000


@pytest.mark.timeout(600)
def test_no_world_of_three_servers_breaks_a_rule() -> None:
    # without messages that come twice, which the others have: that would be twice the time
    found, _ = look(2, ("ann", "bob", "cy"), faults=1, strays=False)
    assert not found.broken, told(found)
    assert set(found.met) == SPECIAL and found.worlds > 50_000
