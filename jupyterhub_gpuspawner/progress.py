"""What the pending page shows of one start, line by line, for each who looks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

Line = dict[str, Any]


class Progress:
    """The lines of a spawner's current start.

    Guarantees: who listens gets every line from the beginning, in order, once; and starts over
    when the start does.
    """

    def __init__(self) -> None:
        self._lines: list[Line] = []
        self._news = asyncio.Event()

    def restart(self) -> None:
        """Forget the lines of an earlier start."""
        # a new list: a listener sees by it that what it has read is over
        self._lines = []
        self._wake()

    def say(self, percent: int, message: str) -> None:
        """Add a line. Plain text."""
        self._lines.append({"progress": percent, "message": message})
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def listen(self, pending: Callable[[], bool]) -> AsyncGenerator[Line, None]:
        """Yield the lines as they come, until nothing is ``pending()``."""
        lines, seen = self._lines, 0
        while True:
            news = self._news
            if lines is not self._lines:
                lines, seen = self._lines, 0
            while seen < len(lines):
                # a copy: the Hub takes keys out of it
                yield dict(lines[seen])
                seen += 1
            if lines is not self._lines:
                continue
            if not pending():
                return
            await news.wait()
