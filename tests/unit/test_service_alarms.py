"""What the service does with a listener: a small program in its place."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from jupyterhub_gpuspawner.discovery.alarms import Alarm
from jupyterhub_gpuspawner.service import alarm_watch, waiting
from jupyterhub_gpuspawner.service.alarm_watch import AlarmWatch

# a process for each
pytestmark = pytest.mark.slow


class Ears:
    """Notes what a watch leads to."""

    def __init__(self, *lines: str) -> None:
        self.rung: list[tuple[Alarm, float]] = []
        self.looked = asyncio.Event()
        self.wanted = asyncio.Event()
        text = "\n".join(lines)
        self.watch = AlarmWatch(
            self,  # type: ignore[arg-type]
            self.wanted,
            self.looked.set,
            lambda: 7.0,
            ("sh", "-c", f"cat <<'END'\n{text}\nEND\nsleep 600"),
        )

    def ring(self, alarm: Alarm, now: float) -> None:
        self.rung.append((alarm, now))

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        task: asyncio.Task[Any] = asyncio.create_task(self.watch.run())
        try:
            yield
        finally:
            await waiting.end([task])


def line(**words: Any) -> str:
    return json.dumps(words)


async def test_an_alarm_is_kept_with_its_time_and_has_the_gpus_looked_at() -> None:
    ears = Ears(
        "not a line of ours",
        line(listening=["GPU-0"]),
        line(gpu="GPU-0", kind="xid", code=31),
        line(gpu="GPU-0", kind="xid", code=79),
    )
    ears.wanted.set()
    async with ears.listening():
        await asyncio.wait_for(ears.looked.wait(), 60)
    assert ears.rung == [(Alarm(gpu="GPU-0", note="the driver reports XID 79"), 7.0)]


async def test_nobody_listens_before_there_are_gpus_to_listen_to() -> None:
    ears = Ears(line(gpu="GPU-0", kind="xid", code=79))
    async with ears.listening():
        # as many turns of the loop as a start would take
        for _ in range(100):
            await asyncio.sleep(0)
    assert not ears.rung


async def test_a_listener_that_ends_has_the_gpus_looked_at_and_is_started_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(alarm_watch, "AGAIN", 0.0)
    ears = Ears()
    ears.watch._command = ("sh", "-c", f"echo '{line(error=15)}'")
    ears.wanted.set()
    async with ears.listening():
        for _ in range(2):
            ears.looked.clear()
            await asyncio.wait_for(ears.looked.wait(), 60)
    assert not ears.rung


async def test_a_listener_that_can_not_be_started_leaves_the_polls() -> None:
    ears = Ears()
    ears.watch._command = ("/nowhere/listener",)
    await ears.watch._listen()
    assert not ears.rung and not ears.looked.is_set()
