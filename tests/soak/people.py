"""Users who do what users do: start, wait, work, stop, change their mind. At random."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import requests

from deploy.quickstart.person import Person, PersonError
from tests.auditor import Auditor

#: seconds that a user waits for a server at most
PATIENCE = 120.0
#: what the Hub's API says: nothing, where it does not answer
Model = dict[str, Any]


@dataclass(kw_only=True)
class Guard:
    """Which servers must go on; the auditor's protection, from several threads.

    What the soak itself breaks it takes out of protection before, under the same lock, so that
    no end is held against the product that it did not cause.
    """

    auditor: Auditor
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _held: set[str] = field(default_factory=set)
    #: chosen to be broken since their users asked for them
    _chosen: set[str] = field(default_factory=set)

    def asked(self, name: str) -> None:
        """A new server is asked for; what was chosen before was another container."""
        with self._lock:
            self._chosen.discard(name)

    def hold(self, name: str) -> None:
        """The server runs, and shall go on. Not one that is about to be broken."""
        with self._lock:
            if name not in self._held | self._chosen:
                self._held.add(name)
                self.auditor.protect(name)

    def drop(self, name: str) -> None:
        """The server may end from now on."""
        with self._lock:
            if name in self._held:
                self._held.discard(name)
                self.auditor.release(name)

    def victim(self, choose: Callable[[], tuple[str, Any] | None]) -> Any:
        """Choose a server to break, by (name, it), and take it out of protection."""
        with self._lock:
            chosen = choose()
            if chosen is None:
                return None
            # its container may run already while its user does not know yet, and holds it later
            self._chosen.add(chosen[0])
            self.drop(chosen[0])
            return chosen[1]


@dataclass(kw_only=True)
class Diary:
    """What all users together saw."""

    counts: Counter[str] = field(default_factory=Counter)
    #: things that no user should see
    complaints: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, what: str) -> None:
        """One more of these."""
        with self._lock:
            self.counts[what] += 1

    def complain(self, text: str) -> None:
        """Something that must not be."""
        with self._lock:
            self.complaints.append(text)


class User:
    """One user in a thread of their own.

    Parameters
    ----------
    person:
        Logged in.
    guard, diary:
        Shared by all.
    seed:
        For what this user does.
    steady:
        Holds one server for the whole time, as a training does.
    """

    def __init__(
        self, person: Person, guard: Guard, diary: Diary, *, seed: int, steady: bool = False
    ) -> None:
        self.person = person
        self.name = person.name
        self._guard = guard
        self._diary = diary
        self._random = random.Random(seed)
        self._steady = steady
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._live, name=self.name, daemon=True)

    def begin(self) -> None:
        """Start to live."""
        self._thread.start()

    def tell(self) -> None:
        """It is time to stop everything."""
        self._end.set()

    def join(self, seconds: float) -> bool:
        """Wait until this user has stopped everything; whether that is so."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _live(self) -> None:
        while not self._end.is_set():
            try:
                self._session()
            except requests.RequestException:
                # the Hub is down: like a person, try again soon
                self._diary.note("hub_down")
                self._end.wait(0.5)
            except PersonError as error:
                self._diary.complain(f"{self.name}: {error}")
        self._leave()

    def _session(self) -> None:
        """One server, from the click to the stop."""
        profile = "gpu" if self._steady else self._random.choice(["gpu", "gpu", "gpu2", "cpu"])
        self._guard.asked(self.name)
        if not self._click(profile):
            return
        if not self._steady and self._random.random() < 0.25:
            self._end.wait(self._random.uniform(0, 3))
            self._diary.note("cancels")
            self._stop()
            return
        if not self._wait_ready():
            self._stop()
            return
        self._diary.note("spawns")
        self._guard.hold(self.name)
        self._work(3600.0 * 24 if self._steady else self._random.uniform(0.5, 8))
        self._guard.drop(self.name)
        self._stop()

    def _click(self, profile: str) -> bool:
        answer = self.person.api("POST", f"/users/{self.name}/server", json={"profile": profile})
        self._diary.note("clicks")
        if answer.status_code in (201, 202):
            return True
        # the Hub stumbles over a server that is still stopping, or comes up itself
        self._diary.note(f"answered_{answer.status_code}")
        self._end.wait(0.5)
        return self._model() is not None

    def _wait_ready(self) -> bool:
        """Until the server is ready; False where the start was lost with the Hub, or is late."""
        until = time.monotonic() + PATIENCE
        absent = 0
        while time.monotonic() < until and not self._end.is_set():
            try:
                server = self._model()
            except requests.RequestException:
                server, absent = {}, 0
            if server is None:
                # after a restart of the Hub it is asked for again within seconds
                absent += 1
                if absent > 20:
                    self._diary.note("starts_lost")
                    return False
            elif server.get("ready"):
                return True
            self._end.wait(0.3)
        if not self._end.is_set():
            self._diary.note("starts_late")
        return False

    def _work(self, seconds: float) -> None:
        """Use the server for a while; notice where it is gone (somebody broke it)."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._end.wait(min(1.0, seconds)):
            try:
                if self._model() is None:
                    self._diary.note("ends_seen")
                    return
            except requests.RequestException:
                continue

    def _stop(self) -> None:
        """Until the Hub says that it is stopped."""
        until, seen = time.monotonic() + PATIENCE, "nothing"
        while time.monotonic() < until:
            try:
                model = self._model()
                if model is None:
                    return
                answer = self.person.cancel()
                seen = f"{model}, then {answer.status_code} {answer.text}"
            except requests.RequestException as error:
                seen = f"no answer ({error})"
            time.sleep(0.3)
        self._diary.complain(f"{self.name}: the server does not stop; last seen: {seen[:1000]}")

    def _leave(self) -> None:
        self._guard.drop(self.name)
        self._stop()

    def _model(self) -> Model | None:
        """The Hub's model of the server; None = there is none. RequestException = no answer."""
        answer = self.person.api("GET", f"/users/{self.name}")
        if answer.status_code != 200:
            raise requests.RequestException(f"answered {answer.status_code}")
        found: Model | None = answer.json().get("servers", {}).get("")
        if found is None or not (found.get("ready") or found.get("pending")):
            return None
        return found
