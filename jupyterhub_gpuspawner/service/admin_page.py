"""The admin page, ``/services/gpus/admin``, for who may see everybody's servers, or a group's."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from tornado.web import HTTPError

from ..errors import LedgerError
from .admin_data import TOPICS, admin_data
from .live import Topic
from .page_handlers import READ_LIMIT, HubPage, script_data

#: what the page's stream tells
STREAM = tuple(Topic(name=name, look=look, admin=True) for name, look in TOPICS.items())
#: what the Hub's own admin page is told, in which its rows get their GPUs
SERVERS = tuple(topic for topic in STREAM if topic.name == "servers")


class AdminPage(HubPage):
    """The machines, the line, servers, bookings, groups, usage and the audit log.

    A group's leader sees the parts of it that are the group's. Its parts are drawn by its script,
    from the data that the stream brings too.
    """

    async def get(self) -> None:
        user = await self.identify()
        if user is None:
            self.redirect(self.get_login_url())
            return
        caller = self.caller_of(user)
        if not caller.viewer.leads:
            raise HTTPError(403)
        data: dict[str, Any] = {}
        # where this fails the page says the phase and the reason
        with suppress(LedgerError, asyncio.TimeoutError):
            work = self.desk.show(caller.viewer, lambda view: admin_data(view, self.words))
            data = await asyncio.wait_for(work, READ_LIMIT)
        self.show(
            "admin.html",
            caller.viewer,
            data=script_data({**data, "acts": caller.acts}),
            acts=caller.acts,
            page="admin",
        )
