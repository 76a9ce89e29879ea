"""What both kinds of children do: hear commands, and arm themselves."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from tests.crash import points


def arm(role: str, plan: dict[str, Any] | None) -> None:
    """Take a plan from its JSON."""
    points.set_plan(points.Plan(role=role, **plan) if plan else None)


def log_to_stderr() -> None:
    """The child's standard error is its log file."""
    logging.basicConfig(
        level=logging.INFO, format="%(created).3f %(process)d %(name)s: %(message)s", force=True
    )


async def hear(path: str, handle: Callable[[str, dict[str, Any]], Awaitable[Any]]) -> None:
    """Call the controller, do its commands (each in a task), until it hangs up."""
    reader, writer = await asyncio.open_unix_connection(path)
    tasks: set[asyncio.Task[None]] = set()

    async def work(number: int, verb: str, arguments: dict[str, Any]) -> None:
        try:
            answer = {"id": number, "result": await handle(verb, arguments)}
        except BaseException as error:  # noqa: BLE001 - the controller hears of it
            logging.info("%s: %r", verb, error)
            answer = {"id": number, "error": repr(error)[:500]}
        writer.write(json.dumps(answer).encode() + b"\n")

    while line := await reader.readline():
        command = json.loads(line)
        number, verb = command.pop("id"), command.pop("do")
        task = asyncio.ensure_future(work(number, verb, command))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
