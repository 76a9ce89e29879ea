"""Whether a server answers yet."""

from __future__ import annotations

import asyncio
from contextlib import suppress

#: seconds for one probe; a server that starts refuses or answers at once
PROBE_TIMEOUT = 1.0


async def answers(
    host: str, port: int, path: str, timeout: float = PROBE_TIMEOUT, *, tls: bool = False
) -> bool:
    """Whether something accepts a connection at ``host:port`` and says a word of HTTP.

    Any status counts, as for the Hub's own check, which follows; ``path`` should be cheap to
    answer, such as ``/user/alice/api``. Plain TCP would not do: a server listens some time
    before it serves, and Docker's proxy of a published port listens before the server does. A
    TLS server (``tls``) answers a plain request by closing or with an alert; both count.
    """
    writer = None
    try:
        reader, writer = await asyncio.wait_for(asyncio.open_connection(host, port), timeout)
        request = f"GET {path} HTTP/1.0\r\nHost: probe\r\nConnection: close\r\n\r\n"
        writer.write(request.encode("ascii", "replace"))
        await writer.drain()
        word = await asyncio.wait_for(reader.read(1), timeout)
    except (OSError, asyncio.TimeoutError):
        return False
    finally:
        if writer is not None:
            writer.close()
            with suppress(OSError, asyncio.TimeoutError):
                await asyncio.wait_for(writer.wait_closed(), timeout)
    return tls or bool(word)
