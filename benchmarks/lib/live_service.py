"""A scheduler service with 100 GPUs and many users, for ``benchmarks/pages.py``.

The real service, with the engine and the ledger of the unit tests, so that only the pages are
measured. Who looks is said by the header ``X-User``, in place of the Hub. Each line of the input
changes a GPU; the answer is the moment before.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from jupyterhub_gpuspawner.scheduler import events
from jupyterhub_gpuspawner.scheduler.models import Admin
from jupyterhub_gpuspawner.service import pages
from tests.unit.service_world import World

#: devices, users who look and have a server, servers of others, users who wait for all devices
DEVICES, RUNNING, OTHERS, WAITING = 100, 50, 30, 30


async def identify(handler: Any) -> dict[str, Any]:
    """The user that the request says it is of."""
    return {"name": handler.request.headers.get("X-User", "user0")}


async def serve() -> None:
    """Serve until the input ends."""
    pages.HubPage.identify = identify  # type: ignore[method-assign, assignment]
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), simulate=DEVICES)
        world.clock.now = time.time()
        async with world.running():
            for number in range(RUNNING):
                await world.run(f"user{number}", 1)
            actor = world.desk.actor
            assert actor is not None
            for number in range(OTHERS):
                await world.run(f"other{number}", 1)
            streams = [world.ask(f"user{RUNNING + n}", DEVICES) for n in range(WAITING)]
            for stream in streams:
                await (await stream.__aenter__()).until(event="queued")
            print(world.url, flush=True)
            await changes(actor)


async def changes(actor: Any) -> None:
    """Cordon a device for each line of the input, or open it again."""
    loop = asyncio.get_running_loop()
    number = 0
    while await loop.run_in_executor(None, sys.stdin.readline):
        at = time.time()
        admin = Admin.OPEN if number % 2 else Admin.CORDONED
        # one of those that are free
        device = f"SIMULATED-n1-{DEVICES - 1 - number // 2 % 10}"
        await actor.post(events.AdminAsked(admin=admin, device=device))
        print(at, flush=True)
        number += 1


if __name__ == "__main__":
    asyncio.run(serve())
