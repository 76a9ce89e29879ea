"""One user who starts and cancels without end, at a real Hub with the shipped pace."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping

import pytest

from deploy.quickstart.trial import TrialHub, wait_for
from tests.hubs import run_hub

from .conftest import make_hub

#: the tests of this folder have no pace; here it is low, so that few requests show it
PACE = """
c.GPUScheduler.request_rate = 6
c.GPUScheduler.request_burst = 8
"""
ROUNDS = 3


@pytest.fixture
def paced(engine, docker_client, stub_image) -> Iterator[TrialHub]:
    with run_hub(make_hub(engine, stub_image, engine.base_url, PACE), docker_client) as hub:
        yield hub


class Flood(threading.Thread):
    """Asks and cancels on three servers until it is told to end."""

    def __init__(self, hub: TrialHub) -> None:
        super().__init__(daemon=True)
        self._eve = hub.person("eve")
        self.ended = threading.Event()
        self.cycles = 0
        #: headers, which the proxy writes in small letters, and the words
        self.refusals: list[tuple[Mapping[str, str], str]] = []
        self.errors: list[str] = []

    def run(self) -> None:
        while not self.ended.is_set():
            for server in ("server", "servers/a", "servers/b"):
                path = f"/users/eve/{server}"
                answer = self._eve.api("POST", path, json={"profile": "gpu"})
                self.cycles += 1
                if answer.status_code == 429:
                    self.refusals.append((answer.headers, answer.json()["message"]))
                elif answer.status_code >= 500:
                    self.errors.append(answer.text[:200])
                self._eve.api("DELETE", path)


def waits(hub: TrialHub) -> list[float]:
    """Seconds that four others wait for their servers, a few times each."""
    seconds = []
    people = [hub.person(f"honest-{number}") for number in range(4)]
    for _ in range(ROUNDS):
        begun = time.monotonic()
        for person in people:
            assert person.ask({"profile": "gpu"}).status_code == 200
        for person in people:
            person.wait(limit=120)
            seconds.append(time.monotonic() - begun)
        for person in people:
            person.stop()
        wait_for("free GPUs", 60, lambda: not {"busy"} & states(hub, people))
    return seconds


def states(hub, people) -> set[str]:
    """What the Hub says about the servers of these people."""
    found = set()
    for person in people:
        servers = person.api("GET", f"/users/{person.name}").json()["servers"].values()
        found |= {"busy" for server in servers if server["ready"] or server["pending"]}
    return found


def test_a_flood_of_starts_is_refused_in_words_and_all_others_get_their_gpus(paced):
    quiet = waits(paced)
    flood = Flood(paced)
    flood.start()
    try:
        loud = waits(paced)
        wait_for("a refusal", 120, lambda: bool(flood.refusals))
    finally:
        flood.ended.set()
        flood.join(60)
    mean, flooded = sum(quiet) / len(quiet), sum(loud) / len(loud)
    print(
        f"mean wait {mean:.2f} s without and {flooded:.2f} s with {flood.cycles} cycles of a "
        f"flood, of which {len(flood.refusals)} were refused: ratio {flooded / mean:.2f}"
    )
    headers, message = flood.refusals[0]
    assert int(headers["Retry-After"]) >= 1
    assert "You ask too often" in message
    assert len(loud) == 4 * ROUNDS
    assert flood.errors == []
    # nothing is left of all that
    wait_for("free GPUs", 60, lambda: not paced.busy())
    assert paced.summary()["queue"] == 0
