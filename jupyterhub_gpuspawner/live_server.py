"""The Hub's wait for a server's answer, which ends when the server's container does.

The Hub looks at the server itself after a start, and at each running one after its own restart,
for ``http_timeout`` seconds; a server that does not answer by then is stopped. That is wrong twice:
one whose container ended will never answer, and one that ran before the Hub did may just be too
busy, with a training that must not be stopped. And while the Hub waits nobody can open or stop it:
there the engine's word that it runs is enough.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import jupyterhub
from jupyterhub.objects import Server
from traitlets import Any as AnyTrait
from traitlets import Bool


class ContainerEnded(asyncio.TimeoutError):
    """The server will not answer any more. To the Hub a time-out, which is what it expects.

    ``jupyterhub_message`` is what the user reads.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.jupyterhub_message = message


@dataclass(frozen=True, kw_only=True, slots=True)
class Taken:
    """Stands for the answer of a server that was not asked."""

    #: the Hub compares versions, and warns where it sees none
    headers: dict[str, str] = field(
        default_factory=lambda: {"X-JupyterHub-Version": jupyterhub.__version__}
    )


class LiveServer(Server):
    """A ``Server`` whose wait knows of its container."""

    #: what becomes of the container: its result is the user's words for the end
    ended = AnyTrait()
    #: whether it ran before the Hub did: it is taken over as it is, and not asked
    runs_already = Bool()

    async def wait_up(self, timeout: float = 10, **options: Any) -> Any:
        """As the Hub's, in ``timeout`` seconds; ContainerEnded as soon as there is no container."""
        stored = self.orm_server
        if stored is not None:
            # the Hub may have set the address on another object for the same row
            self.proto, self.ip, self.port = stored.proto, stored.ip, stored.port
        if self.runs_already:
            return Taken()
        up = asyncio.ensure_future(super().wait_up(timeout=timeout, **options))
        try:
            await asyncio.wait([up, self.ended], return_when=asyncio.FIRST_COMPLETED)
            if not up.done():
                raise ContainerEnded(self.ended.result())
            return up.result()
        finally:
            up.cancel()
