"""What handlers and pages may ask of the scheduler, whatever state the service is in."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ..discovery.base import Usage
from ..errors import LedgerError, RefusedError
from ..scheduler import events
from ..scheduler.decisions import Noted
from ..scheduler.models import Injection, Lease, Reason, Text
from ..scheduler.state import SchedulerState
from ..store.replay import JournalRow
from . import waiting
from .actor import Actor, Post, Store
from .agents import Agents
from .bodies import Ended
from .inventory import Inventory, SwarmInventory
from .live import Live
from .metrics import Metrics
from .pace import Pace
from .page_data import View, Viewer
from .reconciler import Reconciler
from .usage_watch import UsageWatch
from .waiters import Waiter, Waiters
from .words import REASONS, why_stopped

log = logging.getLogger("gpus")
T = TypeVar("T")

#: seconds to look for the proof of an end while the Hub waits for the answer
SETTLE_LIMIT = 12.0
#: stopped servers whose users are told why
REMEMBERED = 1000
#: ended servers of a user who looks
ENDED = 500
_UUID = re.compile(r"[0-9a-f]{32}", re.ASCII)


class Phase(Text):
    """How far the service is."""

    #: the ledger is not open yet
    STARTING = "starting"
    #: ledger and engine are not compared yet, or the engine does not answer
    RECONCILING = "reconciling"
    #: grants are made
    SERVING = "serving"
    #: the ledger can't be written
    READ_ONLY = "read_only"


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """What health, page and waiting users are told."""

    phase: Phase
    reason: Reason | None = None
    #: one sentence for users
    message: str = ""


class Desk:
    """One for each service. ``actor`` and ``reconciler`` are None until the ledger is open."""

    def __init__(
        self,
        token: str,
        boot_id: str = "",
        pace: Pace | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self.token = token
        #: how often each user may ask
        self.pace = Pace() if pace is None else pace
        self.metrics = Metrics() if metrics is None else metrics
        self.waiters = Waiters(self._injection, self.excuse)
        self.actor: Actor | None = None
        self.reconciler: Reconciler | None = None
        self.inventory: Inventory | SwarmInventory | None = None
        self.agents: Agents | None = None
        self.ledger_id = ""
        #: of the Hub process that lives now
        self.boot_id = boot_id
        #: has the Hub stop (user, server), and says whether it does; None = there is no Hub
        self.hub_stop: Callable[[str, str], Awaitable[bool]] | None = None
        #: open pages
        self.live = Live(self, time.time)
        #: what the servers of those who look use
        self.watch = UsageWatch(self)
        #: what is to be said of a user's home
        self.large_home: Callable[[str], dict[str, int] | None] = lambda user: None
        #: of all pages; "" = of each browser
        self.language = ""
        #: why the ledger is not open yet
        self.opening = Status(
            phase=Phase.STARTING,
            reason=Reason.SCHEDULER_STARTING,
            message=REASONS[Reason.SCHEDULER_STARTING],
        )
        #: lease id -> what the user of a server that we have stopped shall read
        self._whys: dict[str, str] = {}
        #: user who has looked -> servers of that user that have ended, the newest first
        self._ended: dict[str, list[Lease]] = {}
        self._managed = bool(boot_id)
        self._background: set[asyncio.Task[None]] = set()

    # -- how it is -----------------------------------------------------------------------

    def status(self) -> Status:
        """The phase, and why it is not ``serving``."""
        if self.actor is None or self.reconciler is None:
            return self.opening
        if self.actor.trouble is not None:
            begun = self.actor.started
            reason = Reason.LEDGER_UNAVAILABLE if begun else Reason.SCHEDULER_STARTING
            phase = Phase.READ_ONLY if begun else Phase.STARTING
            return Status(phase=phase, reason=reason, message=REASONS[reason])
        if self.reconciler.trouble is not None:
            reason, message = self.reconciler.trouble
            message = message or REASONS[reason]
            return Status(phase=Phase.RECONCILING, reason=reason, message=message)
        return Status(phase=Phase.SERVING)

    def excuse(self) -> tuple[Reason, str] | None:
        """Why nothing is granted to anybody now; None while serving."""
        status = self.status()
        return None if status.reason is None else (status.reason, status.message)

    async def read(self, look: Callable[[SchedulerState], T]) -> T:
        """``look(state)``, with nothing in it that is not stored. LedgerError in trouble."""
        return await self._open().read(look)

    def now(self) -> float:
        """POSIX seconds by the clock that decides. LedgerError in trouble."""
        return self._open().now()

    async def show(self, viewer: Viewer, look: Callable[[View], T]) -> T:
        """``look`` at the state as the viewer may see it. LedgerError in trouble."""

        def seen(state: SchedulerState) -> T:
            starved = self.reconciler.starved if self.reconciler is not None else ()
            return look(
                View(
                    state=state,
                    viewer=viewer,
                    starved=starved,
                    now=self.now(),
                    excuse=self.excuse(),
                    use=self._use,
                    pulls=self.reconciler.pulls if self.reconciler is not None else {},
                    ended=lambda user: self._ended.get(user, ()),
                    home=self.large_home,
                )
            )

        return await self.read(seen)

    def _use(self, lease: Lease) -> dict[str, Any]:
        gpus = {
            id: {"memory": one.memory_used, "busy": one.utilisation, "celsius": one.temperature}
            for id, one in self.usage_of(lease.devices).items()
        }
        return {**self.watch.of(lease.id), "gpus": gpus}

    def usage_of(self, devices: Iterable[str]) -> dict[str, Usage]:
        """What was last measured of devices; those that can't be measured are not in it."""
        known = self.inventory.usage if self.inventory is not None else {}
        return {id: known[id] for id in devices if id in known and not id.startswith("SIMULATED")}

    # -- requests ------------------------------------------------------------------------

    def hub_seen(self, boot_id: str) -> None:
        """A request came from this Hub process. An unmanaged service learns it like that."""
        if boot_id and not self._managed and boot_id != self.boot_id:
            self.boot_id = boot_id
            self.later(events.BootSeen(boot_id=boot_id))

    async def submit(self, waiter: Waiter) -> None:
        """Put the waiter in line. RefusedError, LedgerError."""
        actor = self._open()
        wanted = waiter.event

        def fresh(state: SchedulerState) -> events.Event:
            # Who asks again is found by name. A new request needs a new id.
            tables = state.tables
            if wanted.entry_id in tables.entries or wanted.entry_id in tables.leases:
                waiter.event = replace(wanted, entry_id=uuid.uuid4().hex)
            return waiter.event

        await actor.post_then(fresh, lambda state: self.waiters.seat(waiter, state))

    def detached(self, entry: str) -> None:
        """The connection of a waiter is gone."""
        self.later(events.Detached(entry_id=entry))

    async def cancel(self, entry: str) -> None:
        """The user does not want it any more. May be repeated. LedgerError."""
        waiter = self.waiters.find(entry)
        if waiter is not None and waiter.submit:
            waiter.cancel()  # it has no place yet, and does not get one
            entry = waiter.entry or entry
        await self._open().post(events.Cancelled(entry_id=entry))

    # -- leases --------------------------------------------------------------------------

    async def post(self, post: Post) -> None:
        """Handle an event. RefusedError, LedgerError."""
        await self._open().post(post)

    async def stop_server(self, lease: Lease) -> None:
        """Have the Hub stop a server, as its user wishes. RefusedError where it does not."""
        if self.hub_stop is None or not await self.hub_stop(lease.key.user, lease.key.server):
            raise RefusedError(
                f"{lease.key}: the Hub did not take the stop",
                "The Hub did not stop it. Try again, or stop it on the Hub's page.",
                reason="hub",
            )

    async def stopping(self, lease: str, reason: Reason) -> None:
        """The Hub is about to stop a server: store the intent, leave the stop to the Hub."""
        actor = self._open()
        if self.reconciler is not None:
            self.reconciler.hub_stops(lease)
        await actor.post(events.StopWanted(lease_id=lease, reason=reason))

    def remember(self, lease: Lease) -> None:
        """Keep what the user of a stopped server shall read, until the Hub notices the end."""
        if not lease.live and lease.key.user in self._ended:
            self._ended[lease.key.user] = [lease, *self._ended[lease.key.user]][:ENDED]
        why = why_stopped(lease)
        if why:
            self._whys[lease.id] = why
            while len(self._whys) > REMEMBERED:
                del self._whys[next(iter(self._whys))]

    async def recall(self, user: str) -> None:
        """Have the user's ended servers at hand for :meth:`show`. LedgerError."""
        if user not in self._ended:
            while len(self._ended) >= REMEMBERED:
                del self._ended[next(iter(self._ended))]
            self._ended[user] = await self._open().ended(user, ENDED)

    def why_stopped(self, lease: str) -> str:
        """Why we have stopped a server, for its user; empty = we have not."""
        return self._whys.get(lease, "")

    async def act(self, event: events.Event, *, subject: str, text: str) -> None:
        """Handle an event that an admin wants; ``text`` says who, for the journal. LedgerError."""
        actor = self._open()
        # First who wants it: whoever dies in between leaves a wish without effect, not an effect
        # that nobody has wished for.
        await actor.post(Noted(kind="admin", subject=subject, text=text))
        await actor.post(event)

    async def ended(self, lease: str, body: Ended) -> bool:
        """The Hub says that a server has ended; whether its devices are free."""
        self._open()
        assert self.reconciler is not None
        reason = Reason.OUT_OF_MEMORY if body.oom else body.reason
        note = body.note
        if not note and body.exit_code is not None:
            note = f"ended with exit code {body.exit_code}"
        work = self.reconciler.settle(lease, reason, note)
        try:
            return await asyncio.wait_for(work, SETTLE_LIMIT)
        except asyncio.TimeoutError:
            self.reconciler.nudge()
            return False

    async def journal(self, after: int, limit: int) -> list[JournalRow]:
        """Up to ``limit`` stored decisions after number ``after``, oldest first. LedgerError."""
        return await self._open().journal(after, limit)

    async def look_up(self, look: Callable[[Store], T]) -> T:
        """``look(ledger)``, for what is over and not in the state. LedgerError."""
        return await self._open().look_up(look)

    # -- for the runtime -----------------------------------------------------------------

    def later(self, post: Post) -> None:
        """Post without waiting. What fails is made good by the next tick or rebuild."""
        actor = self.actor
        if actor is None:
            return

        async def work() -> None:
            try:
                await actor.post(post)
            except LedgerError as error:
                log.debug("not posted: %s", error)

        task = asyncio.get_running_loop().create_task(work())
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def close(self) -> None:
        """End what runs in the background."""
        await self.live.close()
        await waiting.end(self._background)

    def _open(self) -> Actor:
        if self.actor is None:
            raise LedgerError("the ledger is not open yet", self.opening.message)
        return self.actor

    def _injection(self, device: str) -> Injection | None:
        return self.inventory.injections.get(device) if self.inventory is not None else None
