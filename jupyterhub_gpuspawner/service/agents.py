"""What the agents of the nodes have told: each one's last report, while it is fresh."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from ..discovery.agent_report import FRESH, Message, decode, genuine
from ..discovery.toolkit import Verdict
from ..errors import RefusedError, RequestError

log = logging.getLogger("gpus.agents")


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """The last message of a node, and when it came."""

    message: Message
    #: POSIX seconds by our clock
    heard_at: float

    @property
    def taken_at(self) -> float:
        """When the look began, by our clock."""
        return self.heard_at - self.message.age


class Agents:
    """The last report of each node. Silence is no answer: see :meth:`latest`.

    Parameters
    ----------
    key:
        The agents' key; empty = there are no agents.
    silence:
        Seconds after which a node without a report is silent.
    clock:
        POSIX seconds.
    """

    def __init__(self, key: str, silence: float, clock: Callable[[], float]) -> None:
        self._key, self.silence, self._clock = key, silence, clock
        self._told: dict[str, Told] = {}
        #: node, by name -> what follows from its toolkit; None = nobody has looked at it
        self.verdicts: dict[str, Verdict | None] = {}
        #: called when a node says something new
        self.on_news: Callable[[], None] = lambda: None

    @property
    def wanted(self) -> bool:
        """Whether nodes with GPUs have to have one."""
        return bool(self._key)

    def hear(self, body: bytes, signature: str) -> None:
        """Take in a message.

        Raises
        ------
        RefusedError
            It is not signed with the agents' key, not new, or was sent long ago.
        RequestError
            It is signed and broken.
        """
        if not self._key or not genuine(body, signature, self._key):
            raise RefusedError(
                "a report that is not signed with the agents' key",
                "The report is not signed with the agents' key.",
                reason="forbidden",
            )
        message, now = decode(body), self._clock()
        if abs(now - message.sent_at) > FRESH:
            raise RequestError(
                f"node {message.node}: its clock is {message.sent_at - now:+.0f} s off, or the "
                f"report is an old one; allowed are {FRESH:g} s"
            )
        before = self._told.get(message.node)
        if before is not None and message.seq <= before.message.seq:
            raise RequestError(
                f"node {message.node}: report {message.seq} came after {before.message.seq}"
            )
        self._told[message.node] = Told(message=message, heard_at=now)
        if before is None or self._is_silent(before, now) or _differs(before.message, message):
            self.on_news()

    def latest(self, node_id: str) -> Told | None:
        """The last message of a node; None = it is silent."""
        told = self._told.get(node_id)
        return None if told is None or self._is_silent(told, self._clock()) else told

    def _is_silent(self, told: Told, now: float) -> bool:
        return now - told.heard_at > self.silence


def _differs(before: Message, message: Message) -> bool:
    """Whether the scheduler should look at once, not at its next turn."""
    if (before.error, before.toolkit) != (message.error, message.toolkit):
        return True
    if before.report is None or message.report is None:
        return False
    usages = [
        {name: (usage.empty(), usage.processes) for name, usage in report.usage.items()}
        for report in (before.report, message.report)
    ]
    same = before.report.devices == message.report.devices and usages[0] == usages[1]
    return not same or before.report.node.boot_id != message.report.node.boot_id
