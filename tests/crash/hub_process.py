"""The Hub: real users, database and spawners, in a forked process, driven by commands.

What JupyterHub's ``User.spawn``, ``User.stop``, its poll loop and ``init_spawners`` do around a
spawner is done here in the same order, with the same consequences for what the Hub remembers: the
server's row when a spawn begins, the spawner's state only when ``start()`` has returned.
"""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import aiohttp
from jupyterhub import orm, roles
from jupyterhub.objects import Hub, Server
from jupyterhub.user import User
from traitlets.config import Config

from jupyterhub_gpuspawner import client, dockerspawner, launch
from tests.crash import child
from tests.unit import hub_fakes

USERS = ("alice", "bob", "carol")


def prepare() -> None:
    """What all children share: the Hub's empty database with its users, and short pauses."""
    client.RETRY_FIRST, client.RETRY_MOST = 0.05, 0.1
    launch.BIND_FIRST, launch.BIND_MOST = 0.05, 0.1
    # all addresses are numbers here, and the other resolver has a thread that a fork does not have
    aiohttp.connector.DefaultResolver = aiohttp.ThreadedResolver
    hub_fakes.quiet()
    session = hub_fakes.database()
    for name in USERS:
        user = orm.User(name=name, created=datetime(2026, 1, 1))
        session.add(user)
        session.commit()
        roles.assign_default_roles(session, entity=user)


@lru_cache
def people() -> dict[str, orm.User]:
    """The users by name, loaded once for all children."""
    return {user.name: user for user in hub_fakes.database().query(orm.User)}


def main(order: dict[str, Any]) -> None:
    """Run until killed."""
    child.log_to_stderr()
    client.BOOT_ID = order["boot_id"]
    child.arm("hub", order.get("plan"))
    asyncio.run(_run(order))


async def _run(order: dict[str, Any]) -> None:
    hub = HubDriver(Path(order["folder"]), order["options"])
    await child.hear(order["path"], hub.handle)


class HubDriver:
    """The Hub's part around its spawners."""

    def __init__(self, folder: Path, options: dict[str, Any]) -> None:
        self._file = folder / "hub.json"
        #: user -> {"state": what get_state returned, null = not yet}; there = the server's row is
        self._memory: dict[str, Any] = {}
        if self._file.exists():
            self._memory = json.loads(self._file.read_text())
        config = Config()
        config.GPUDockerSpawner = Config(options)
        settings = {
            "spawner_class": dockerspawner.GPUDockerSpawner,
            "config": config,
            "hub": Hub(ip="127.0.0.1", port=8081, base_url="/hub/"),
            "base_url": "/",
        }
        self._users = {name: User(people()[name], settings) for name in USERS}
        self._spawns: dict[str, asyncio.Task[str]] = {}

    async def handle(self, verb: str, arguments: dict[str, Any]) -> Any:
        """One command of the controller."""
        if verb == "arm":
            child.arm("hub", arguments["plan"])
            return None
        return await getattr(self, f"_do_{verb}")(**arguments)

    def _remember(self, user: str, state: Any) -> None:
        self._memory[user] = {"state": state}
        self._save()

    def _forget(self, user: str) -> None:
        self._memory.pop(user, None)
        self._save()

    def _save(self) -> None:
        partial = self._file.with_suffix(".new")
        partial.write_text(json.dumps(self._memory))
        os.replace(partial, self._file)

    def _with_server(self, user: str) -> Any:
        spawner = self._users[user].spawners[""]
        session = hub_fakes.database()
        row = orm.Server(base_url=self._users[user].base_url)
        session.add(row)
        session.commit()
        spawner.server = Server(orm_server=row)
        return spawner

    # -- commands --------------------------------------------------------------------------

    async def _do_start(self, user: str) -> str:
        """``User.spawn``."""
        task = self._spawns[user] = asyncio.ensure_future(self._spawn(user))
        await asyncio.wait([task])
        return task.result()

    async def _spawn(self, user: str) -> str:
        spawner = self._with_server(user)
        spawner.api_token = "t"
        spawner._spawn_pending = spawner._start_pending = True
        spawner.clear_state()
        self._remember(user, None)
        try:
            await spawner.run_pre_spawn_hook()
            url: str = await spawner.start()
        except BaseException as error:
            spawner._start_pending = False
            with suppress(Exception):
                await self._stop(user)
            raise error
        finally:
            spawner._spawn_pending = spawner._start_pending = False
        self._remember(user, spawner.get_state())
        return url

    async def _do_cancel(self, user: str) -> None:
        """DELETE of a pending spawn: cancelled, and not waited for longer than a second."""
        task = self._spawns.get(user)
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=1.0)

    async def _do_stop(self, user: str) -> None:
        await self._stop(user)

    async def _stop(self, user: str) -> None:
        """``User.stop``."""
        spawner = self._users[user].spawners[""]
        if await spawner.poll() is None:
            await spawner.stop()
        spawner.clear_state()
        spawner.server = None
        self._forget(user)

    async def _do_poll(self, user: str) -> Any:
        """The poll loop: a status means that the server is over."""
        spawner = self._users[user].spawners[""]
        status = await spawner.poll()
        if status is not None:
            spawner.clear_state()
            spawner.server = None
            self._forget(user)
        return status

    async def _do_restore(self) -> list[str]:
        """``init_spawners``: who has a server's row is polled; the names of those who run."""
        kept = []
        for user, memory in list(self._memory.items()):
            spawner = self._with_server(user)
            spawner.load_state(memory["state"] or {})
            spawner._check_pending = True
            try:
                status = await spawner.poll()
            finally:
                spawner._check_pending = False
            if status is None:
                await spawner.get_url()
                self._remember(user, spawner.get_state())
                kept.append(user)
            else:
                spawner.server = None
                self._forget(user)
        return kept
