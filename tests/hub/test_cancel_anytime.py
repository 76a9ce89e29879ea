"""101 starts, each cancelled a little later than the one before: 0 to 5 s in steps of 50 ms."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from deploy.quickstart.person import Person
from deploy.quickstart.trial import TrialHub, wait_for
from tests.hubs import run_hub

from .conftest import containers_of, make_hub, server_of, tracebacks

#: seconds from the request to the cancel
DELAYS = [step * 0.05 for step in range(101)]
#: people who do it at the same time. More would only measure how slow this machine is
CROWD = 10
#: a server that never answers, one that is up at once, and a request that waits: the cancels
#: shall hit every part of a start
PROFILES = ("slow", "gpu", "gpu2")


@pytest.fixture(scope="module")
def hub(engine: Any, docker_client: Any, stub_image: str) -> Iterator[TrialHub]:
    """A Hub with fewer GPUs than the people want, so that some of them wait."""
    with run_hub(make_hub(engine, stub_image, simulate=8), docker_client) as hub:
        yield hub


def test_a_start_cancelled_at_any_moment_leaves_nothing(hub, docker_client):
    people = [hub.person(f"user-{number}") for number in range(CROWD)]
    with ThreadPoolExecutor(CROWD) as crowd:
        # each takes every tenth delay: at any time short and long ones run side by side
        parts = [DELAYS[number::CROWD] for number in range(CROWD)]
        findings = [
            finding
            for part in crowd.map(lambda one: cancel_all(*one), zip(people, parts, strict=True))
            for finding in part
        ]
    assert [text for text, _ in findings if text] == []
    assert sum(count for _, count in findings) == len(DELAYS)
    wait_for("free GPUs", 60, lambda: not hub.busy())
    assert hub.summary()["queue"] == 0
    for person in people:
        wait_for("no container", 60, lambda person=person: not containers_of(docker_client, person))
    assert tracebacks(hub) == []


def cancel_all(person: Person, delays: list[float]) -> list[tuple[str, int]]:
    """Start and cancel once for each delay; what was wrong ("" = nothing)."""
    return [
        (cancel(person, PROFILES[number % len(PROFILES)], delay), 1)
        for number, delay in enumerate(delays)
    ]


def cancel(person: Person, profile: str, delay: float) -> str:
    """Start and cancel once; what was wrong, in words."""
    # the Hub answers a start only after a second, and the cancel may come before
    asking = threading.Thread(
        target=person.api,
        args=("POST", f"/users/{person.name}/server"),
        kwargs={"json": {"profile": profile}},
    )
    begun = time.monotonic()
    asking.start()
    wait_for("the start", 60, lambda: not asking.is_alive() or server_of(person) is not None)
    time.sleep(max(0.0, delay - (time.monotonic() - begun)))
    answer = person.cancel()
    if answer.status_code == 500:
        # A Hub on a busy machine: its own cancel met the end of the start (before Python 3.12,
        # wait_for drops it then), and a second later it was still busy with the proxy. The next
        # click counts.
        answer = person.cancel()
    after = server_of(person)
    asking.join(10)
    what = f"{profile} cancelled after {delay:.2f} s"
    if answer.status_code not in (202, 204):
        return f"{what}: {answer.status_code} {answer.text}"
    if after is not None and after["ready"]:
        return f"{what}: a phantom: {after}"
    wait_for(f"{what}: the end", 60, lambda: server_of(person) is None)
    return ""
