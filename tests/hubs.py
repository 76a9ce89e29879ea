"""A real Hub while tests need it, people on it, and an engine on which nothing of them is left."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from deploy.quickstart.person import Person
from deploy.quickstart.trial import TrialHub, wait_for
from jupyterhub_gpuspawner.engine import labels

H = TypeVar("H", bound=TrialHub)


@contextmanager
def run_hub(hub: H, client: Any = None) -> Iterator[H]:
    """Start a Hub; afterwards nothing of it is left.

    Parameters
    ----------
    client:
        Of the engine that is cleared before and after: what a killed earlier run left would own
        it. None = the Hub's class sees to that.
    """
    if client is not None:
        clear(client)
    try:
        hub.start()
        yield hub
    finally:
        hub.stop()
        print(hub.last_words(80))  # pytest shows it where a test failed
        if client is not None:
            clear(client)
        hub.discard()


def clear(client: Any) -> None:
    """Remove containers, volumes and networks of ours. The testbed's engine has no others."""
    chosen = {"label": labels.LEDGER}
    for container in client.containers.list(all=True, filters=chosen, ignore_removed=True):
        with suppress(Exception):
            container.remove(force=True, v=True)
    for volume in client.volumes.list(filters=chosen):
        with suppress(Exception):
            volume.remove(force=True)
    for network in client.networks.list(filters=chosen):
        with suppress(Exception):
            network.remove()


@contextmanager
def people(
    hub: TrialHub, mend: Callable[[], object] = lambda: None, limit: float = 30
) -> Iterator[Callable[..., Person]]:
    """Makes new users who are logged in; their servers are stopped at the end.

    Parameters
    ----------
    mend:
        Called before that.
    limit:
        Seconds until all GPUs are free again.
    """
    made: list[Person] = []

    def make(prefix: str = "user") -> Person:
        person = hub.person(f"{prefix}-{uuid.uuid4().hex[:8]}")
        made.append(person)
        return person

    yield make
    mend()
    for person in made:
        stop_all(person)
    wait_for("free GPUs", limit, lambda: not hub.busy())


def stop_all(person: Person) -> None:
    """Stop every server of a person, whatever state it is in."""
    for _ in range(100):
        servers = person.api("GET", f"/users/{person.name}").json().get("servers", {})
        if not any(s["ready"] or s["pending"] for s in servers.values()):
            return
        for name in servers:
            person.cancel(name)
        time.sleep(0.1)
    raise AssertionError(f"{person.name}: servers don't stop")
