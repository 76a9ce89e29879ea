"""The scheduler: the real service on a loopback port, in a forked process."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from traitlets.config import Config

from jupyterhub_gpuspawner.service import everything, pages, reconciler, runtime
from jupyterhub_gpuspawner.service.app import serve
from jupyterhub_gpuspawner.service.options import GPUScheduler
from tests.crash import child

#: imported once, before the fork
__all__ = ["everything", "main", "pages"]


def main(order: dict[str, Any]) -> None:
    """Run until killed."""
    child.log_to_stderr()
    # the pauses of a service that has all day
    runtime.TICK = 0.1
    runtime.OPEN_RETRY = 0.1
    reconciler.RETRY = 0.2
    os.environ["GPUS_BOOT_ID"] = order["boot_id"]
    child.arm("scheduler", order.get("plan"))
    options = GPUScheduler(config=Config({"GPUScheduler": order["options"]}))
    asyncio.run(_run(order["path"], options))


async def _run(path: str, options: GPUScheduler) -> None:
    async def handle(verb: str, arguments: dict[str, Any]) -> Any:
        assert verb == "arm", verb
        child.arm("scheduler", arguments["plan"])

    hearing = asyncio.ensure_future(child.hear(path, handle))
    serving = asyncio.ensure_future(serve(options))
    await asyncio.wait([hearing, serving], return_when=asyncio.FIRST_COMPLETED)
