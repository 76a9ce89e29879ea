"""The auditor itself: watches engines, remembers, judges."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from tests.auditor import book as books
from tests.auditor import grants, judge, kernel
from tests.auditor import rules as limits
from tests.auditor.engine_api import EngineApi, EngineSilent
from tests.auditor.history import OPEN, Container, History
from tests.auditor.judge import Now
from tests.auditor.verdict import Finding, Verdict

#: seconds between two tries to hear an engine that is silent
PAUSE = 0.2


class Watching:
    """The block in which an auditor watches."""

    def __init__(self, auditor: Auditor) -> None:
        self._auditor = auditor

    def __enter__(self) -> Auditor:
        self._auditor.begin()
        return self._auditor

    def __exit__(self, *_: object) -> None:
        self._auditor.end()

    async def __aenter__(self) -> Auditor:
        await asyncio.to_thread(self._auditor.begin)
        return self._auditor

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._auditor.end)


class Auditor:
    """Watches engines from outside.

    Parameters
    ----------
    sockets:
        Paths of the engines' sockets.
    ledger:
        Id of the ledger whose containers are ours. May be set later, before :meth:`judge`.
    """

    def __init__(self, sockets: Sequence[str | Path], ledger: str = "") -> None:
        self.ledger = ledger
        self.history = History()
        self._engines = [EngineApi(str(path)) for path in sockets]
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._since = time.time()
        self._protected: dict[str, list[tuple[float, float]]] = {}
        self._threads: list[threading.Thread] = []
        self._book = ""
        #: what an admin decided; see :meth:`bar` and :meth:`limit` for what changes with time
        self.rules = limits.Rules()

    # -- watching --------------------------------------------------------------------------

    def watching(self) -> Watching:
        """Hear every event of a ``with`` (or ``async with``) block, look at all that starts."""
        return Watching(self)

    def begin(self) -> None:
        """Start to watch."""
        self._since = time.time()
        self._stop.clear()
        self.look()
        for engine in self._engines:
            # Daemon: it sits in a read that only the engine ends.
            thread = threading.Thread(target=self._hear, args=(engine,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def end(self) -> None:
        """Stop watching. What is known stays."""
        self._stop.set()
        self.replay(self._since)
        self._threads.clear()

    def _hear(self, engine: EngineApi) -> None:
        since = self._since
        while not self._stop.is_set():
            try:
                for data in engine.events(since):
                    if self._stop.is_set():
                        return
                    since = max(since, float(data.get("time") or 0))
                    self._take(engine, data)
            except EngineSilent:
                pass
            self._stop.wait(PAUSE)

    def _take(self, engine: EngineApi, data: dict[str, Any]) -> None:
        with self._lock:
            container = self.history.event(data, engine.path)
        if container is None or data.get("Action") not in ("create", "start"):
            return
        try:
            info = engine.container(container.id)
        except EngineSilent:
            return
        if info is not None:
            self._seen(engine, info)

    def _seen(self, engine: EngineApi, info: dict[str, Any]) -> None:
        pid = int((info.get("State") or {}).get("Pid") or 0)
        devices = kernel.devices_of(pid)
        if devices is not None and not _still_runs(engine, info):
            devices = None  # the number may have become another process's in between
        with self._lock:
            self.history.look(info, engine.path, devices)

    # -- single looks ----------------------------------------------------------------------

    def replay(self, since: float) -> None:
        """Take in the events that the engines still remember from ``since`` (POSIX s) on."""
        for engine in self._engines:
            try:
                events = engine.past_events(since, time.time() + 0.001)
            except EngineSilent:
                continue
            with self._lock:
                for data in events:
                    self.history.event(data, engine.path)

    def look(self) -> Now:
        """List and inspect everything. EngineSilent where an engine does not answer."""
        there: list[Container] = []
        networks: list[Any] = []
        volumes: list[Any] = []
        used: set[str] = set()
        for engine in self._engines:
            with self._lock:
                known = list(self.history.containers)
            found = engine.containers()
            for info in found:
                self._seen(engine, info)
                used.update(str(m.get("Name")) for m in info.get("Mounts") or () if m.get("Name"))
            with self._lock:
                listed = {str(info["Id"]) for info in found}
                # one that was made after the list began may be missing in it
                self.history.absent(set(known) - listed, engine.path, time.time())
                there += [self.history.containers[str(info["Id"])] for info in found]
            networks += [
                (str(n["Name"]), dict(n.get("Labels") or {}), len(n.get("Containers") or ()))
                for n in engine.networks()
            ]
            volumes += [(str(v["Name"]), dict(v.get("Labels") or {})) for v in engine.volumes()]
        return Now(
            containers=tuple(one for one in there if judge.is_ours(one.labels, self.ledger)),
            networks=tuple(networks),
            volumes=tuple(volumes),
            used_volumes=frozenset(used),
        )

    # -- what should be --------------------------------------------------------------------

    def protect(self, name: str) -> None:
        """From now on the server of this display name (``alice/train``) must not end."""
        self._protected.setdefault(name, []).append((time.time(), OPEN))

    def release(self, name: str) -> None:
        """It may end from now on."""
        begin, _ = self._protected[name][-1]
        self._protected[name][-1] = (begin, time.time())

    def bar(self, device: str) -> None:
        """From now on no server may start with this device (broken, drained, not ours)."""
        self.rules.barred.setdefault(device, []).append((time.time(), OPEN))

    def unbar(self, device: str) -> None:
        """It may from now on."""
        limits.close(self.rules.barred[device], time.time())

    def limit(self, users: Collection[str], most: int) -> None:
        """From now on these users together get no more than ``most`` devices."""
        quota = limits.Quota(users=frozenset(users), most=most, since=time.time())
        self.rules.quotas.append(quota)

    # -- judging ---------------------------------------------------------------------------

    def book(self, place: str | Path) -> None:
        """Hear the ledger as second witness from now on: an SQLite file, or a database URL."""
        self._book = str(place)

    def judge(self, running: Collection[str] | None = None) -> Verdict:
        """What was found so far.

        Parameters
        ----------
        running:
            All is quiet, and exactly these servers (display names) should run; None = all is
            not quiet: only what must hold at any time is judged.
        """
        now = self.look()
        memory = {engine.path: engine.memory() for engine in self._engines}
        findings: list[Finding] = []
        with self._lock:
            findings += judge.doubled(self.history)
            findings += judge.differing(self.history, self.ledger)
            findings += judge.stopped(self.history, self.ledger, self._protected)
            findings += limits.judge(self.history, self.ledger, self.rules, memory)
        if running is not None:
            findings += judge.leaked(now, running)
        if self._book:
            book = books.read(self._book)
            findings += books.history_errors(book)
            findings += grants.grant_errors(book, self.rules)
            if running is not None:
                findings += books.facts_errors(book, now.containers)
        return Verdict.of(findings)


def _still_runs(engine: EngineApi, info: dict[str, Any]) -> bool:
    try:
        again = engine.container(str(info["Id"]))
    except EngineSilent:
        return False
    wanted = ("Running", "Pid", "StartedAt")
    return again is not None and all(again["State"][k] == info["State"][k] for k in wanted)
