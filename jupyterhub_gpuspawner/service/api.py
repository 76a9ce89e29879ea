"""The API for people's programs: devices, leases, the queue; and what admins do to them.

Who calls is known by a session at the Hub, by a token of the Hub, or by the service token.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from ..errors import NotThereError
from ..scheduler import events, lost
from ..scheduler.decisions import Noted, to_json
from ..scheduler.models import Admin, Reason, ServerKey
from ..scheduler.state import SchedulerState
from . import api_models as models
from . import api_reports, bodies
from .api_base import APIHandler
from .explain import explain
from .openapi import AFTER, ID, LIMIT, OFFSET, Operation, document
from .page_data import PARTS
from .web import JSONHandler

if TYPE_CHECKING:
    from .desk import Desk


class ListHandler(APIHandler):
    """A list, of which everybody sees the own part, and of the others what all may see."""

    async def get(self) -> None:
        async def read() -> BaseModel:
            # only this list: the others may be long
            rows = await self.desk.show(self.caller.viewer, PARTS[self.operation.path])
            items, total = self.part(rows)
            return self.operation.answer(items=items, total=total)

        await self.reply(read)


class JournalHandler(APIHandler):
    """What was decided."""

    async def get(self) -> None:
        async def read() -> models.Journal:
            limit = self.number(LIMIT)
            rows = await self.desk.journal(self.number(AFTER), limit)
            items = [
                models.Record(
                    seq=row.seq, time=row.time, epoch=row.epoch, decision=to_json(row.decision)
                )
                for row in rows
            ]
            return models.Journal(items=items, next=rows[-1].seq if len(rows) == limit else None)

        await self.reply(read)


class ExplainHandler(APIHandler):
    """Why it waits, or why these GPUs."""

    async def get(self, name: str) -> None:
        async def read() -> BaseModel:
            return await explain(self.desk, self.caller.viewer, name)

        await self.reply(read)


class AdminHandler(APIHandler):
    """Keeps a device or a machine free, or opens it again."""

    async def post(self, name: str) -> None:
        # "devices" or "nodes"
        kind = self.operation.path.partition("/")[0]

        async def act() -> BaseModel:
            body = bodies.read(bodies.SetAdmin, self.request.body)
            if not await self.desk.read(lambda state: name in getattr(state.tables, kind)):
                raise NotThereError(f"There is no such {kind.removesuffix('s')}.")
            await self._set(kind, name, body)
            return models.Done()

        await self.reply(act)

    async def _set(self, kind: str, name: str, body: bodies.SetAdmin) -> None:
        who = self.caller.name
        wish = f"{body.admin.value} by {who}" + (f": {body.note}" if body.note else "")
        note = "" if body.admin is Admin.OPEN else wish
        what = {"devices": "device", "nodes": "node"}[kind]
        asked = events.AdminAsked(admin=body.admin, note=note, **{what: name})
        await self.desk.act(asked, subject=name, text=f"set {wish}")


class LostHandler(APIHandler):
    """Declares a machine gone for good."""

    async def post(self, name: str) -> None:
        async def act() -> BaseModel:
            body = bodies.read(bodies.Lost, self.request.body)
            event = events.NodeLost(node=name, empty=body.empty)
            # before the wish is in the journal
            await self.desk.read(lambda state: _check_lost(state, event))
            what = "emptied" if body.empty else "gone for good"
            said = f": {body.note}" if body.note else ""
            text = f"declared {what} by {self.caller.name}{said}"
            await self.desk.act(event, subject=name, text=text)
            return models.Done()

        await self.reply(act)


def _check_lost(state: SchedulerState, event: events.NodeLost) -> None:
    if event.node not in state.tables.nodes:
        raise NotThereError("There is no such node.")
    lost.check(state.tables.nodes[event.node], event)


class CancelHandler(APIHandler):
    """Takes a request out of the queue."""

    async def post(self, entry: str) -> None:
        async def cancel() -> BaseModel:
            bodies.read(bodies.Nothing, self.request.body)
            found = await self.desk.read(lambda state: self._may_cancel(state, entry))
            if found is None:
                # the same where it is another's: nobody learns what exists
                raise NotThereError("You have no such request in the queue.")
            if not self.caller.viewer.owns(found):
                text = f"request cancelled by {self.caller.name}"
                await self.desk.post(Noted(kind="admin", subject=str(found), text=text))
            await self.desk.cancel(entry)
            return models.Done()

        await self.reply(cancel)

    def _may_cancel(self, state: SchedulerState, entry: str) -> ServerKey | None:
        """Whose it is; None = not to be cancelled by the caller."""
        found = state.tables.entries.get(entry)
        if found is None or state.tables.queued_of.get(found.key) != entry:
            return None
        may = self.caller.acts or self.caller.viewer.owns(found.key)
        return found.key if may else None


class KeepHandler(APIHandler):
    """Leaves a server alone for a while although nobody uses it."""

    async def post(self, lease: str) -> None:
        async def keep() -> BaseModel:
            bodies.read(bodies.Nothing, self.request.body)
            if not await self.desk.read(lambda state: self._may_keep(state, lease)):
                raise NotThereError("You have no such server.")
            await self.desk.post(events.KeepAsked(lease_id=lease))
            return models.Done()

        await self.reply(keep)

    def _may_keep(self, state: SchedulerState, lease: str) -> bool:
        found = state.tables.leases.get(lease)
        return found is not None and (self.caller.acts or self.caller.viewer.owns(found.key))


class EvictHandler(APIHandler):
    """Stops somebody's server."""

    async def post(self, lease: str) -> None:
        async def evict() -> BaseModel:
            message = bodies.read(bodies.Evict, self.request.body).message
            key = await self.desk.read(lambda state: _server_of(state, lease))
            said = f": {message}" if message else ""
            wanted = events.StopWanted(lease_id=lease, reason=Reason.EVICTED, note=message)
            text = f"evicted by {self.caller.name}{said}"
            await self.desk.act(wanted, subject=str(key), text=text)
            return models.Done()

        await self.reply(evict)


