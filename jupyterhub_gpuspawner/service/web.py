"""What all JSON handlers share: the token, errors as JSON, answers within a time limit."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from tornado.web import HTTPError, RequestHandler

from ..errors import LedgerError, NotThereError, RefusedError, RequestError
from ..scheduler.models import Reason
from . import service_token
from .headers import protect

if TYPE_CHECKING:
    from .desk import Desk

log = logging.getLogger("gpus.web")
T = TypeVar("T")

#: seconds after which an answer is "I don't know": less than the client waits
ANSWER_LIMIT = 15.0


class JSONHandler(RequestHandler):
    """Answers in JSON. Errors are ``{"reason": …, "message": …}``."""

    def initialize(self, desk: Desk) -> None:
        self.desk = desk

    def set_default_headers(self) -> None:
        self.set_header("Content-Type", "application/json")
        protect(self)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs.get("exc_info", (None, None, None))[1]
        if isinstance(error, HTTPError) and error.reason:
            message = error.reason
        else:
            message = self._reason if status_code < 500 else "The scheduler has an error; see log."
        self.finish({"reason": f"http_{status_code}", "message": message})

    def fail(self, status: int, reason: str, message: str) -> None:
        """End with an error that the client can read."""
        self.set_status(status)
        self.finish({"reason": reason, "message": message})

    async def answer(self, work: Callable[[], Awaitable[T]]) -> T | None:
        """``await work()``; None after the errors that have an answer of their own."""
        try:
            return await asyncio.wait_for(work(), ANSWER_LIMIT)
        except NotThereError as error:
            self.fail(404, "not_found", error.user_message)
        except RequestError as error:
            self.fail(400, "bad_request", error.user_message)
        except RefusedError as error:
            log.info("%s", error)
            self.fail(409, error.reason, error.user_message)
        except LedgerError as error:
            self.fail(503, Reason.LEDGER_UNAVAILABLE.value, error.user_message)
        except asyncio.TimeoutError:
            self.fail(503, Reason.LEDGER_UNAVAILABLE.value, "The scheduler did not answer in time.")
        return None


class InternalHandler(JSONHandler):
    """Only for who has the service token."""

    def prepare(self) -> None:
        if not has_token(self, self.desk.token):
            self.fail(403, "forbidden", "The service token is missing or wrong.")


def bearer(handler: RequestHandler) -> str:
    """The token in the ``Authorization`` header; empty = none."""
    kind, _, token = handler.request.headers.get("Authorization", "").partition(" ")
    return token.strip() if kind.lower() in ("token", "bearer") else ""


def has_token(handler: RequestHandler, token: str) -> bool:
    """Whether the request carries the service token."""
    return service_token.same(bearer(handler), token)
