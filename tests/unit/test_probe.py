"""A server answers when it says a word of HTTP, and not before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from jupyterhub_gpuspawner.probe import answers

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]


@asynccontextmanager
async def listening(reply: bytes | None) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A local server that answers with ``reply``; None = silence. Its port and what it read."""
    asked: list[bytes] = []
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        if reply is None:
            await over.wait()
        else:
            writer.write(reply)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], asked
    finally:
        over.set()
        server.close()
        await asyncio.sleep(0.01)


async def test_any_status_is_an_answer() -> None:
    async with listening(b"HTTP/1.0 503 no\r\n\r\n") as (port, asked):
        assert await answers("127.0.0.1", port, "/user/alice/api")
    assert asked == [b"GET /user/alice/api HTTP/1.0\r\n"]


async def test_nobody_who_listens_is_no_answer() -> None:
    async with listening(b"x") as (port, _):
        pass
    assert not await answers("127.0.0.1", port, "/")


async def test_who_accepts_and_says_nothing_does_not_serve_yet() -> None:
    async with listening(None) as (port, _):
        assert not await answers("127.0.0.1", port, "/", 0.02)


async def test_who_hangs_up_without_a_word_is_docker_s_proxy_unless_it_speaks_tls() -> None:
    async with listening(b"") as (port, _):
        assert not await answers("127.0.0.1", port, "/")
        assert await answers("127.0.0.1", port, "/", tls=True)


async def test_an_address_that_is_no_address_is_no_answer() -> None:
    assert not await answers("", 1, "/")
