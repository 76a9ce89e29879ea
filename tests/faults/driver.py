"""A user at a Hub in this process: JupyterHub's own ``User``, our real spawner, a real service.

What stands in for the Hub is small: its database in memory, and nothing else. ``User.spawn`` and
``User.stop`` are JupyterHub's, so what they do after a failure is done here too.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Coroutine
from contextlib import suppress
from datetime import datetime
from typing import Any, TypeVar

from jupyterhub import orm, roles
from jupyterhub.objects import Hub
from jupyterhub.user import User
from traitlets.config import Config

from jupyterhub_gpuspawner import scheduler_link
from jupyterhub_gpuspawner.dockerspawner import GPUDockerSpawner
from tests.unit.hub_fakes import database

T = TypeVar("T")

_numbers = itertools.count(1)

#: seconds Docker may be silent in these tests, long enough for a busy machine
ENGINE_TIMEOUT = 20.0


class Somebody:
    """A user with one server, on an engine of their own choice.

    Parameters
    ----------
    service:
        The scheduler service that grants.
    engine_url:
        The socket that the spawner talks to.
    image:
        Of the server.
    options:
        Of ``GPUDockerSpawner``.
    """

    def __init__(
        self, service: Any, engine_url: str, name: str = "", *, image: str, **options: Any
    ) -> None:
        self.name = name or f"user{next(_numbers)}"
        config = Config()
        config.GPUSpawnerMixin.scheduler_url = service.base
        config.GPUSpawnerMixin.token_file = str(service.state / "service-token")
        config.GPUDockerSpawner = Config(
            {
                "image": image,
                "gpus": 1,
                "mem_limit": "64M",
                "engine_timeout": ENGINE_TIMEOUT,
                "stop_grace": 1,
                "start_timeout": 40,
                "http_timeout": 10,
                "pull_policy": "ifnotpresent",
                "client_kwargs": {"base_url": engine_url},
                **options,
            }
        )
        settings = {
            "spawner_class": GPUDockerSpawner,
            "config": config,
            "hub": Hub(ip="127.0.0.1", port=8081, base_url="/hub/"),
            "base_url": "/",
        }
        session = database()
        orm_user = orm.User.find(session, self.name)
        if orm_user is None:
            orm_user = orm.User(name=self.name, created=datetime(2026, 1, 1))
            session.add(orm_user)
            session.commit()
            roles.assign_default_roles(session, entity=orm_user)
        self.user = User(orm_user, settings)

    @property
    def spawner(self) -> Any:
        return self.user.spawners[""]

    async def start(self) -> str:
        """Press start; "" = the server is ready, else what the user reads."""
        spawner = self.spawner
        spawner._spawn_pending = True
        task = asyncio.ensure_future(self.user.spawn("", options={}))
        spawner._spawn_future = task
        try:
            await task
        except Exception as error:  # noqa: BLE001 - whatever the Hub would show
            return read_by_the_user(error)
        finally:
            spawner._spawn_pending = False
        return ""

    async def stop(self) -> None:
        """Press stop. As in the Hub, a stop that fails is told to nobody."""
        with suppress(Exception):
            await self.user.stop("")

    async def poll(self) -> Any:
        return await self.spawner.poll()

    def said(self) -> list[str]:
        """The lines of the pending page."""
        return [line["message"] for line in self.spawner._progress._lines]


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a loop of its own, as one life of a Hub."""

    async def life() -> T:
        try:
            return await work
        finally:
            while others := asyncio.all_tasks() - {asyncio.current_task()}:
                for task in others:
                    task.cancel()
                await asyncio.gather(*others, return_exceptions=True)
            for client in scheduler_link._clients.values():
                await client.close()
            scheduler_link._clients.clear()

    return asyncio.run(life())


def read_by_the_user(error: BaseException) -> str:
    """What the Hub's pages show of an error; a bare exception shows as itself."""
    return str(getattr(error, "jupyterhub_message", None) or f"{type(error).__name__}: {error}")


def quiet_hub() -> None:
    """JupyterHub's application log is not what these tests are about."""
    logging.getLogger("traitlets").setLevel(logging.CRITICAL)
