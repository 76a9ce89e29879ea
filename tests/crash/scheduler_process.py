"""The scheduler: the real service on a loopback port, in a forked process."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from traitlets.config import Config

from jupyterhub_gpuspawner.service import reconciler, runtime
from jupyterhub_gpuspawner.service.app import serve
from jupyterhub_gpuspawner.service.options import GPUScheduler
from jupyterhub_gpuspawner.store import Ledger
from tests.crash import child

#: file name of the empty ledger
TEMPLATE = "template.sqlite"


def prepare(folder: str) -> None:
    """What all children share: an empty ledger to copy, and the pauses of who has little time."""
    Ledger.open(f"sqlite:///{folder}/{TEMPLATE}").close()
    runtime.TICK = 0.1
    runtime.OPEN_RETRY = 0.1
    reconciler.RETRY = 0.2


def options(order: dict[str, Any]) -> GPUScheduler:
    """The options of an order."""
    return GPUScheduler(config=Config({"GPUScheduler": order["options"]}))


def main(order: dict[str, Any]) -> None:
    """Run until killed."""
    child.log_to_stderr()
    os.environ["GPUS_BOOT_ID"] = order["boot_id"]
    child.arm("scheduler", order.get("plan"))
    asyncio.run(_run(order["path"], options(order)))


async def _run(path: str, chosen: GPUScheduler) -> None:
    async def handle(verb: str, arguments: dict[str, Any]) -> Any:
        assert verb == "arm", verb
        child.arm("scheduler", arguments["plan"])

    hearing = asyncio.ensure_future(child.hear(path, handle))
    serving = asyncio.ensure_future(serve(chosen))
    await asyncio.wait([hearing, serving], return_when=asyncio.FIRST_COMPLETED)
