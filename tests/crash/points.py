"""Points at which a process can be struck, at run time. Imported by instrumented modules only.

A point is a place in the code (``launch.py:Launch.run:3:before``) or an exchange with the outside
(``engine POST /containers/create:after``). In a *recording* process each point that is hit is
written down; in an *armed* one the fault strikes when its point is hit for the first time.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.testbed.processes import parent

#: what may happen at a point; ``lost`` is an exception after the effect
FAULTS = ("kill-hub", "kill-scheduler", "exception", "lost", "cancel", "hang")


class Injected(Exception):
    """The exception that strikes."""


@dataclass(kw_only=True)
class Plan:
    """What this process does at its points."""

    #: ``hub`` or ``scheduler``
    role: str
    #: write each point that is hit to this file; empty = don't
    record: str = ""
    #: the point that is struck; empty = none
    point: str = ""
    fault: str = ""
    #: process id of the other process
    other: int = 0
    #: made when the fault strikes
    struck: str = ""


#: exchanges that mean something else each time in one operation: each of the first few is a
#: point of its own, ``…#2`` and so on; of all others the first time counts
_REPEATED = ("ledger COMMIT", "ledger INSERT INTO leases", "engine POST", "engine DELETE")
MOST = 4

_plan: Plan | None = None
_seen: set[str] = set()
_times: dict[str, int] = {}
_lock = threading.Lock()


def set_plan(plan: Plan | None) -> None:
    """Arm, record, or (None) do neither from now on."""
    global _plan
    with _lock:
        _seen.clear()
        _times.clear()
        _plan = plan


def strike(point: str) -> str:
    """This point is hit: the fault that its caller has to make, empty for none. Kills at once."""
    plan = _plan
    if plan is None:
        return ""
    if point.startswith(_REPEATED):
        point = _numbered(point)
    if not point:
        return ""
    if plan.record:
        _write_down(plan, point)
    if plan.point != point:
        return ""
    with _lock:
        if plan.point != point:
            return ""
        plan.point = ""
    with open(plan.struck, "a") as file:
        file.write(f"{plan.role} {point} {plan.fault}\n")
    if plan.fault.startswith("kill-"):
        _kill(os.getpid() if plan.fault == f"kill-{plan.role}" else plan.other)
        return ""
    return plan.fault


def _kill(victim: int) -> None:
    """kill -9 this process or the other one, and nothing else whatever the number has become.

    0 stands for one that is gone already; to the kernel it means the whole process group, the
    test run included. A number may also have gone to a stranger meanwhile.
    """
    if victim == os.getpid() or parent(victim) == os.getppid():
        os.kill(victim, signal.SIGKILL)


def _numbered(point: str) -> str:
    with _lock:
        times = _times[point] = _times.get(point, 0) + 1
    if times == 1 or times > MOST:
        return point if times == 1 else ""
    name, _, side = point.rpartition(":")
    return f"{name}#{times}:{side}"


def _write_down(plan: Plan, point: str) -> None:
    with _lock:
        if point not in _seen:
            _seen.add(point)
            # one write of less than a page: whole, also with two processes
            with open(plan.record, "a") as file:
                file.write(f"{plan.role}|{point}\n")


# -- what the instrumented code calls ----------------------------------------------------------


def before(point: str, awaitable: Any) -> Any:
    """Just before ``await``."""
    fault = strike(f"{point}:before")
    if fault == "cancel":
        _cancel()
    elif fault == "hang":
        _close(awaitable)
        return asyncio.get_running_loop().create_future()
    elif fault:
        _close(awaitable)
        raise Injected(point)
    return awaitable


def after(point: str, value: Any) -> Any:
    """Just after ``await``."""
    fault = strike(f"{point}:after")
    if fault == "cancel":
        _cancel()
    elif fault:
        raise Injected(point)
    return value


def _cancel() -> None:
    task = asyncio.current_task()
    if task is not None:
        task.cancel()


def _close(awaitable: Any) -> None:
    """A coroutine that nobody will await."""
    if asyncio.iscoroutine(awaitable):
        awaitable.close()


class Iterating:
    """``async for`` over something, with a point around each step."""

    def __init__(self, point: str, items: Any) -> None:
        self._point = point
        self._items = items

    def __aiter__(self) -> Iterating:
        self._items = self._items.__aiter__()
        return self

    async def __anext__(self) -> Any:
        item = await before(self._point, self._items.__anext__())
        return after(self._point, item)


class Entering:
    """``async with`` something, with a point around entering and leaving."""

    def __init__(self, point: str, manager: Any) -> None:
        self._point = point
        self._manager = manager

    async def __aenter__(self) -> Any:
        value = await before(f"{self._point}:enter", self._manager.__aenter__())
        return after(f"{self._point}:enter", value)

    async def __aexit__(self, *error: Any) -> Any:
        # what is left is left, whatever strikes: a lock that is never freed is no crash
        value = await self._manager.__aexit__(*error)
        return after(f"{self._point}:leave", value)


def exchange(point: str, error: Callable[[], Exception]) -> Iterator[None]:
    """A generator around one exchange in a thread: ``yield`` is the exchange."""
    _in_thread(strike(f"{point}:before"), error)
    yield
    _in_thread(strike(f"{point}:after"), error)


def _in_thread(fault: str, error: Callable[[], Exception]) -> None:
    if fault == "hang":
        threading.Event().wait()
    elif fault:
        raise error()
