"""The API of those who answer for the machines: bookings, groups, usage, the audit log."""

from __future__ import annotations

from dataclasses import asdict

from pydantic import BaseModel

from ..errors import NotThereError
from ..scheduler import events
from ..scheduler.decisions import Noted
from ..scheduler.policy import DAY
from ..store.replay import JournalRow
from . import api_models as models
from . import bodies, booked
from .api_base import APIHandler
from .openapi import LIMIT, OFFSET, Choice, Number, Operation
from .usage_report import BEFORE, EACH, WHO, Report, Row, Span, as_csv

#: leases that are read at a time, so that grants are stored in between
PART = 1000
_FAR = 10**11

FROM = Number(name="from", about="POSIX seconds; 0 = 30 days before 'to'", default=0, most=_FAR)
TO = Number(name="to", about="POSIX seconds; 0 = now", default=0, most=_FAR)
BY = Choice(name="by", about="what is counted together", allowed=WHO)
PERIOD = Choice(name="period", about="in which parts, by UTC; all = in one", allowed=EACH)
BEFORE_SEQ = Number(
    name="before", about="'next' of the part before; 0 = the newest", default=0, most=2**62
)


class BookingsHandler(APIHandler):
    """What is booked, and more of it."""

    async def get(self) -> None:
        async def read() -> BaseModel:
            rows = await self.desk.show(self.caller.viewer, booked.bookings)
            items, total = self.part(rows)
            return self.operation.answer(items=items, total=total)

        await self.reply(read)

    async def post(self) -> None:
        async def book() -> BaseModel:
            body = bodies.read(bodies.Book, self.request.body)
            booking = await self.desk.read(lambda state: booked.booking_of(body, state))
            await self.desk.post(events.Booked(booking=booking))
            whom = ", ".join([*booking.groups, *booking.users])
            gpus = f"{len(booking.devices)} GPU{'' if len(booking.devices) == 1 else 's'}"
            name = f" ({booking.name})" if booking.name else ""
            text = f"booked {gpus} for {whom} by {self.caller.name}{name}"
            await self.desk.post(Noted(kind="admin", subject=booking.id, text=text))
            return models.Made(id=booking.id)

        await self.reply(book)


class BookingHandler(APIHandler):
    """Opens what was booked for everybody again."""

    async def post(self, booking: str) -> None:
        async def cancel() -> BaseModel:
            bodies.read(bodies.Nothing, self.request.body)
            if not await self.desk.read(lambda state: booking in state.tables.bookings):
                raise NotThereError("There is no such booking, or it is over.")
            text = f"booking cancelled by {self.caller.name}"
            event = events.BookingCancelled(booking_id=booking)
            await self.desk.act(event, subject=booking, text=text)
            return models.Done()

        await self.reply(cancel)


class GroupsHandler(APIHandler):
    """What groups hold, and may hold."""

    async def get(self) -> None:
        async def read() -> BaseModel:
            rows = await self.desk.show(self.caller.viewer, booked.groups)
            items, total = self.part(rows)
            return self.operation.answer(items=items, total=total)

        await self.reply(read)


class PriorityHandler(APIHandler):
    """Has a request served before, or after, the others."""

    async def post(self, entry: str) -> None:
        async def give() -> BaseModel:
            priority = bodies.read(bodies.Priority, self.request.body).priority
            whose = await self.desk.read(lambda state: state.tables.entries.get(entry))
            if whose is None:
                raise NotThereError("There is no such request in the queue.")
            event = events.PriorityGiven(entry_id=entry, priority=priority)
            text = f"priority {priority} given by {self.caller.name}"
            await self.desk.act(event, subject=str(whose.key), text=text)
            return models.Done()

        await self.reply(give)


