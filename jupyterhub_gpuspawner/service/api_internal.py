"""The API between spawner and service. Addresses and bodies are those of ``client.py``."""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import asdict
from typing import Any

from tornado.iostream import StreamClosedError

from .. import __version__
from ..errors import LedgerError, RefusedError
from ..scheduler import events
from ..scheduler.decisions import encode
from ..scheduler.models import Reason
from ..scheduler.state import SchedulerState
from . import bodies, waiters, waiting
from .booked import booking_of
from .identity import key
from .summary import summary, warned
from .web import InternalHandler, JSONHandler
from .words import REASONS

#: seconds between two lines of a stream on which nothing changes
KEEP_ALIVE = 10.0
_ID = r"([A-Za-z0-9][A-Za-z0-9_.-]{0,127})"


class HealthHandler(JSONHandler):
    """``GET api/health``: alive, and how far the start is. No token."""

    def get(self) -> None:
        status = self.desk.status()
        self.finish(
            {
                "ok": True,
                "phase": status.phase.value,
                "reason": status.reason.value if status.reason else None,
                "message": status.message,
                "version": __version__,
            }
        )


class SummaryHandler(InternalHandler):
    """``GET api/internal/summary``: what exists, what is free, how many wait."""

    async def get(self) -> None:
        answer = await self.answer(lambda: self.desk.read(summary))
        if answer is not None:
            agents = self.desk.agents
            verdicts = {} if agents is None else agents.verdicts
            answer["toolkits"] = {
                name: None if found is None else asdict(found) for name, found in verdicts.items()
            }
            self.finish({"version": __version__, "ledger": self.desk.ledger_id, **answer})


class WarnedHandler(InternalHandler):
    """``GET api/internal/warned``: which servers are to end, and which are kept, by lease."""

    async def get(self) -> None:
        await _finish(self, lambda: self.desk.read(warned))


class HubHandler(InternalHandler):
    """``POST api/internal/hub``: a Hub process says that it is the one now. May be repeated."""

    async def post(self) -> None:
        async def hear() -> dict[str, Any]:
            self.desk.hub_seen(bodies.read(bodies.Hello, self.request.body).boot_id)
            return {}

        await _finish(self, hear)


class RequestsHandler(InternalHandler):
    """``POST api/internal/requests``: ask, and wait on the connection."""

    waiter: waiters.Waiter | None = None

    async def post(self) -> None:
        async def read() -> bodies.Ask:
            return bodies.read(bodies.Ask, self.request.body)

        ask = await self.answer(read)
        if ask is None:
            return
        self.desk.hub_seen(ask.boot_id)
        wait = self.desk.pace.take(ask.user, time.monotonic())
        if wait:
            self._too_fast(wait)
            return
        self.waiter = waiter = waiters.Waiter(event=self._event(ask))
        self.set_header("Content-Type", "application/x-ndjson")
        self.desk.waiters.enter(waiter)
        try:
            await self._serve(waiter)
        except StreamClosedError:
            pass
        finally:
            if self.desk.waiters.leave(waiter):
                self.desk.detached(waiter.entry)

    def _too_fast(self, wait: int) -> None:
        reason = Reason.TOO_MANY_REQUESTS
        self.desk.metrics.refused(reason.value)
        self.set_header("Retry-After", str(wait))
        self.fail(429, reason.value, f"{REASONS[reason]} Try again in {wait} s.")

    def on_connection_close(self) -> None:
        if self.waiter is not None:
            self.waiter.end()

    def _event(self, ask: bodies.Ask) -> events.Submitted:
        return events.Submitted(
            entry_id=ask.id or uuid.uuid4().hex,
            key=key(ask.user, ask.server),
            groups=tuple(ask.groups),
            request=ask.request.value(),
            profile=ask.profile,
            boot_id=ask.boot_id,
            admin=ask.admin,
        )

    async def _serve(self, waiter: waiters.Waiter) -> None:
        """Write each change, and the same line again to show that the connection lives."""
        said: dict[str, Any] = {}
        while not waiter.over:
            waiter.changed.clear()
            if waiter.submit:
                await self._submit(waiter)
            if waiter.line != said:
                said = waiter.line
                self.write(json.dumps(said) + "\n")
                await self.flush()
            if waiter.final:
                return
            if not await waiting.happens(waiter.changed, KEEP_ALIVE):
                said = {}

    async def _submit(self, waiter: waiters.Waiter) -> None:
        try:
            await self.desk.submit(waiter)
        except RefusedError as error:
            self.desk.metrics.refused(error.reason)
            waiter.tell(waiters.refused(error.reason, error.user_message))
        except LedgerError as error:
            # Whoever stands is asked to submit again when the ledger is back.
            why = self.desk.excuse() or (Reason.LEDGER_UNAVAILABLE, error.user_message)
            entry = waiter.entry or waiter.event.entry_id
            waiter.tell(waiters.queued(entry, waiter.line.get("position", 0), *why))


