"""What open pages are told as it happens: one snapshot for all of them.

A page listens to *topics*. What a topic says is made once for each change, for all who see the
same: those with the same language and rights, or one user's own pages. It is sent where it is
not what was sent last; who is slow to read gets the newest and misses what was in between. Of a
part that many see, only the lines that changed are sent to who was sent the one before.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import LedgerError
from ..i18n import Words
from . import waiting
from .page_data import View, Viewer
from .usage_watch import EVERY

if TYPE_CHECKING:
    from .desk import Desk

log = logging.getLogger("gpus.live")

#: seconds between two snapshots, at least: changes in between are told together
GAP = 0.7
#: seconds after which the state is looked at again although nothing was decided: estimates move
REFRESH = 10.0
#: seconds between two signs of life on a stream
BEAT = 15.0
#: streams of all pages, and of one user
MOST, MOST_OF_USER = 2000, 30


class Sink(Protocol):
    """Where a page's events go."""

    def busy(self) -> bool:
        """Whether what was sent before is still on its way."""
        ...

    def send(self, data: bytes) -> None:
        """Send without waiting."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Topic:
    """Something that pages show."""

    name: str
    #: (the state as the listener may see it, the listener's words) -> JSON data
    look: Callable[[View, Words], Any]
    #: makes of that what is sent, where it is something else, such as HTML; only when it changes
    render: Callable[[Any, Words], Any] | None = None
    #: differs from user to user; else from language to language, and for admins
    own: bool = False
    #: only for who may see everybody's, or a group's
    admin: bool = False


@dataclass(kw_only=True, eq=False, slots=True)
class Listener:
    """One open page."""

    viewer: Viewer
    words: Words
    topics: tuple[Topic, ...]
    sink: Sink
    #: name of a topic -> the event that was sent last, or would have been instead of its changes
    sent: dict[str, bytes] = field(default_factory=dict)
    #: (topic, as whom it is seen, what of it is shared with all who see the same)
    wants: tuple[tuple[Topic, Viewer, Any], ...] = field(init=False)

    def __post_init__(self) -> None:
        everybody = Viewer(name="", admin=self.viewer.admin)
        led = Viewer(name="", admin=self.viewer.admin, groups=self.viewer.groups)
        seen = [
            (topic, self.viewer if topic.own else led if topic.admin else everybody)
            for topic in self.topics
        ]
        self.wants = tuple((t, who, (t.name, who, self.words.language)) for t, who in seen)

    def hear(self, name: str, made: Made) -> bytes:
        """The event that has to be sent, empty where the page knows it."""
        last = self.sent.get(name)
        if last == made.event:
            return b""
        self.sent[name] = made.event
        return made.change if made.change and last == made.before else made.event


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """What a topic says to all who see the same."""

    #: as it was looked up
    data: Any
    #: all of it
    event: bytes
    #: what it is rendered to, by lines
    lines: list[str] = field(default_factory=list)
    #: the event before, and what makes it this one; empty = nothing shorter than all of it
    before: bytes = b""
    change: bytes = b""


class Live:
    """Everybody who looks. Works only while somebody does."""

    def __init__(self, desk: Desk, clock: Callable[[], float]) -> None:
        self._desk = desk
        self._clock = clock
        self._listeners: dict[Listener, None] = {}
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        #: what was made for the last snapshot, to be sent again where the data is the same
        self._made: dict[Any, Made] = {}
        #: snapshots that were made
        self.snapshots = 0

    def __len__(self) -> int:
        return len(self._listeners)

    def changed(self) -> None:
        """Something was decided, or the service is in another phase."""
        self._news.set()

    def full(self, viewer: Viewer) -> bool:
        """Whether one more page would be too many."""
        own = sum(one.viewer.name == viewer.name for one in self._listeners)
        return len(self._listeners) >= MOST or own >= MOST_OF_USER

    def join(self, listener: Listener) -> None:
        """A page is open: it is told all of its topics at once."""
        self._listeners[listener] = None
        self._news.set()
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run(), name="live")
        if self._watching is None or self._watching.done():
            self._watching = asyncio.get_running_loop().create_task(self._watch(), name="watch")

    def leave(self, listener: Listener) -> None:
        """It was closed. May be repeated."""
        self._listeners.pop(listener, None)

    async def close(self) -> None:
        """End the work."""
        await waiting.end([task for task in (self._task, self._watching) if task is not None])

    async def _watch(self) -> None:
        """Have what servers use sampled while their users look."""
        while self._listeners:
            users = {
                one.viewer.name
                for one in self._listeners
                if any(topic.name == "use" for topic in one.topics)
            }
            if await self._desk.watch.look(users):
                self._news.set()
            await asyncio.sleep(EVERY)

    async def _run(self) -> None:
        beat = 0.0
        while self._listeners:
            self._news.clear()
            await self.tell()
            if self._clock() >= beat:
                beat = self._clock() + BEAT
                self._send_all(_event("beat", {"now": self._clock()}))
            await asyncio.sleep(GAP)
            await waiting.happens(self._news, min(REFRESH, BEAT) - GAP)

    async def tell(self) -> None:
        """Make a snapshot and send what is new in it."""
        listeners = [one for one in self._listeners if not one.sink.busy()]
        self.snapshots += 1
        made: dict[Any, Made] = {}
        try:
            events = await self._desk.show(
                Viewer(name=""), lambda view: self._look(view, listeners, made)
            )
        except LedgerError:
            events = {}
        except Exception:
            # a bug in one page must not stop the others' heartbeat
            log.exception("live: a page could not be made")
            events = {}
            for one in listeners:
                one.sent.clear()  # some of them count as told
        self._made = made
        status = Made(data=None, event=_event("status", self._status()))
        for one in listeners:
            text = one.hear("status", status) + events.get(one, b"")
            if text:
                one.sink.send(text)

    def _look(
        self, view: View, listeners: list[Listener], made: dict[Any, Made]
    ) -> dict[Listener, bytes]:
        return {
            one: b"".join(
                [one.hear(want[0].name, self._make(*want, one, view, made)) for want in one.wants]
            )
            for one in listeners
        }

    def _make(
        self, topic: Topic, who: Viewer, key: Any, one: Listener, view: View, made: dict[Any, Made]
    ) -> Made:
        found = made.get(key)
        if found is None:
            data = topic.look(view.seen_by(who), one.words)
            found = self._made.get(key)
            if found is None or found.data != data:
                found = _made(topic, data, one.words, found)
            made[key] = found
        return found

    def _status(self) -> dict[str, str]:
        status = self._desk.status()
        reason = "" if status.reason is None else status.reason.value
        return {"phase": status.phase.value, "reason": reason}

    def _send_all(self, data: bytes) -> None:
        for one in self._listeners:
            if not one.sink.busy():
                one.sink.send(data)


def _made(topic: Topic, data: Any, words: Words, before: Made | None) -> Made:
    """``before``: what the topic said last."""
    if topic.render is None:
        return Made(data=data, event=_event(topic.name, data))
    html = topic.render(data, words)
    event, lines = _event(topic.name, html), html.split("\n")
    if before is None or topic.own:
        return Made(data=data, event=event, lines=lines)
    change = _event(topic.name, {"changes": _changes(before.lines, lines)})
    shorter = len(change) < len(event)
    return Made(
        data=data,
        event=event,
        lines=lines,
        before=before.event if shorter else b"",
        change=change if shorter else b"",
    )


def _changes(before: list[str], after: list[str]) -> list[tuple[int, int, list[str]]]:
    """(first line, how many go, which come instead) to make one of the other, the last first."""
    steps = SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    return [(i, j - i, after[k:n]) for tag, i, j, k, n in reversed(steps) if tag != "equal"]


def _event(name: str, value: Any) -> bytes:
    data = json.dumps(value, separators=(",", ":"), ensure_ascii=True)
    return f"event: {name}\ndata: {data}\n\n".encode()
