"""A Docker socket in front of the real one, on which a test lets calls fail or wait.

Each call goes through on a connection of its own (``Connection: close``), so that a fault hits one
call and nothing else. It runs in a thread; rules come from the test's thread.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

#: the most seconds that a held call waits, should a test forget it
LONGEST_HOLD = 60.0


@dataclass(kw_only=True, eq=False)
class Rule:
    """What becomes of the calls that fit."""

    #: of ``METHOD /path?query``, without the API's version
    fits: re.Pattern[str]
    #: ``refuse``: answer 500 | ``cut``: no connection | ``hold``: the call takes effect at the
    #: engine, its answer waits | ``gate``: the call waits before it reaches the engine
    act: str
    #: calls so far
    hits: int = 0
    #: set once the first call is held: at ``hold``, when it has taken effect
    reached: threading.Event = field(default_factory=threading.Event)
    #: ends the waiting
    released: threading.Event = field(default_factory=threading.Event)


class Wire:
    """The socket in front.

    Parameters
    ----------
    path:
        Where it listens.
    engine:
        The engine's own socket.
    """

    def __init__(self, path: Path, engine: str) -> None:
        self.url = f"unix://{path}"
        self._path, self._engine = path, engine
        self._rules: list[Rule] = []
        self._loop = asyncio.new_event_loop()
        self._calls: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, name="wire", daemon=True)
        self._up = threading.Event()
        self._thread.start()
        assert self._up.wait(10)

    @contextmanager
    def rule(self, fits: str, act: str) -> Iterator[Rule]:
        """Treat the calls that fit like this, inside the block."""
        rule = Rule(fits=re.compile(fits), act=act)
        self._rules.append(rule)
        try:
            yield rule
        finally:
            self._rules.remove(rule)
            rule.released.set()

    def close(self) -> None:
        """Stop to listen; calls in progress are cut."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(
            asyncio.start_unix_server(self._accept, str(self._path))
        )
        self._up.set()
        self._loop.run_forever()
        server.close()
        for call in self._calls:
            call.cancel()
        with suppress(asyncio.CancelledError):
            self._loop.run_until_complete(asyncio.gather(*self._calls, return_exceptions=True))
        self._loop.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        call = asyncio.current_task()
        assert call is not None
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        try:
            await self._call(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # one of the two sides went away
        finally:
            writer.close()

    async def _call(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        body = await reader.readexactly(int(length[1])) if length else b""
        method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ", 2)
        rule = self._rule_for(method, re.sub(r"^/v[\d.]+", "", path))
        act = rule.act if rule is not None else ""
        if rule is not None:
            rule.hits += 1
        if act == "cut":
            return
        if act == "refuse":
            words = json.dumps({"message": "the daemon is in trouble"}).encode()
            writer.write(
                b"HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\n"
                b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(words), words)
            )
            return await writer.drain()
        if rule is not None and act == "gate":
            await _wait(rule)
        head = re.sub(rb"(?i)\r\nconnection:[^\r]*", b"", head)
        head = head.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
        upstream, sink = await asyncio.open_unix_connection(self._engine)
        try:
            sink.write(head + body)
            await sink.drain()
            first = await upstream.read(65536)
            if rule is not None and act == "hold":
                await _wait(rule)
            await _pipe(first, upstream, reader, writer)
        finally:
            sink.close()

    def _rule_for(self, method: str, path: str) -> Rule | None:
        for rule in list(self._rules):
            if rule.fits.search(f"{method} {path}"):
                return rule
        return None


async def _wait(rule: Rule) -> None:
    rule.reached.set()
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, rule.released.wait, LONGEST_HOLD)


async def _pipe(
    data: bytes,
    upstream: asyncio.StreamReader,
    client: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    """Give the answer on until it ends, or the client goes away (as readers of events do)."""
    gone = asyncio.ensure_future(client.read(1))
    try:
        while data:
            writer.write(data)
            await writer.drain()
            more = asyncio.ensure_future(upstream.read(65536))
            await asyncio.wait([more, gone], return_when=asyncio.FIRST_COMPLETED)
            if not more.done():
                more.cancel()
                return
            data = more.result()
    finally:
        gone.cancel()
