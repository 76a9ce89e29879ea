"""Who calls, as the Hub says it. Asks the Hub without blocking the event loop."""

from __future__ import annotations

import os
from typing import Any

from jupyterhub.services.auth import HubOAuthenticated
from tornado.web import HTTPError


class HubUser(HubOAuthenticated):
    """For handlers: the Hub's model of the user of a browser's session, or of a token."""

    async def identify(self) -> dict[str, Any] | None:
        """The Hub's model of the user, if the user may come here; None = not logged in.

        A session counts for a call that changes something only with the XSRF token.
        """
        need_hub()
        # fills a cache of the request, so that current_user does not block
        await self.hub_auth.get_user(self, sync=False)
        user: dict[str, Any] | None = self.current_user
        return user

    async def of_token(self, token: str) -> dict[str, Any] | None:
        """The Hub's model of a token's owner, with the token's scopes; None = no such token."""
        need_hub()
        found: dict[str, Any] | None = await self.hub_auth.user_for_token(token, sync=False)
        return found


def connected() -> bool:
    """Whether a Hub told us who we are."""
    return bool(os.environ.get("JUPYTERHUB_API_TOKEN") and os.environ.get("JUPYTERHUB_CLIENT_ID"))


def need_hub() -> None:
    """503 where no Hub can say who calls."""
    if not connected():
        raise HTTPError(503, reason="This service is not connected to a Hub")
