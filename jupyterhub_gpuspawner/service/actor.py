"""The one owner of the scheduler's state: events in a queue, decisions on disk, then news.

Events are handled in batches. All decisions of a batch are stored in one transaction, in a
thread, because the disk must not stop the event loop; only then does anybody hear of them.
When the ledger does not take a batch, none of it has happened: the state is thrown away and
built again from the ledger as soon as that works, and meanwhile everybody is told why.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from ..errors import LedgerError, LedgerFenced, RefusedError
from ..scheduler import events
from ..scheduler.decisions import (
    BookingStored,
    Decision,
    DeviceStored,
    EntryStored,
    LeaseStored,
    NodeStored,
    Noted,
)
from ..scheduler.models import Lease, Settings
from ..scheduler.state import SchedulerState
from ..store.replay import JournalRow, Snapshot

log = logging.getLogger("gpus.actor")
T = TypeVar("T")

#: what may be posted: an event, a note, or a function that makes an event from the state at
#: the moment it is handled (None = nothing to do after all)
Post = events.Event | Noted | Callable[[SchedulerState], "events.Event | None"]
#: hears of the decisions of a batch after they are stored
Listener = Callable[[SchedulerState, list[Decision]], None]

#: most events in one transaction
BATCH = 64
#: ended leases that are counted as usage after a start
REMEMBERED = 10_000
#: seconds between attempts to get the ledger back: first, and at most
RETRY_FIRST, RETRY_MOST = 0.5, 5.0


class Store(Protocol):
    """What is used of :class:`~jupyterhub_gpuspawner.store.Ledger`."""

    epoch: int

    def commit(self, decisions: list[Decision], now: float) -> None: ...
    def load(self) -> Snapshot: ...
    def leases(
        self, user: str | None = None, live: bool | None = None, limit: int = 100
    ) -> list[Lease]: ...
    def journal(self, after: int = 0, limit: int = 1000) -> list[JournalRow]: ...
    def granted(
        self, since: float, until: float, after: tuple[float, str] = ..., limit: int = 1000
    ) -> list[Lease]: ...
    def notes(self, before: int | None = None, limit: int = 100) -> list[JournalRow]: ...


@dataclass(kw_only=True, slots=True)
class _Posted(Generic[T]):
    """Something in the queue."""

    post: Post
    then: Callable[[SchedulerState], T] | None
    future: asyncio.Future[Any] = field(repr=False)
    decisions: list[Decision] = field(default_factory=list)
    refused: RefusedError | None = None


class Actor:
    """Owns the state. Made when the ledger is open and its epoch raised.

    Parameters
    ----------
    store:
        The open ledger. Only the actor's own thread touches it.
    settings:
        The policy's numbers.
    clock:
        POSIX seconds.
    on_fenced:
        Called once when a younger scheduler has taken over: end the process.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        *,
        clock: Callable[[], float],
        on_fenced: Callable[[LedgerFenced], None],
    ) -> None:
        self._store = store
        self._settings = settings
        self._clock = clock
        self._on_fenced = on_fenced
        self._queue: asyncio.Queue[_Posted[Any]] = asyncio.Queue()
        self._state: SchedulerState | None = None
        self._boot_id = ""
        self._quiet = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._failures = 0
        #: why nothing can be stored at the moment
        self.trouble: LedgerError | None = LedgerError("the ledger was not read yet")
        #: the ledger was read once
        self.started = False
        #: hear of stored decisions, in order
        self.listeners: list[Listener] = []
        #: called after the state was built anew: nobody is attached, no node is ready
        self.on_rebuilt: list[Callable[[SchedulerState], None]] = []
        #: called when trouble begins
        self.on_trouble: list[Callable[[LedgerError], None]] = []

    # -- for everybody -------------------------------------------------------------------

    async def post(self, post: Post) -> list[Decision]:
        """Handle an event; its decisions, stored.

        Raises
        ------
        RefusedError
            The scheduler says no; nothing changed.
        LedgerError
            Nothing was stored, nothing happened.
        """
        return await self._put(post, None)

    async def post_then(self, post: Post, then: Callable[[SchedulerState], T]) -> T:
        """As :meth:`post`, but the answer is ``then(state)``, called right after storing."""
        answer: T = await self._put(post, then)
        return answer

    def now(self) -> float:
        """POSIX seconds, as decisions have them."""
        return self._clock()

    async def read(self, look: Callable[[SchedulerState], T]) -> T:
        """``look(state)`` at a moment when all of the state is stored. LedgerError in trouble."""
        async with self._quiet:
            if self._state is None:
                raise self.trouble or LedgerError("the ledger was not read yet")
            return look(self._state)

    async def run(self) -> None:
        """Work until cancelled. Reads the ledger first."""
        try:
            while True:
                if self._state is None:
                    await self._recover()
                await self._work(await self._batch())
        finally:
            self._refuse_all(LedgerError("the scheduler ends"))
            # The thread may hang in a dead disk; everything on it is whole or not there.
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def ledger_call(self, call: Callable[[], T]) -> T:
        """Run a call on the ledger in the ledger's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    async def journal(self, after: int, limit: int) -> list[JournalRow]:
        """Stored decisions after number ``after``, oldest first. LedgerError in trouble."""
        return await self.look_up(lambda store: store.journal(after, limit))

    async def look_up(self, look: Callable[[Store], T]) -> T:
        """``look(ledger)`` in the ledger's thread. LedgerError in trouble."""
        if self.trouble is not None:
            raise self.trouble
        return await self.ledger_call(lambda: look(self._store))

    async def ended(self, user: str, limit: int) -> list[Lease]:
        """Servers of a user that have ended, the newest first. LedgerError in trouble."""
        if self.trouble is not None:
            raise self.trouble
        return await self.ledger_call(
            lambda: self._store.leases(user=user, live=False, limit=limit)
        )

    # -- the work ------------------------------------------------------------------------

    async def _put(self, post: Post, then: Callable[[SchedulerState], Any] | None) -> Any:
        if self.trouble is not None:
            raise self.trouble
        posted = _Posted(post=post, then=then, future=asyncio.get_running_loop().create_future())
        self._queue.put_nowait(posted)
        # shield: what is in the queue is handled, whether or not the asker still waits
        return await asyncio.shield(posted.future)

    async def _batch(self) -> list[_Posted[Any]]:
        batch = [await self._queue.get()]
        with contextlib.suppress(asyncio.QueueEmpty):
            while len(batch) < BATCH:
                batch.append(self._queue.get_nowait())
        return batch

    async def _work(self, batch: list[_Posted[Any]]) -> None:
        async with self._quiet:
            state = self._state
            assert state is not None
            now = self._clock()
            try:
                for posted in batch:
                    self._handle(state, posted, now)
                decisions = [decision for posted in batch for decision in posted.decisions]
                if decisions:
                    await self.ledger_call(lambda: self._store.commit(decisions, now))
                    self._failures = 0
            except LedgerError as error:
                self._fail(batch, error)
                return
            except asyncio.CancelledError:
                self._fail(batch, LedgerError("the scheduler ends; it is not known if it stored"))
                raise
            except Exception as error:
                # A bug. What it left in the state was not stored, so the state has to go.
                log.exception("scheduler: an event could not be handled")
                self._fail(batch, LedgerError(f"a bug: {error!r}"))
                return
            self._tell(state, batch, decisions)

    def _handle(self, state: SchedulerState, posted: _Posted[Any], now: float) -> None:
        post = posted.post
        if isinstance(post, Noted):
            posted.decisions = [post]
            return
        event = post(state) if callable(post) else post
        if event is None:
            return
        if isinstance(event, events.BootSeen):
            self._boot_id = event.boot_id
        try:
            posted.decisions = list(state.handle(event, now))
        except RefusedError as error:
            posted.refused = error

    def _tell(
        self, state: SchedulerState, batch: list[_Posted[Any]], decisions: list[Decision]
    ) -> None:
        for posted in batch:
            if posted.future.done():
                continue
            if posted.refused is not None:
                _fail(posted, posted.refused)
            else:
                answer = posted.then(state) if posted.then else posted.decisions
                posted.future.set_result(answer)
        for listener in self.listeners:
            listener(state, decisions)

    # -- trouble -------------------------------------------------------------------------

    def _fail(self, batch: list[_Posted[Any]], error: LedgerError) -> None:
        """Nothing of the batch happened: forget the state that says it did."""
        self._state = None
        self.trouble = error
        self._failures += 1
        log.error("ledger: %s", error)
        for posted in batch:
            _fail(posted, error)
        self._refuse_all(error)
        for callback in self.on_trouble:
            callback(error)
        if isinstance(error, LedgerFenced):
            self._on_fenced(error)

    def _refuse_all(self, error: LedgerError) -> None:
        with contextlib.suppress(asyncio.QueueEmpty):
            while True:
                _fail(self._queue.get_nowait(), error)

    async def _recover(self) -> None:
        """Read the ledger, and make sure that it can be written, until both work."""
        first = self._failures == 0
        while True:
            if self._failures:
                delay = RETRY_FIRST * 2 ** min(self._failures - 1, 8)
                await asyncio.sleep(min(delay, RETRY_MOST))
            try:
                snapshot = await self.ledger_call(self._store.load)
                ended = await self.ledger_call(
                    lambda: self._store.leases(live=False, limit=REMEMBERED)
                )
                if not first:
                    await self._prove_writable()
                self._state = self._rebuild(snapshot, ended)
            except LedgerError as error:
                self._failures += 1
                if str(error) != str(self.trouble):
                    log.error("ledger: %s", error)
                self.trouble = error
                if isinstance(error, LedgerFenced):
                    self._on_fenced(error)
                continue
            self.trouble = None
            self.started = True
            if not first:
                log.info("ledger: it can be written again")
            for callback in self.on_rebuilt:
                callback(self._state)
            return

    async def _prove_writable(self) -> None:
        note = Noted(kind="ledger", text="the ledger can be written again")
        now = self._clock()
        await self.ledger_call(lambda: self._store.commit([note], now))

    def _rebuild(self, snapshot: Snapshot, ended: list[Lease]) -> SchedulerState:
        state = SchedulerState(self._settings, self._store.epoch)
        now = self._clock()
        # oldest first, as they were lived through
        had = [LeaseStored(lease=lease) for lease in reversed(ended)]
        state.restore([*had, *values_of(snapshot)], now)
        if self._boot_id:
            state.handle(events.BootSeen(boot_id=self._boot_id), now)
        return state


def values_of(snapshot: Snapshot) -> list[Decision]:
    """A ledger's content as the decisions that :meth:`SchedulerState.restore` takes."""
    return [
        *(NodeStored(node=node) for node in snapshot.nodes),
        *(BookingStored(booking=booking) for booking in snapshot.bookings),
        *(DeviceStored(device=device, status=status) for device, status in snapshot.devices),
        *(LeaseStored(lease=lease) for lease in snapshot.leases),
        *(EntryStored(entry=entry) for entry in snapshot.entries),
    ]


def _fail(posted: _Posted[Any], error: Exception) -> None:
    if not posted.future.done():
        posted.future.set_exception(error)
        # the asker may have gone away: then nobody else looks at it
        posted.future.exception()
