"""Listens to what NVIDIA's driver reports of its GPUs, and has them looked at at once.

The listener is a child process that can be abandoned, as the one that measures is. Without it
(an old driver, a GPU that tells of no events) the measurements of each comparison remain.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from ..discovery import alarms

log = logging.getLogger("gpus.alarms")

#: what listens
COMMAND = (sys.executable, "-m", "jupyterhub_gpuspawner.discovery.nvml_events")
#: seconds until a listener that has ended is started again
AGAIN = 30.0
#: seconds that a listener gets to end
GRACE = 2.0


class AlarmWatch:
    """Runs the listener once there are GPUs to listen to.

    Parameters
    ----------
    rung:
        Gets the alarms.
    wanted:
        Set once real GPUs were seen.
    look:
        Has the GPUs looked at soon.
    clock:
        POSIX seconds.
    """

    def __init__(
        self,
        rung: alarms.Alarms,
        wanted: asyncio.Event,
        look: Callable[[], None],
        clock: Callable[[], float],
        command: Sequence[str] = COMMAND,
    ) -> None:
        self._alarms = rung
        self._wanted = wanted
        self._look = look
        self._clock = clock
        self._command = command
        self._said = ""

    async def run(self) -> None:
        """Listen until cancelled."""
        await self._wanted.wait()
        while True:
            await self._listen()
            await asyncio.sleep(AGAIN)

    async def _listen(self) -> None:
        try:
            child = await asyncio.create_subprocess_exec(
                *self._command,
                cwd=Path(__file__).parents[2],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            self._note(f"can't be started: {error}")
            return
        assert child.stdout is not None
        ended = asyncio.ensure_future(child.wait())
        try:
            async for line in child.stdout:
                self._heard(line.decode(errors="replace"))
            self._note("has ended")
            await asyncio.wait([ended], timeout=GRACE)
        finally:
            if child.returncode is None:
                # its session is its own
                with suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
            # The end of its pipe comes after its own. One that hangs in the driver is left behind;
            # it dies when the driver lets it.
            rest = asyncio.ensure_future(child.stdout.read())
            await asyncio.wait([ended, rest], timeout=GRACE)
            rest.cancel()

    def _heard(self, line: str) -> None:
        try:
            alarm = alarms.read(line)
            ended = json.loads(line).get("error")
        except (ValueError, KeyError, AttributeError):
            log.warning("the listener says something that can't be read: %.80r", line)
            return
        if ended is not None:
            self._note(f"ends (NVML error {ended})")
            # a GPU that is lost ends it too
            self._look()
        if alarm is not None:
            log.error("GPU %s: %s", alarm.gpu or "(not known which)", alarm.note)
            self._alarms.ring(alarm, self._clock())
            self._look()

    def _note(self, what: str) -> None:
        if what != self._said:
            self._said = what
            log.info("the listener for errors of GPUs %s; they are still measured", what)
