"""The server inside a fake container: answers on the container's address, as the stub does."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

_ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 19\r\n"
    b'Connection: close\r\n\r\n{"version": "stub"}'
)


class Stubs:
    """One listener for each address of a running container."""

    def __init__(self) -> None:
        self._servers: dict[tuple[str, str], asyncio.AbstractServer | None] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def up(self, info: dict[str, Any]) -> None:
        """Listen on each exposed port of each address."""
        ports = [int(port.partition("/")[0]) for port in info["Config"].get("ExposedPorts") or ()]
        for endpoint in info["NetworkSettings"]["Networks"].values():
            address = str(endpoint.get("IPAddress") or "")
            key = (info["Id"], address)
            if address and key not in self._servers:
                self._servers[key] = None
                for port in ports:
                    task = asyncio.get_running_loop().create_task(self._listen(key, port))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)

    async def _listen(self, key: tuple[str, str], port: int) -> None:
        with suppress(OSError):  # an address that is not this machine's: nobody answers there
            server = await asyncio.start_server(_serve, key[1], port, reuse_address=True)
            if key in self._servers:
                self._servers[key] = server
            else:
                server.close()

    def down(self, container: str) -> None:
        """Nobody listens any more."""
        for key in [key for key in self._servers if key[0] == container]:
            server = self._servers.pop(key)
            if server is not None:
                server.close()


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(_ANSWER)
        await writer.drain()
    writer.close()
