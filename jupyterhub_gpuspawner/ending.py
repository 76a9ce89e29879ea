"""The end of a server's container, asked for or by itself: done once, told once.

Polls, the engine's events and a user's stop may all notice the same end at the same moment. The
first one does the work in a task of its own; the others wait for it.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import docker.errors

from .client import End
from .engine.containers import ExitReport
from .engine.observe import Observation
from .errors import EngineError, ServerDied
from .notice import LastEnd, describe
from .scheduler.models import Reason

#: the most characters of a server's last words that the Hub's database keeps
LONGEST_TAIL = 2000


class Ending:
    """The ends of one spawner's containers, one after the other.

    Parameters
    ----------
    spawner:
        A ``GPUDockerSpawner``.
    """

    def __init__(self, spawner: Any) -> None:
        self._spawner = spawner
        self._task: asyncio.Task[Any] | None = None
        self._asked_for = False

    @property
    def stopping(self) -> bool:
        """Whether a stop that was asked for is in progress."""
        return self._asked_for and self._running

    @property
    def _running(self) -> bool:
        return self._task is not None and not self._task.done()

    async def stop(self, grace: int) -> None:
        """Store the intent, stop, remove, report. Also works while the scheduler is down.

        Raises what Docker answers; it may be repeated then.
        """
        if self._task is not None and not self._asked_for:
            # it is ending by itself: let that be read and removed first
            await asyncio.wait([self._task])
        spawner = self._spawner
        if not self._running:
            if not spawner.object_id:
                return
            self._asked_for = True
            self._task = spawner.own(self._stop(spawner.object_id, spawner.lease_id, grace))
        assert self._task is not None
        await asyncio.shield(self._task)

    async def _stop(self, container_id: str, lease: str, grace: int) -> None:
        spawner = self._spawner
        spawner.unfollow(container_id)
        if lease:
            await spawner.want_gone(lease, Reason.STOPPED.value)
        try:
            await spawner.engine(spawner.verbs.stop, container_id, grace)
            await spawner.engine(spawner.verbs.remove, container_id)
            self._forget(container_id)
        except (EngineError, docker.errors.DockerException) as error:
            # the Hub says "stopped" now and forgets the container, and tells nobody why
            spawner.log.error("%s: stop: left to the scheduler: %s", spawner._log_name, error)
            if lease:
                # it sees that the container is still there, and does not wait for us any longer
                await self._tell(lease, Reason.STOPPED, "", None)
            raise
        if lease:
            await self._tell(lease, Reason.STOPPED, "", None)
        spawner.last_end = None

    async def died(self, container_id: str, seen: Observation | None) -> str:
        """It ended by itself: read how, remove it, report, and remember it for the user.

        Returns the words for it.
        """
        if not self._running:
            self._asked_for = False
            lease = self._spawner.lease_id
            self._task = self._spawner.own(self._died(container_id, lease, seen))
        assert self._task is not None
        return str(await asyncio.shield(self._task))

    async def _died(self, container_id: str, lease: str, seen: Observation | None) -> str:
        spawner = self._spawner
        report = None
        if seen is not None:
            report = await spawner.engine(spawner.verbs.exit_report, container_id)
        text, tail = self.words(report)
        spawner.last_end = end = LastEnd(text=text, log_tail=tail[-LONGEST_TAIL:])
        if report is not None and not report.oom:
            spawner.if_away(report.finished_at, lambda: self._was_docker(end, report.exit_code))
        waiting = spawner.container_ended
        if waiting is not None and not waiting.done():
            waiting.set_result(self.death(report).user_message)
        spawner.log.info("%s: %s", spawner._log_name, text)
        spawner.unfollow(container_id)
        try:
            await spawner.engine(spawner.verbs.remove, container_id)
        except (EngineError, docker.errors.DockerException) as error:
            # its process is over, which is what the Hub asks; the scheduler removes the rest
            spawner.log.warning("%s: left to the scheduler: %s", spawner._log_name, error)
        self._forget(container_id)
        if lease:
            kind = Reason.VANISHED if report is None else Reason.EXITED
            why = await self._tell(lease, kind, text, report)
            if why:
                # what the container shows is how it ended, and not who wanted that
                spawner.last_end = LastEnd(text=why)
                text = why
        return text

    def _was_docker(self, end: LastEnd, exit_code: int | None) -> None:
        """It ended because Docker did. That shows only when Docker is back."""
        why = replace(end, text=describe(exit_code=exit_code, oom=False, memory=None, away=True))
        if self._spawner.last_end == end:
            self._spawner.last_end = why
        self._spawner.log.info("%s: %s", self._spawner._log_name, why.text)
        stored = self._spawner.orm_spawner
        if stored is not None and (stored.state or {}).get("last_end") == end.to_state():
            # this and nothing else: the next server may run already
            stored.state = {**stored.state, "last_end": why.to_state()}
            self._spawner._commit()

    def _forget(self, container_id: str) -> None:
        if self._spawner.object_id == container_id:
            self._spawner.object_id = ""

    async def _tell(self, lease: str, kind: Reason, note: str, report: ExitReport | None) -> str:
        """Report the end; why the scheduler wanted it, in words for the user, if it did."""
        why: list[str] = []

        async def tell() -> None:
            ended = await tell_ended(self._spawner.scheduler, lease, kind, note, report)
            why.append(ended.why)

        await self._spawner.hint(tell())
        return "".join(why)

    def words(self, report: ExitReport | None) -> tuple[str, str]:
        """How it ended, and its last lines."""
        limits = self._spawner.kernel_limits
        memory = limits.mem_limit if limits else None
        if report is None:
            return describe(exit_code=None, oom=False, memory=memory), ""
        text = describe(exit_code=report.exit_code, oom=report.oom, memory=memory)
        return text, report.log_tail or report.error

    def death(self, report: ExitReport | None) -> ServerDied:
        """The error of a start whose container ended before the server answered."""
        text, tail = self.words(report)
        said = f" It said last:\n{tail}" if tail else ""
        name = self._spawner._log_name
        return ServerDied(f"{name}: {text}; {tail!r}", f"Your server {text}.{said}")


async def tell_ended(
    scheduler: Any, lease: str, kind: Reason, note: str, report: ExitReport | None
) -> End:
    """Report an end to the scheduler, with what the engine said of it."""
    oom = report is not None and report.oom
    ended: End = await scheduler.ended(
        lease,
        reason=(Reason.OUT_OF_MEMORY if oom else kind).value,
        note=note[:500],
        exit_code=report.exit_code if report is not None else None,
        oom=oom,
    )
    return ended
