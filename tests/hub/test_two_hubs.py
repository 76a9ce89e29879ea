"""Two Hubs with two ledgers on one engine: the second grants nothing, and says why."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from deploy.quickstart.trial import TrialHub, wait_for

from .conftest import container_of, containers_of, facts, make_hub, plain, start


def health(hub: TrialHub) -> dict[str, Any]:
    """What the scheduler says about itself; empty while nobody listens."""
    try:
        with urllib.request.urlopen(f"{hub.service}/api/health", timeout=5) as answer:
            found: dict[str, Any] = json.load(answer)
            return found
    except OSError:
        return {}


@pytest.fixture
def second(own_hub: TrialHub, engine: Any, stub_image: str) -> Iterator[TrialHub]:
    """Another installation on the same engine, started after ``own_hub``."""
    hub = make_hub(engine, stub_image)

    def answers() -> bool:
        """Unlike the other Hub it never serves: its page has to be there all the same."""
        try:
            page = requests.get(f"{hub.base}/hub/login", timeout=5, proxies={"http": ""})
        except requests.RequestException:
            return False
        return page.status_code == 200 and bool(health(hub))

    hub.serves = answers  # type: ignore[method-assign]
    try:
        hub.start()
        yield hub
    finally:
        hub.stop()
        print(hub.last_words(40))
        hub.discard()


def test_the_second_hub_on_an_engine_grants_nothing_and_says_why(
    own_hub, second, docker_client, engine
):
    alice, bob = own_hub.person("alice"), second.person("bob")
    start(alice)
    wait_for("a reason", 60, lambda: health(second).get("reason") == "engine_not_ours")
    mine, theirs = own_hub.summary()["ledger"], second.summary()["ledger"]
    assert mine != theirs
    # on the page, for everybody
    page = plain(bob.page("/services/gpus/"))
    assert "This machine's Docker belongs to another JupyterHub" in page or "another" in page
    assert "Nothing is granted at the moment" in page
    # in the log, for the admin: who owns it, and the way out
    wait_for(
        "the log", 60, lambda: f"belongs to ledger {mine}, not to ledger {theirs}" in second.log()
    )
    assert "docker volume rm gpus-owner" in second.log()
    # who asks waits, reads the reason, and nothing is made
    bob.api("POST", f"/users/{bob.name}/server", json={"profile": "gpu"})
    wait_for("the queue", 60, lambda: second.summary()["queue"] == 1)
    said = next(
        event["message"] for event in bob.progress(limit=20) if "another" in event["message"]
    )
    assert "administrator" in said
    assert containers_of(docker_client, bob) == []
    # the first is not disturbed
    own_hub_gpus = facts(own_hub, alice, docker_client)["gpus"]
    assert own_hub.busy() == set(own_hub_gpus)
    carol = own_hub.person("carol")
    start(carol)
    assert len(own_hub.busy()) == 2
    assert container_of(docker_client, alice).status == "running"
