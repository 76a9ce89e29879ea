"""When has everything come back after a kill? And how long does a Hub alone take?

A recovery lasts from the kill until, at one and the same moment,

* the Hub answers and the scheduler serves,
* each server that ran before, and whose container still runs, is ready or pending at the Hub,
* who waited before waits for the living Hub, or waits no more,
* and a newcomer who has asked since the kill was granted a server.

That a new server is *ready* is measured beside it: it starts a container more, and shares the
machine with everybody else who starts theirs again.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker.errors
import requests

from deploy.quickstart.person import Person
from deploy.quickstart.trial import TrialError, TrialHub, end_proxy, free_ports, wait_for
from tests.auditor import book as books

#: labels of our containers, as the engine has them
LEDGER, NAME = "jupyterhub-gpuspawner.ledger", "jupyterhub-gpuspawner.name"
#: seconds between two looks
PAUSE = 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class Before:
    """What was there when a process was killed."""

    #: POSIX seconds
    when: float
    #: display name -> id of the container that ran
    servers: dict[str, str]
    #: entries that waited
    waiting: frozenset[str]


@dataclass(kw_only=True)
class Recovery:
    """Looks whether everything is right again.

    Parameters
    ----------
    hub, engine:
        A ``TrialHub`` and the testbed's ``Engine`` that it uses.
    admin:
        May see everybody's servers.
    newcomer:
        Name of the user who asks for a server after each kill.
    """

    hub: TrialHub
    engine: Any
    admin: Person
    newcomer: str
    #: what was not right at the last look
    last: str = field(default="", init=False)

    @property
    def _ledger(self) -> str:
        return str(self.hub.state / "gpus" / "ledger.sqlite")

    def before(self) -> Before:
        """Look around; to be done right before the kill."""
        try:
            servers = self._running()
        except (docker.errors.DockerException, requests.RequestException, OSError):
            servers = {}  # the engine fails at the moment
        waiting = frozenset(books.read(self._ledger).waiting)
        return Before(when=time.time(), servers=servers, waiting=waiting)

    def over(self, before: Before) -> bool:
        """Whether everything is right now."""
        try:
            self.last = self._wrong(before)
        except (docker.errors.DockerException, requests.RequestException, OSError) as error:
            self.last = f"no answer: {type(error).__name__}"
        except ValueError as error:
            self.last = f"an odd answer: {error}"
        return not self.last

    def _wrong(self, before: Before) -> str:
        if not self.hub.serves():
            return "Hub or scheduler do not serve"
        book = books.read(self._ledger)
        granted = [lease for lease in book.leases.values() if lease["key"]["user"] == self.newcomer]
        if not any(float(lease["granted_at"]) > before.when for lease in granted):
            return "nobody was granted a server yet"
        return lost_servers(before, self._running(), self._models()) or lost_places(before, book)

    def _running(self) -> dict[str, str]:
        client = self.engine.client(timeout=5)
        try:
            rows = client.api.containers(filters={"label": LEDGER})
        finally:
            client.close()
        return {row["Labels"][NAME]: row["Id"] for row in rows if NAME in row["Labels"]}

    def _models(self) -> dict[str, Any]:
        answer = self.admin.api("GET", "/users")
        if answer.status_code != 200:
            raise ValueError(f"the Hub answered {answer.status_code}")
        return {user["name"]: user.get("servers", {}).get("") or {} for user in answer.json()}


def lost_servers(before: Before, running: dict[str, str], models: dict[str, Any]) -> str:
    """Which servers run, as before, and the Hub does not know it; "" = none."""
    lost = [
        name
        for name, container in before.servers.items()
        if running.get(name) == container
        and not (models.get(name, {}).get("ready") or models.get(name, {}).get("pending"))
    ]
    return f"the Hub does not know the servers of {', '.join(lost)}" if lost else ""


def lost_places(before: Before, book: books.Book) -> str:
    """How many who waited before are not waited for by the living Hub; "" = none.

    Which Hub lives is known by whoever asked last.
    """
    leases = sorted(book.leases.values(), key=lambda lease: float(lease["granted_at"]))
    boot = str(leases[-1]["boot_id"]) if leases else ""
    lost = [id for id in before.waiting & set(book.waiting) if book.waiting[id]["boot_id"] != boot]
    return f"{len(lost)} of those who waited do not wait for this Hub" if lost else ""


BARE = """
c = get_config()
c.JupyterHub.bind_url = "http://127.0.0.1:{0}"
c.JupyterHub.hub_port = {1}
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{2}"
c.JupyterHub.spawner_class = "simple"
c.JupyterHub.authenticator_class = "null"
"""


def hub_alone(env: dict[str, str], limit: float, times: int = 2) -> float:
    """Seconds of JupyterHub alone, without anything of ours, from kill -9 until it answers.

    What a recovery of the Hub can't be faster than. The longest of some times, on a machine on
    which nothing else of the soak runs yet.
    """
    with tempfile.TemporaryDirectory(prefix="gpus-bare-") as name:
        folder = Path(name)
        ports = free_ports(3)
        config = folder / "config.py"
        config.write_text(BARE.format(*ports))
        url = f"http://127.0.0.1:{ports[0]}/hub/api/"
        hub, took = _start_bare(config, env, url, limit), 0.0
        try:
            for _ in range(times):
                begun = time.monotonic()
                hub.kill()
                hub.wait()
                hub = _start_bare(config, env, url, limit)
                took = max(took, time.monotonic() - begun)
        finally:
            _end_bare(hub, folder)
    return took


def _start_bare(
    config: Path, env: dict[str, str], url: str, limit: float
) -> subprocess.Popen[bytes]:
    with open(config.parent / "log", "ab") as log:
        hub = subprocess.Popen(
            [sys.executable, "-m", "jupyterhub", "--config", str(config)],
            cwd=config.parent,
            env=env,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    try:
        wait_for("a Hub alone", limit, answers(url))
    except TrialError:
        _end_bare(hub, config.parent)
        raise
    return hub


def _end_bare(hub: subprocess.Popen[bytes], folder: Path) -> None:
    hub.kill()
    hub.wait()
    end_proxy(folder / "jupyterhub-proxy.pid")


def answers(url: str) -> Callable[[], bool]:
    """Whether a Hub behind its proxy answers at ``url``."""
    web = requests.Session()
    web.trust_env = False

    def look() -> bool:
        with suppress(requests.RequestException):
            return web.get(url, timeout=5).status_code == 200
        return False

    return look
