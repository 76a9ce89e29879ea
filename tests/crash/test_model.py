"""Every world of a small site that can come about, on the shipped scheduler, ledger and plan.

``python -m tests.model`` is the same by hand, ``./run-tests proof`` a larger one.
"""

from __future__ import annotations

import pytest

from tests.model.check import Extent, Found, look

SPECIAL = {
    "two run",
    "a create that nobody waits for",
    "a lease waits for proof",
    "somebody waits while another holds",
}
TROUBLE = {"a server runs on a silent node", "a stop hangs", "a server is adopted"}


def told(found: Found) -> str:
    return "\n".join((*found.way, found.broken))


@pytest.mark.timeout(1500)
def test_no_world_of_one_server_that_is_started_twice_breaks_a_rule() -> None:
    found, _ = look(Extent(users=("ann",), faults=3, starts=2))
    assert not found.broken, told(found)
    assert set(found.met) >= SPECIAL - {"two run"} and found.worlds > 5000


@pytest.mark.timeout(1500)
def test_no_world_of_two_servers_breaks_a_rule() -> None:
    found, _ = look(Extent(users=("ann", "bob"), faults=1))
    assert not found.broken, told(found)
    assert set(found.met) == SPECIAL and found.worlds > 5000


@pytest.mark.timeout(1500)
def test_no_world_of_three_servers_breaks_a_rule() -> None:
    # without messages that come twice, which the others have: that would be twice the time
    found, _ = look(Extent(users=("ann", "bob", "cy"), faults=1, strays=False))
    assert not found.broken, told(found)
    assert set(found.met) == SPECIAL and found.worlds > 40_000


@pytest.mark.timeout(1500)
def test_no_world_of_a_node_in_trouble_breaks_a_rule() -> None:
    found, _ = look(Extent(users=("ann",), faults=2, starts=2, strays=False, trouble=True))
    assert not found.broken, told(found)
    assert set(found.met) >= TROUBLE and found.worlds > 5000
