"""What goes wrong: processes are killed, the engine fails, containers vanish. At random."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import docker.errors
import requests

from deploy.quickstart.person import Person
from deploy.quickstart.trial import TrialHub
from tests.soak.people import Diary, Guard
from tests.soak.recovery import LEDGER, NAME, PAUSE, Before, Recovery
from tests.testbed.processes import command, descendants

#: seconds after a kill in which a new server must come up, else the soak fails
LONGEST = 120.0


@dataclass(kw_only=True)
class Chaos:
    """Breaks things, and measures how long it takes until everything is right again.

    Parameters
    ----------
    hub, engine:
        A ``TrialHub`` and the testbed's ``Engine`` that it uses.
    canary:
        Somebody who starts a server without a GPU after each kill: through the Hub, the
        scheduler, its ledger and the engine, without having to wait for a GPU.
    """

    hub: TrialHub
    engine: Any
    canary: Person
    guard: Guard
    diary: Diary
    rng: random.Random
    recovery: Recovery
    #: seconds from each kill until all was right again, by what was killed
    recoveries: list[tuple[str, float]] = field(default_factory=list)
    #: seconds from each kill until a new server was ready
    newcomers: list[float] = field(default_factory=list)

    def once(self, gently: bool) -> str:
        """Break one thing; what. ``gently``: no process of ours dies."""
        kills: list[Callable[[], None]] = [self.kill_hub, self.kill_scheduler, self.kill_engine]
        faults: list[Callable[[], None]] = [
            self.freeze_engine,
            self.stop_engine,
            self.remove_container,
            self.kill_container,
            self.pause_container,
        ]
        chosen = self.rng.choice(faults if gently or self.rng.random() < 0.4 else kills)
        chosen()
        return chosen.__name__

    # -- kills: whatever was killed has to be back within seconds ----------------------------

    def kill_hub(self) -> None:
        """kill -9 of the Hub; whoever runs it starts it again."""
        before, begun = self.recovery.before(), time.monotonic()
        self.hub.kill()
        self.hub.start()
        self._recovered("hub", before, begun)

    def kill_scheduler(self) -> None:
        """kill -9 of the scheduler; its supervisor starts it again."""
        before, begun = self.recovery.before(), time.monotonic()
        for pid in scheduler_pids(self.hub.pid):
            _send(pid, signal.SIGKILL)
        self._recovered("scheduler", before, begun)

    def kill_engine(self) -> None:
        """kill -9 of dockerd; whoever runs it starts it again. Containers live on."""
        before, begun = self.recovery.before(), time.monotonic()
        self.engine.kill9()
        self.engine.restart()
        self._recovered("engine", before, begun)

    def _recovered(self, what: str, before: Before, begun: float) -> None:
        """Wait until all is right, and somebody has got a new server."""
        self.diary.note("kills")
        path = f"/users/{self.canary.name}/server"
        right = ready = False
        while not (right and ready) and time.monotonic() < begun + LONGEST:
            if not ready and self._newcomer_is_ready(path):
                ready = True
                self.newcomers.append(time.monotonic() - begun)
                self.diary.note("spawns")
            if not right and self.recovery.over(before):
                right = True
                self.recoveries.append((what, time.monotonic() - begun))
            time.sleep(PAUSE)
        if not right:
            why = self.recovery.last
            self.diary.complain(f"{LONGEST:g} s after the {what} was killed: {why}")
        if not ready:
            self.diary.complain(f"no new server {LONGEST:g} s after the {what} was killed")
        self._stop_canary(path)

    def _newcomer_is_ready(self, path: str) -> bool:
        """Look, and ask where it is not even on its way."""
        with suppress(requests.RequestException, ValueError):
            model = self.canary.api("GET", f"/users/{self.canary.name}").json()
            server = model.get("servers", {}).get("", {})
            if server.get("ready"):
                return True
            if not server.get("pending"):
                self.canary.api("POST", path, json={"profile": "cpu"})
        return False

    def _stop_canary(self, path: str) -> None:
        until = time.monotonic() + LONGEST
        while time.monotonic() < until:
            try:
                if self.canary.api("DELETE", path).status_code == 204:
                    return
            except requests.RequestException:
                pass
            time.sleep(0.2)
        self.diary.complain("the canary's server does not stop")

    # -- faults: nothing of ours dies -----------------------------------------------------------

    def freeze_engine(self) -> None:
        """The engine accepts connections and does not answer, for seconds."""
        self.diary.note("engine_faults")
        self.engine.freeze()
        try:
            time.sleep(self.rng.uniform(0.5, 4))
        finally:
            self.engine.thaw()

    def stop_engine(self) -> None:
        """The engine is dead for seconds."""
        self.diary.note("engine_faults")
        self.engine.kill9()
        time.sleep(self.rng.uniform(0.5, 4))
        self.engine.restart()

    def remove_container(self) -> None:
        """``docker rm -f`` of somebody's server, behind the Hub's back."""
        self._break(lambda container: container.remove(force=True))

    def kill_container(self) -> None:
        """A server dies by itself."""
        self._break(lambda container: container.kill())

    def pause_container(self) -> None:
        """Somebody's server stands still for seconds, and goes on: nothing may stop it for that."""

        def pause(container: Any) -> None:
            container.pause()
            try:
                time.sleep(self.rng.uniform(0.5, 3))
            finally:
                container.unpause()

        self._break(pause)

    def _break(self, act: Callable[[Any], None]) -> None:
        """Do something to one running server that is nobody's training."""
        client = self.engine.client(timeout=20)
        try:
            container = self.guard.victim(lambda: self._choose(client))
            if container is not None:
                self.diary.note("containers_broken")
                act(container)
        except (docker.errors.DockerException, requests.RequestException, OSError):
            pass  # it ended in the same moment
        finally:
            client.close()

    def _choose(self, client: Any) -> tuple[str, Any] | None:
        running = client.containers.list(filters={"label": LEDGER}, ignore_removed=True)
        found = [one for one in running if one.labels.get(NAME, "").startswith("user")]
        if not found:
            return None
        chosen = self.rng.choice(sorted(found, key=lambda one: str(one.name)))
        return str(chosen.labels[NAME]), chosen


def scheduler_pids(hub: int) -> list[int]:
    """The scheduler's processes of a Hub, without the supervisor."""
    return [pid for pid in descendants(hub) if "--scheduler" in command(pid)]


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