def _server_of(state: SchedulerState, lease: str) -> ServerKey:
    found = state.tables.leases.get(lease)
    if found is None:
        raise NotThereError("There is no such lease.")
    return found.key


class DocumentHandler(JSONHandler):
    """``GET api/openapi.json``: this API, for programs. No token."""

    def initialize(self, desk: Desk, prefix: str) -> None:  # type: ignore[override]
        super().initialize(desk)
        self._prefix = prefix

    def get(self) -> None:
        self.finish(document((operation for operation, _ in OPERATIONS), self._prefix))


def _list(path: str, row: type[BaseModel], what: str) -> tuple[Operation, type[APIHandler]]:
    page = models.Page[row]  # type: ignore[valid-type]
    summary = f"{what} Of others you see what everybody may."
    query = (LIMIT, OFFSET)
    return Operation(
        method="get", path=path, summary=summary, answer=page, query=query
    ), ListHandler


def _keep_free(path: str, what: str) -> tuple[Operation, type[APIHandler]]:
    return Operation(
        method="post",
        path=path,
        summary=f"Keep a {what} free for later, or open it again. Stops nothing that runs.",
        answer=models.Done,
        body=bodies.SetAdmin,
        acts=True,
    ), AdminHandler


OPERATIONS: list[tuple[Operation, type[APIHandler]]] = [
    _list("devices", models.Device, "All GPUs, and who holds them."),
    _list("nodes", models.Node, "All machines."),
    _list("leases", models.Lease, "What servers hold."),
    _list("queue", models.Place, "Who waits, the next one first."),
    (
        Operation(
            method="post",
            path="queue/{id}/cancel",
            summary="Cancel a request that waits: your own, or as an admin anybody's.",
            answer=models.Done,
        ),
        CancelHandler,
    ),
    (
        Operation(
            method="get",
            path="explain/{id}",
            summary="Why a request waits, or why a server got its GPUs: your own, or (admins) any, "
            "also an old one.",
            answer=models.Explanation,
        ),
        ExplainHandler,
    ),
    (
        Operation(
            method="get",
            path="journal",
            summary="Every stored decision, oldest first: who got what, who did what, when.",
            answer=models.Journal,
            query=(LIMIT, AFTER),
            reads_all=True,
        ),
        JournalHandler,
    ),
    (
        Operation(
            method="post",
            path="leases/{id}/keep",
            summary="Keep a server that nobody uses for a while: your own, or (admins) anybody's.",
            answer=models.Done,
            refuses=True,
        ),
        KeepHandler,
    ),
    (
        Operation(
            method="post",
            path="leases/{id}/evict",
            summary="Stop a server; its user reads the message. The GPUs are free when it is gone.",
            answer=models.Done,
            body=bodies.Evict,
            acts=True,
        ),
        EvictHandler,
    ),
    _keep_free("devices/{id}/admin", "device"),
    _keep_free("nodes/{id}/admin", "machine"),
    (
        Operation(
            method="post",
            path="nodes/{id}/lost",
            summary="Declare a machine that does not answer gone for good: its servers are over "
            "for their users. Its GPUs stay held until nothing of it is proven to run.",
            answer=models.Done,
            body=bodies.Lost,
            acts=True,
            refuses=True,
        ),
        LostHandler,
    ),
    *api_reports.OPERATIONS,
]


def routes(prefix: str, desk: Desk) -> list[Any]:
    """The routes under ``prefix``."""
    api = f"{prefix}api/"
    by_path: dict[str, dict[str, Operation]] = {}
    handlers: dict[str, type[APIHandler]] = {}
    for one, handler in OPERATIONS:
        by_path.setdefault(one.path, {})[one.method] = one
        handlers[one.path] = handler
    found: list[Any] = [
        (
            api + re.sub(r"\\\{\w+\\\}", lambda _: f"({ID})", re.escape(path)),
            handlers[path],
            {"desk": desk, "operations": operations},
        )
        for path, operations in by_path.items()
    ]
    return [*found, (f"{api}openapi\\.json", DocumentHandler, {"desk": desk, "prefix": prefix})]
