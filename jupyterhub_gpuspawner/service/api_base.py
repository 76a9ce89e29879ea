"""What all handlers of the API for people's programs share: who calls, the query, the answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel

from ..errors import RequestError
from .access import SERVICE, Caller, caller_of
from .hub_user import HubUser
from .openapi import LIMIT, OFFSET, Choice, Number, Operation
from .web import JSONHandler, bearer, has_token
from .words import safe

if TYPE_CHECKING:
    from .desk import Desk

R = TypeVar("R")


class APIHandler(HubUser, JSONHandler):
    """Does one operation for a caller that it knows, or ends with 403."""

    caller: Caller
    operation: Operation

    def initialize(  # type: ignore[override]
        self, desk: Desk, operations: dict[str, Operation]
    ) -> None:
        super().initialize(desk)
        self._operations = operations

    async def prepare(self) -> None:
        operation = self._operations.get((self.request.method or "").lower())
        if operation is None:
            return  # 405, for everybody
        self.operation = operation
        caller = await self._find_caller()
        if caller is None:
            self.fail(403, "forbidden", "Log in at the Hub, or send a token that opens this.")
        elif not _may(caller, self.operation):
            self.fail(403, "forbidden", f"This needs the scope {self.operation.scope}.")
        else:
            self.caller = caller

    async def _find_caller(self) -> Caller | None:
        if has_token(self, self.desk.token):
            return SERVICE
        token = bearer(self)
        user = await (self.of_token(token) if token else self.identify())
        if user is None:
            return None
        return caller_of(user, self.hub_auth.access_scopes, token=bool(token))

    async def reply(self, work: Callable[[], Awaitable[BaseModel]]) -> None:
        """End with what ``work`` gives."""

        async def checked() -> BaseModel:
            self.check_query()
            return await work()

        answer = await self.answer(checked)
        if answer is not None:
            self.finish(answer.model_dump(mode="json"))

    def check_query(self) -> None:
        """RequestError where the query has a parameter that means nothing."""
        names = [one.name for one in self.operation.query]
        for name in self.request.query_arguments:
            if name not in names:
                allowed = f"allowed: {', '.join(names)}" if names else "there are none here"
                raise RequestError(f"unknown parameter {safe(name)[:50]!r}; {allowed}")

    def number(self, one: Number) -> int:
        """A number of the query. RequestError."""
        text = self.get_query_argument(one.name, str(one.default))
        # int() takes more than digits
        digits = text.isascii() and text.isdigit() and len(text) < 20
        if not digits or not one.least <= int(text) <= one.most:
            raise RequestError(
                f"{one.name} is {safe(text)[:50]!r}; want a number from {one.least} to {one.most}"
            )
        return int(text)

    def choice(self, one: Choice) -> str:
        """A word of the query. RequestError."""
        text = self.get_query_argument(one.name, one.default)
        if text not in one.allowed:
            allowed = ", ".join(one.allowed)
            raise RequestError(f"{one.name} is {safe(text)[:50]!r}; allowed: {allowed}")
        return text

    def part(self, rows: Sequence[R]) -> tuple[Sequence[R], int]:
        """The part of a list that the query asks for, and the length of the whole. RequestError."""
        limit, offset = self.number(LIMIT), self.number(OFFSET)
        return rows[offset : offset + limit], len(rows)


def _may(caller: Caller, operation: Operation) -> bool:
    if operation.acts:
        return caller.acts
    return caller.viewer.admin or not operation.reads_all
