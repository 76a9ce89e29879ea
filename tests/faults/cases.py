"""One case: a phase of a server's life, a call of it, and what happens to that call.

A case runs with a user, a socket and a pool of its own, so many can run at once on one service
and one engine.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import docker.errors

from jupyterhub_gpuspawner import dockerspawner
from tests.faults.driver import Somebody
from tests.testbed.faultsocket import FaultSocket, Rule

USER = "jupyterhub-gpuspawner.user"
#: seconds Docker may be silent where the test is that it is
SHORT_TIMEOUT = 4.0
#: seconds for something that follows by itself
SOON = 40.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """What all cases share."""

    service: Any
    client: docker.DockerClient
    #: the engine's own socket
    engine: Path
    folder: Path
    image: str


@dataclass(kw_only=True)
class Outcome:
    """What came of a case."""

    #: what the user read; "" = nothing, because all went well
    words: str = ""
    #: lines of the pending page
    said: list[str] = field(default_factory=list)
    #: the fault happened
    fired: bool = False
    #: what the spawner's poll said right after
    polled: Any = None
    #: the server runs after all
    running: bool = False
    #: what is not as it must be
    problems: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)


class Case:
    """A user with a socket that fails."""

    def __init__(self, bench: Bench, name: str, **options: Any) -> None:
        self.bench = bench
        self.socket = FaultSocket(bench.engine, bench.folder / f"{name}.sock")
        self.person = Somebody(
            bench.service, self.socket.base_url, name, **{"image": bench.image, **options}
        )
        self.outcome = Outcome()

    # -- the world as it is, past the socket that fails --------------------------------------

    async def containers(self) -> list[Any]:
        """All containers of the user, from the engine itself."""

        def look() -> list[Any]:
            chosen = {"label": f"{USER}={self.person.name}"}
            found = self.bench.client.containers.list(all=True, filters=chosen, ignore_removed=True)
            return list(found)

        return await asyncio.to_thread(look)

    async def leased(self) -> list[str]:
        """Devices that the ledger has leased to the user."""
        summary = await asyncio.to_thread(self.bench.service.leases)
        return sorted(device for user, device in summary if user == self.person.name)

    async def until(self, what: str, check: Callable[[], Any], seconds: float = SOON) -> bool:
        """Wait for something that is to follow; False, and a problem noted, if it does not."""
        until = time.monotonic() + seconds
        while not await check():
            if time.monotonic() > until:
                self.outcome.problems.append(f"not within {seconds:g} s: {what}")
                return False
            await asyncio.sleep(0.1)
        return True

    async def nothing_left(self) -> None:
        """No container, no lease, within a bearable time."""

        async def gone() -> bool:
            return not await self.containers()

        async def free() -> bool:
            return not await self.leased()

        await self.until("its container is gone", gone)
        await self.until("its lease is over", free)

    async def close(self) -> None:
        """End what the case began; nothing of it may be left."""
        self.socket.heal()
        with suppress(Exception):
            await self.person.stop()
        spawner = self.person.spawner
        for key, watch in list(dockerspawner._watches.items()):
            if key[0] == id(spawner.pool):
                await watch.close()
                del dockerspawner._watches[key]
        for key, pool in list(dockerspawner._pools.items()):
            if pool is spawner.pool:
                pool.close()
                del dockerspawner._pools[key]
        self.socket.close()


async def start(case: Case, rule: Rule | None, arm: Callable[[], Rule | None]) -> None:
    """The user presses start."""
    case.socket.calls.clear()
    rule = arm()
    out = case.outcome
    out.words = await case.person.start()
    out.said = case.person.said()
    if rule is None:
        await _hears(case)
    else:
        # the watch looks beside the start
        await case.until("the fault happens", lambda: _has(rule.fired), 10)
    out.polled = await case.person.poll()
    _note(case, rule)


async def stop(case: Case, rule: Rule | None, arm: Callable[[], Rule | None]) -> None:
    """The user presses stop."""
    await _well_started(case)
    rule = arm()
    await case.person.stop()
    _note(case, rule)


async def poll(case: Case, rule: Rule | None, arm: Callable[[], Rule | None]) -> None:
    """The Hub asks whether the server runs, and no list of the engine's is young enough."""
    await _well_started(case)
    spawner = case.person.spawner
    spawner._watch(spawner._ledger_id)._seen_at = None
    rule = arm()
    out = case.outcome
    out.polled = await case.person.poll()
    out.words = _last_end(spawner)
    _note(case, rule)


