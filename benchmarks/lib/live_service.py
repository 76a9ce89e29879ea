"""A scheduler service with many GPUs and users, for ``benchmarks/pages.py``.

The real service, with the engine and the ledger of the unit tests, so that only the pages are
measured. Who looks is said by the header ``X-User``, in place of the Hub; ``root`` is an admin. All
servers and requests are asked for over HTTP, as a spawner does. Each line of the input changes a
GPU; the answer is the moment before.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jupyterhub._data
from tornado.web import StaticFileHandler

from jupyterhub_gpuspawner.scheduler import events
from jupyterhub_gpuspawner.scheduler.models import Admin
from jupyterhub_gpuspawner.service import pages
from tests.unit.service_world import World

#: what the Hub says to its services
HUB = {
    "JUPYTERHUB_OAUTH_ACCESS_SCOPES": '["access:services!service=gpus"]',
    "JUPYTERHUB_API_TOKEN": "t" * 32,
    "JUPYTERHUB_CLIENT_ID": "service-gpus",
    "JUPYTERHUB_SERVICE_PREFIX": "/services/gpus/",
}


async def identify(handler: Any) -> dict[str, Any]:
    """The user that the request says it is of."""
    name = handler.request.headers.get("X-User", "user0")
    return {"name": name, "admin": name == "root"}


async def serve(arguments: argparse.Namespace) -> None:
    """Serve until the input ends."""
    pages.HubPage.identify = identify  # type: ignore[method-assign, assignment]
    os.environ.update(HUB)
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), simulate=arguments.devices)
        world.clock.now = time.time()
        async with world.running():
            web: Any = world.server.request_callback
            static = {"path": f"{jupyterhub._data.DATA_FILES_PATH}/static"}
            web.add_handlers(".*", [("/hub/static/(.*)", StaticFileHandler, static)])
            for number in range(arguments.running):
                await world.run(f"user{number}", 1)
            actor = world.desk.actor
            assert actor is not None
            for number in range(arguments.others):
                await world.run(f"other{number}", 1)
            # they wait for all devices
            first, devices = arguments.running, arguments.devices
            streams = [world.ask(f"user{first + n}", devices) for n in range(arguments.waiting)]
            for stream in streams:
                await (await stream.__aenter__()).until(event="queued")
            print(world.url, flush=True)
            await changes(actor, arguments.devices)


async def changes(actor: Any, devices: int) -> None:
    """Cordon a device for each line of the input, or open it again."""
    loop = asyncio.get_running_loop()
    number = 0
    while await loop.run_in_executor(None, sys.stdin.readline):
        at = time.time()
        admin = Admin.OPEN if number % 2 else Admin.CORDONED
        # one of those that are free
        device = f"SIMULATED-n1-{devices - 1 - number // 2 % 10}"
        await actor.post(events.AdminAsked(admin=admin, device=device))
        print(at, flush=True)
        number += 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=100)
    parser.add_argument("--running", type=int, default=50, help="users who look and have a server")
    parser.add_argument("--others", type=int, default=30, help="servers of others")
    parser.add_argument("--waiting", type=int, default=30)
    asyncio.run(serve(parser.parse_args()))