class CancelHandler(InternalHandler):
    """``POST api/internal/requests/<entry>/cancel``. May be repeated."""

    async def post(self, entry: str) -> None:
        async def cancel() -> dict[str, Any]:
            bodies.read(bodies.Nothing, self.request.body)
            await self.desk.cancel(entry)
            return {}

        await _finish(self, cancel)


class BookingsHandler(InternalHandler):
    """``GET`` and ``POST api/internal/bookings``: what is booked, and book more."""

    async def get(self) -> None:
        await _finish(self, lambda: self.desk.read(_booked))

    async def post(self) -> None:
        async def book() -> dict[str, Any]:
            body = bodies.read(bodies.Book, self.request.body)
            booking = await self.desk.read(lambda state: booking_of(body, state))
            await self.desk.post(events.Booked(booking=booking))
            return {"id": booking.id}

        await _finish(self, book)


class BookingHandler(InternalHandler):
    """``POST api/internal/bookings/<id>/cancel``. May be repeated."""

    async def post(self, booking: str) -> None:
        async def cancel() -> dict[str, Any]:
            bodies.read(bodies.Nothing, self.request.body)
            await self.desk.post(events.BookingCancelled(booking_id=booking))
            return {}

        await _finish(self, cancel)


def _booked(state: SchedulerState) -> dict[str, Any]:
    bookings = sorted(state.tables.bookings.values(), key=lambda b: (b.starts_at, b.id))
    return {"bookings": [encode(booking) for booking in bookings]}


class LeaseHandler(InternalHandler):
    """``POST api/internal/leases/<lease>/taken|bind|running|activity|extend|stopping|ended``."""

    async def post(self, lease: str, verb: str) -> None:
        work = {
            "taken": self._taken,
            "bind": self._bind,
            "running": self._running,
            "activity": self._activity,
            "extend": self._extend,
            "stopping": self._stopping,
            "ended": self._ended,
        }[verb]
        await _finish(self, lambda: work(lease, self.request.body))

    async def _taken(self, lease: str, data: bytes) -> dict[str, Any]:
        bodies.read(bodies.Nothing, data)
        await self.desk.post(events.Taken(entry_id=lease))
        return {}

    async def _bind(self, lease: str, data: bytes) -> dict[str, Any]:
        body = bodies.read(bodies.Bind, data)
        await self.desk.post(events.BindAsked(lease_id=lease, container_id=body.container_id))
        return {}

    async def _running(self, lease: str, data: bytes) -> dict[str, Any]:
        bodies.read(bodies.Nothing, data)
        await self.desk.post(events.ContainerRunning(lease_id=lease))
        return {}

    async def _activity(self, lease: str, data: bytes) -> dict[str, Any]:
        body = bodies.read(bodies.Activity, data)
        groups = None if body.groups is None else tuple(body.groups)
        await self.desk.post(
            events.ActivitySeen(lease_id=lease, idle_for=body.idle_for, groups=groups)
        )
        return {}

    async def _extend(self, lease: str, data: bytes) -> dict[str, Any]:
        body = bodies.read(bodies.Extend, data)
        await self.desk.post(events.ExtensionAsked(lease_id=lease, ends_at=body.ends_at))
        return {}

    async def _stopping(self, lease: str, data: bytes) -> dict[str, Any]:
        body = bodies.read(bodies.Stopping, data)
        await self.desk.stopping(lease, body.reason)
        return {}

    async def _ended(self, lease: str, data: bytes) -> dict[str, Any]:
        released = await self.desk.ended(lease, bodies.read(bodies.Ended, data))
        why = self.desk.why_stopped(lease)
        return {"released": released, "why": why} if why else {"released": released}


async def _finish(handler: InternalHandler, work: Any) -> None:
    answer = await handler.answer(work)
    if answer is not None:
        handler.finish(answer)


def routes(prefix: str, desk: Any) -> list[tuple[str, type[JSONHandler], dict[str, Any]]]:
    """The routes under ``prefix`` (``/services/gpus/``)."""
    with_desk = {"desk": desk}
    api = f"{prefix}api/"
    return [
        (f"{api}health", HealthHandler, with_desk),
        (f"{api}internal/summary", SummaryHandler, with_desk),
        (f"{api}internal/warned", WarnedHandler, with_desk),
        (f"{api}internal/hub", HubHandler, with_desk),
        (f"{api}internal/requests", RequestsHandler, with_desk),
        (f"{api}internal/requests/{_ID}/cancel", CancelHandler, with_desk),
        (f"{api}internal/bookings", BookingsHandler, with_desk),
        (f"{api}internal/bookings/{_ID}/cancel", BookingHandler, with_desk),
        (
            f"{api}internal/leases/{_ID}/(taken|bind|running|activity|extend|stopping|ended)",
            LeaseHandler,
            with_desk,
        ),
    ]
