"""One life of Hub and scheduler in the zygote itself, so that what it forks is warm.

Routes, statements and codecs are compiled at their first use. That was most of the work of a case,
whose processes live for a second or two; nothing that a case looks at is in it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

from jupyterhub_gpuspawner import client, dockerspawner, scheduler_link
from jupyterhub_gpuspawner.service.app import serve
from tests.crash import hub_process, scheduler_process

#: seconds for all of it, and for the threads to end
PATIENCE = 120.0
#: deadlines that are short in a case; here a busy machine may take its time
UNHURRIED = ("bind_deadline", "start_deadline", "detach_grace")


def rehearse(order: dict[str, Any]) -> None:
    """Start a server, adopt and stop it; leave no server, no thread, and nothing that is shared.

    ``order``: the orders of both processes by role; see ``World``.
    """
    order["scheduler"]["options"].update(dict.fromkeys(UNHURRIED, PATIENCE))
    order["hub"]["options"]["engine_timeout"] = PATIENCE
    client.BOOT_ID = os.environ["GPUS_BOOT_ID"] = order["hub"]["boot_id"]
    asyncio.run(asyncio.wait_for(_live(order), PATIENCE))
    for pool in dockerspawner._pools.values():
        pool.close()
    for shared in (dockerspawner._pools, dockerspawner._watches, scheduler_link._clients):
        shared.clear()
    # what is forked has this thread only: a lock that another one holds would never be free
    end = time.monotonic() + PATIENCE
    while threading.active_count() > 1:
        if time.monotonic() > end:
            raise RuntimeError(f"threads that do not end: {threading.enumerate()}")
        time.sleep(0.01)


async def _live(order: dict[str, Any]) -> None:
    serving = asyncio.ensure_future(serve(scheduler_process.options(order["scheduler"])))
    for verbs in (["start"], ["poll", "stop"]):
        hub = hub_process.HubDriver(Path(order["hub"]["folder"]), order["hub"]["options"])
        await hub.handle("restore", {})
        for verb in verbs:
            await hub.handle(verb, {"user": "alice"})
    for one in scheduler_link._clients.values():
        await one.close()
    os.kill(os.getpid(), signal.SIGTERM)
    await serving
