"""Calls to Docker beside the event loop, one at a time for each server.

Docker's client blocks, and is not promised to be thread-safe: each thread has its own. What is
cancelled or timed out on the loop goes on in its thread, so a key (a server) stays taken until
that thread is done: a removal never overtakes the start that it shall undo.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, TypeVar

import docker

from ..errors import EngineError, EngineUnknown
from .connect import connect
from .faults import translate

T = TypeVar("T")

_TRY_AGAIN = "Docker does not answer at the moment. Please try again in a minute."


class _Call:
    """A function that waits for its turn, or runs."""

    __slots__ = ("fn", "future", "key")

    def __init__(self, key: str, fn: Callable[[docker.DockerClient], Any]) -> None:
        self.key = key
        self.fn = fn
        self.future: Future[Any] = Future()


class EnginePool:
    """Threads with a Docker client each.

    Guarantees:

    1. Calls with the same key never overlap and run in the order they were asked for.
    2. A key is free only when its thread is done, also after a cancel or a time-out.
    3. A call that was cancelled before it began never runs.
    4. No call blocks the event loop.

    Parameters
    ----------
    base_url:
        The engine; None = ``DOCKER_HOST`` or the local socket.
    size:
        Threads, made when needed.
    timeout:
        Seconds Docker may be silent during a call.
    options:
        See :func:`~.connect.client_options`.
    """

    def __init__(
        self,
        base_url: str | None = None,
        size: int = 8,
        timeout: float = 60.0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        if size < 1:
            raise ValueError(f"a pool needs a thread at least, not {size}")
        self.base_url = base_url
        self.size = size
        self.timeout = timeout
        self.options = dict(options or {})
        self._lock = threading.Lock()
        #: calls that wait behind the one that has the key; a key is in here while it is taken
        self._lanes: dict[str, deque[_Call]] = {}
        #: calls whose turn it is
        self._ready: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        #: everything that is not done
        self._open: set[_Call] = set()
        self._idle: list[Future[None]] = []
        self._threads: list[threading.Thread] = []
        self._closed = False

    async def run(
        self, key: str, fn: Callable[[docker.DockerClient], T], timeout: float | None = None
    ) -> T:
        """Call ``fn(client)`` in a thread when it is the turn of ``key``; return what it returns.

        Parameters
        ----------
        timeout:
            Seconds to wait, the time for its turn included; None = twice the pool's.

        Raises
        ------
        EngineUnknown
            No answer in time, or one that proves nothing. A call that was begun goes on.
        docker.errors.NotFound
            Docker's 404, with its words.
        EngineError
            See :func:`~.faults.translate`; or the pool is closed.
        """
        limit = 2 * self.timeout if timeout is None else timeout
        call = self.submit(key, fn)
        waiting: asyncio.Future[T] = asyncio.wrap_future(call)
        try:
            # Not wait_for: before Python 3.12 it loses a cancel that comes with the result.
            await asyncio.wait([waiting], timeout=limit)
        except asyncio.CancelledError:
            call.cancel()
            if not waiting.cancel() and not waiting.cancelled():
                waiting.exception()  # else asyncio complains that nobody looked at it
            raise
        if not waiting.done():
            begun = not call.cancel()
            waiting.cancel()
            state = "was begun and goes on" if begun else "was not begun"
            raise EngineUnknown(f"{key}: no answer after {limit:g} s; the call {state}", _TRY_AGAIN)
        if waiting.cancelled():
            raise EngineError(f"{key}: the pool was closed before the call began", _TRY_AGAIN)
        return waiting.result()

    def submit(self, key: str, fn: Callable[[docker.DockerClient], T]) -> Future[T]:
        """Line up a call and return its future; ``cancel()`` drops it unless it has begun.

        For threads; coroutines use :meth:`run`. Errors are those of :meth:`run`.
        """
        call = _Call(key, fn)
        with self._lock:
            if self._closed:
                raise EngineError(f"{key}: the pool is closed", _TRY_AGAIN)
            self._open.add(call)
            lane = self._lanes.get(key)
            if lane is not None:
                lane.append(call)
            else:
                self._lanes[key] = deque()
                self._dispatch(call)
        return call.future

    async def drain(self, timeout: float | None = None) -> bool:
        """Wait until no call runs or waits; False if that took longer than ``timeout`` seconds."""
        done: Future[None] = Future()
        with self._lock:
            if not self._open:
                return True
            self._idle.append(done)
        waiting = asyncio.wrap_future(done)
        try:
            await asyncio.wait([waiting], timeout=timeout)
            return waiting.done()
        finally:
            done.cancel()
            waiting.cancel()

    def close(self) -> None:
        """Take no more calls and drop those that have not begun. Does not wait.

        A call that runs goes on to its end (:meth:`drain` waits for it); its thread ends then.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            dropped = list(self._open)
            for lane in self._lanes.values():
                self._open.difference_update(lane)
                lane.clear()
            for _ in self._threads:
                self._ready.put(None)  # behind the calls whose turn it is
        for call in dropped:
            call.future.cancel()

    def _dispatch(self, call: _Call) -> None:
        """Give a call to the threads. The lock is held."""
        self._ready.put(call)
        if len(self._lanes) > len(self._threads) < self.size:
            # Daemon: a call that hangs must not keep the process from ending.
            number = len(self._threads) + 1
            thread = threading.Thread(target=self._work, name=f"engine-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _work(self) -> None:
        """Do calls until the pool is closed. One per thread, with the thread's client."""
        client: docker.DockerClient | None = None
        while (call := self._ready.get()) is not None:
            client = self._do(call, client)
            del call  # else the thread keeps the result alive until its next call
        if client is not None:
            client.close()

    def _do(self, call: _Call, client: docker.DockerClient | None) -> docker.DockerClient | None:
        """Run one call; return the client for the next one."""
        result: Any = None
        failure: BaseException | None = None
        begun = call.future.set_running_or_notify_cancel()
        if begun:
            try:
                if client is None:
                    client = connect(self.base_url, self.timeout, self.options)
                result = call.fn(client)
            except BaseException as error:  # noqa: BLE001 - the waiter gets it
                failure = translate(error)
                if failure is not error:
                    failure.__cause__ = error
        self._free(call.key)
        if failure is not None:
            call.future.set_exception(failure)
        elif begun:
            call.future.set_result(result)
        self._forget(call)
        if isinstance(failure, EngineUnknown) and client is not None:
            # The engine may come back as another version: ask again.
            client.close()
            return None
        return client

    def _free(self, key: str) -> None:
        """Let the next call of a key have its turn."""
        with self._lock:
            lane = self._lanes[key]
            if lane:
                self._dispatch(lane.popleft())
            else:
                del self._lanes[key]

    def _forget(self, call: _Call) -> None:
        """Count a call as done, and tell those who wait for the last one."""
        with self._lock:
            self._open.discard(call)
            idle, self._idle = (self._idle, []) if not self._open else ([], self._idle)
        for done in idle:
            if done.set_running_or_notify_cancel():
                done.set_result(None)