async def death(case: Case, rule: Rule | None, arm: Callable[[], Rule | None]) -> None:
    """The server ends by itself while it runs."""
    await _well_started(case)
    spawner = case.person.spawner
    rule = arm()
    (container,) = await case.containers()
    await asyncio.to_thread(container.kill)

    async def read() -> bool:
        if rule is not None and rule.fault == "refused" and rule.fired.is_set():
            case.socket.heal()  # until then nothing can be known
        return await spawner.poll() is not None

    await case.until("the Hub hears of the end", read)
    case.outcome.words = _last_end(spawner)
    _note(case, rule)


def _last_end(spawner: Any) -> str:
    """What the note above the form says."""
    return f"Your last server {spawner.last_end.text}." if spawner.last_end else ""


async def pull(case: Case, rule: Rule | None, arm: Callable[[], Rule | None]) -> None:
    """The user presses start, and the image is not there."""
    rule = arm()
    case.outcome.words = await case.person.start()
    case.outcome.said = case.person.said()
    _note(case, rule)


async def _well_started(case: Case) -> None:
    words = await case.person.start()
    assert words == "", words
    await _hears(case)
    case.socket.calls.clear()


async def _has(event: threading.Event) -> bool:
    return event.is_set()


async def _hears(case: Case) -> None:
    """Wait for the watch's first list, where there is a server."""
    spawner = case.person.spawner
    if spawner.object_id and spawner._ledger_id:
        watch = spawner._watch(spawner._ledger_id)

        async def listed() -> bool:
            return watch._seen_at is not None

        await case.until("the watch has a list", listed, 20)


def _note(case: Case, rule: Rule | None) -> None:
    case.outcome.calls = list(case.socket.calls)
    case.outcome.fired = rule is not None and rule.fired.is_set()


PHASES: dict[str, Any] = {
    "start": start,
    "stop": stop,
    "poll": poll,
    "death": death,
    "pull": pull,
}


#: starts after the fault, in a case with a short time-out
TRIES = 4


async def start_again(case: Case, tries: int) -> str:
    """Start, after the fault; what is said of the last try.

    A busy machine's healthy engine can be slower than a short time-out: then more than one.
    """
    for _ in range(tries - 1):
        if not await case.person.start():
            return ""
        await case.nothing_left()
    return await case.person.start()


async def run_case(bench: Bench, name: str, phase: str, call: str, fault: str) -> Outcome:
    """Run one; what is to hold whatever the fault is looked at here."""
    options: dict[str, Any] = {}
    if fault.startswith("silent"):
        options["engine_timeout"] = SHORT_TIMEOUT
    if phase == "pull":
        options["image"] = "127.0.0.1:1/nobody/has-this:1"
    case = Case(bench, name, **options)
    out = case.outcome

    def arm() -> Rule | None:
        return case.socket.arm(call, fault) if fault else None

    try:
        await PHASES[phase](case, None, arm)
        live = [one for one in await case.containers() if one.status == "running"]
        out.running = bool(live) and phase in ("start", "poll") and not out.words
        if live and not await case.leased():
            out.problems.append("a running container without a lease")
        case.socket.heal()
        if not out.running:
            await case.nothing_left()
            if phase != "pull":
                again = await start_again(case, TRIES if fault.startswith("silent") else 1)
                if again:
                    out.problems.append(f"can't start again: {again}")
        await case.person.stop()
        await case.nothing_left()
    except Exception as error:  # noqa: BLE001 - told by the test of this case
        out.problems.append(f"{type(error).__name__}: {error}")
    finally:
        await case.close()
    return out