class UsageHandler(APIHandler):
    """Who had how much of the GPUs."""

    async def get(self) -> None:
        async def read() -> BaseModel:
            span = self.span()
            rows, total = self.part(await self.rows(span))
            items = [models.Used(**asdict(row)) for row in rows]
            return models.Usage(
                items=items, total=total, starts_at=span.starts_at, ends_at=span.ends_at
            )

        await self.reply(read)

    def span(self) -> Span:
        """What the query asks for. RequestError."""
        ends_at = float(self.number(TO)) or self.desk.now()
        starts_at = float(self.number(FROM)) or max(ends_at - 30 * DAY, 0.0)
        span = Span(
            starts_at=starts_at, ends_at=ends_at, by=self.choice(BY), each=self.choice(PERIOD)
        )
        span.check()
        return span

    async def rows(self, span: Span) -> list[Row]:
        """The lines of the report. LedgerError."""
        report = Report(span=span, viewer=self.caller.viewer, now=self.desk.now())
        since, after = span.starts_at - BEFORE, (0.0, "")
        while True:
            part = await self.desk.look_up(
                lambda store, after=after: store.granted(  # type: ignore[misc]
                    since, span.ends_at, after, PART
                )
            )
            for lease in part:
                report.add(lease)
            if len(part) < PART:
                return report.rows()
            after = (part[-1].granted_at, part[-1].id)


class UsageTableHandler(UsageHandler):
    """The same for a spreadsheet."""

    async def get(self) -> None:
        async def read() -> str:
            self.check_query()
            return as_csv(await self.rows(self.span()))

        text = await self.answer(read)
        if text is not None:
            self.set_header("Content-Type", "text/csv; charset=UTF-8")
            self.set_header("Content-Disposition", 'attachment; filename="gpu-usage.csv"')
            self.finish(text)


class AuditHandler(APIHandler):
    """What was done, the newest first."""

    async def get(self) -> None:
        async def read() -> BaseModel:
            limit, before = self.number(LIMIT), self.number(BEFORE_SEQ)
            rows = await self.desk.look_up(lambda store: store.notes(before or None, limit))
            items = [_note(row) for row in rows]
            return models.Audit(items=items, next=rows[-1].seq if len(rows) == limit else None)

        await self.reply(read)


def _note(row: JournalRow) -> models.Note:
    note = row.decision
    assert isinstance(note, Noted)
    return models.Note(
        seq=row.seq, time=row.time, kind=note.kind, subject=note.subject, text=note.text
    )


_SPAN = (FROM, TO, BY, PERIOD)
OPERATIONS: list[tuple[Operation, type[APIHandler]]] = [
    (
        Operation(
            method="get",
            path="bookings",
            summary="GPUs that are kept for some users in a window of time, the earliest first.",
            answer=models.Page[models.Booking],
            query=(LIMIT, OFFSET),
        ),
        BookingsHandler,
    ),
    (
        Operation(
            method="post",
            path="bookings",
            summary="Keep GPUs for users or groups in a window of time. Stops nothing that runs.",
            answer=models.Made,
            body=bodies.Book,
            acts=True,
            refuses=True,
        ),
        BookingsHandler,
    ),
    (
        Operation(
            method="post",
            path="bookings/{id}/cancel",
            summary="Keep them no longer.",
            answer=models.Done,
            acts=True,
        ),
        BookingHandler,
    ),
    (
        Operation(
            method="get",
            path="groups",
            summary="What groups hold, their limits, shares and budgets. A user sees the own ones.",
            answer=models.Page[models.Group],
            query=(LIMIT, OFFSET),
        ),
        GroupsHandler,
    ),
    (
        Operation(
            method="post",
            path="queue/{id}/priority",
            summary="Serve a request before, or after, the others.",
            answer=models.Done,
            body=bodies.Priority,
            acts=True,
        ),
        PriorityHandler,
    ),
    (
        Operation(
            method="get",
            path="usage",
            summary="GPU hours by user, group or all together, and by period: reserved, used, "
            "wasted. A user sees the own ones.",
            answer=models.Usage,
            query=(LIMIT, OFFSET, *_SPAN),
        ),
        UsageHandler,
    ),
    (
        Operation(
            method="get",
            path="usage.csv",
            summary="The same as a table for a spreadsheet, all of it.",
            answer=models.Used,
            query=_SPAN,
            csv=True,
        ),
        UsageTableHandler,
    ),
    (
        Operation(
            method="get",
            path="audit",
            summary="What admins did and what happened, the newest first.",
            answer=models.Audit,
            query=(LIMIT, BEFORE_SEQ),
            reads_all=True,
        ),
        AuditHandler,
    ),
]
