"""A Hub's user with a real spawner, on an engine and a scheduler that keep the real ones' rules.

User, spawner object and database are JupyterHub's own. The engine holds containers as Docker
does: a name is taken once, an ended container stays until it is removed, 404 and 409 have
Docker's words. A call that was begun goes on although its caller is cancelled, as in a thread.
:class:`World` counts the calls to both, and lets one of them fail, get lost, or be cancelled.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import docker.errors
import docker.types
from jupyterhub import orm, roles
from jupyterhub.objects import Hub
from jupyterhub.user import User
from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker
from sqlalchemy.pool import StaticPool
from traitlets.config import Config

from jupyterhub_gpuspawner import dockerspawner, launch, scheduler_link
from jupyterhub_gpuspawner.client import Ask, End, Granted, Queued
from jupyterhub_gpuspawner.dockerspawner import GPUDockerSpawner
from jupyterhub_gpuspawner.engine import labels
from jupyterhub_gpuspawner.engine.faults import translate
from jupyterhub_gpuspawner.errors import EngineUnknown, RefusedError, SchedulerUnavailable
from jupyterhub_gpuspawner.scheduler.models import Device, Injection

LEDGER = "l1"
NEVER = "0001-01-01T00:00:00Z"
_names = itertools.count(1)


def answered(status: int) -> Any:
    """As much of an HTTP response as docker's errors need."""
    return SimpleNamespace(status_code=status, url="/containers", reason="")


class Gone(docker.errors.NotFound):
    """Docker's 404 for a container."""

    def __init__(self, name: str) -> None:
        super().__init__("404", answered(404), f"No such container: {name}")


class Api:
    """The part of docker's ``APIClient`` that a spawner uses."""

    def __init__(self) -> None:
        self.containers_by_id: dict[str, dict[str, Any]] = {}
        self.volumes_by_name: dict[str, dict[str, Any]] = {}
        self.networks_by_name: dict[str, dict[str, Any]] = {}
        self.images = {"stub": ["serve"]}
        self.log = b"its last words\n"
        #: ("create" | "start" | "stop" | "remove", container id) in the order they took effect
        self.done: list[tuple[str, str]] = []
        self.base_url = "http+docker://localhost"
        self._ids = itertools.count(1)

    def find(self, which: str) -> dict[str, Any]:
        for key, info in self.containers_by_id.items():
            if which in (key, info["Name"].lstrip("/")):
                return info
        raise Gone(which)

    def create_host_config(self, **options: Any) -> Any:
        return docker.types.HostConfig(version="1.41", **options)

    def create_container(self, *, image: str, name: str, labels: Any, **options: Any) -> Any:
        for key, info in self.containers_by_id.items():
            if info["Name"] == f"/{name}":
                words = f'The container name "/{name}" is already in use by container {key}'
                raise docker.errors.APIError("409", answered(409), words)
        return self.put(name, labels, image=image, **options)

    def put(self, name: str, found: Any, state: str = "created", **options: Any) -> dict[str, str]:
        key = f"{next(self._ids):064x}"
        self.containers_by_id[key] = {
            "Id": key,
            "Name": f"/{name}",
            "Config": {"Labels": dict(found), "Options": options},
            "HostConfig": options.get("host_config") or {},
            "State": {"Status": state, "StartedAt": NEVER, "ExitCode": 0, "OOMKilled": False},
            "NetworkSettings": {"Networks": {_mode(options): {"IPAddress": "127.0.0.1"}}},
        }
        self.done.append(("create", key))
        if state != "created":
            self.containers_by_id[key]["State"]["StartedAt"] = "2026-01-01T00:00:00Z"
        return {"Id": key}

    def start(self, which: str) -> None:
        info = self.find(which)
        state = info["State"]
        for name in info["NetworkSettings"]["Networks"]:
            if name != "bridge" and name not in self.networks_by_name:
                words = f"network {name} not found"
                raise docker.errors.NotFound("404", answered(404), words)
        state.update(Status="running", StartedAt="2026-01-01T00:00:00Z")
        self.done.append(("start", which))

    def die(self, which: str, code: int = 1, oom: bool = False) -> None:
        self.find(which)["State"].update(Status="exited", ExitCode=code, OOMKilled=oom)

    def stop(self, which: str, timeout: int = 10) -> None:
        state = self.find(which)["State"]
        if state["Status"] == "running":
            state.update(Status="exited", ExitCode=143)
        self.done.append(("stop", which))

    def remove_container(self, which: str, v: bool, force: bool) -> None:
        key = self.find(which)["Id"]
        del self.containers_by_id[key]
        self.done.append(("remove", key))

    def inspect_container(self, which: str) -> dict[str, Any]:
        return self.find(which)

    def logs(self, which: str, **_: Any) -> bytes:
        self.find(which)
        return self.log

    def inspect_image(self, ref: str) -> dict[str, Any]:
        if ref not in self.images:
            words = f"No such image: {ref}"
            raise docker.errors.ImageNotFound("404", answered(404), words)
        return {"Config": {"Cmd": self.images[ref]}}

    def create_volume(self, name: str, labels: Any, **_: Any) -> dict[str, Any]:
        wanted = {"Name": name, "Labels": dict(labels)}
        return self.volumes_by_name.setdefault(name, wanted)

    def volumes(self, filters: Any) -> dict[str, Any]:
        wanted = [text.partition("=")[::2] for text in filters["label"]]
        fit = [
            volume
            for volume in self.volumes_by_name.values()
            if all(volume["Labels"].get(key) == value for key, value in wanted)
        ]
        return {"Volumes": fit}

    def networks(self, filters: Any = None) -> list[dict[str, Any]]:
        wanted = [text.partition("=")[::2] for text in (filters or {}).get("label", ())]
        return [
            network
            for network in self.networks_by_name.values()
            if all(network["Labels"].get(key) == value for key, value in wanted)
        ]

    def create_network(self, name: str, *, ipam: Any, labels: Any, **options: Any) -> None:
        if name in self.networks_by_name:
            words = f"network with name {name} already exists"
            raise docker.errors.APIError("409", answered(409), words)
        self.networks_by_name[name] = {
            "Id": f"net-{name}",
            "Name": name,
            "Labels": dict(labels),
            "IPAM": ipam,
            **options,
        }


def _mode(options: Any) -> str:
    return str((options.get("host_config") or {}).get("NetworkMode", "bridge"))


class World:
    """Engine, scheduler, and the faults of one test.

    ``faults``: number of the call (from 1) -> ``error`` (nothing happens), ``lost`` (it happens,
    the answer is lost), ``cancel`` (the spawn is cancelled while it runs), ``cancel after`` (…
    in the moment it is done).
    """

    def __init__(self) -> None:
        self.api = Api()
        self.faults: dict[int, str] = {}
        self.victim: asyncio.Task[Any] | None = None
        #: names of all calls so far
        self.calls: list[str] = []
        self.engine = FakePool(self)
        self.scheduler = FakeScheduler(self)

    async def act(self, name: str, effect: Callable[[], Any], error: Exception) -> Any:
        self.calls.append(name)
        fault = self.faults.get(len(self.calls), "")
        await asyncio.sleep(0)
        if fault == "cancel":
            self.cancel()
            await asyncio.sleep(0)
        if fault == "error":
            raise error
        result = effect()
        if fault == "lost":
            raise error
        if fault == "cancel after":
            self.cancel()
        return result

    def cancel(self) -> None:
        assert self.victim is not None
        self.victim.cancel()


class FakePool:
    """The engine pool's rules without threads: in turn for each key, and on after a cancel."""

    base_url = None
    options: dict[str, Any] = {}

    def __init__(self, world: World) -> None:
        self.world = world
        self.locks: dict[str, asyncio.Lock] = {}
        self.down = False

    async def run(self, key: str, fn: Callable[[Any], Any], timeout: float | None = None) -> Any:
        begun = asyncio.Event()
        task = asyncio.ensure_future(self._call(key, fn, begun))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not begun.is_set():
                task.cancel()
            task.add_done_callback(lambda t: t.cancelled() or t.exception())
            raise

    async def _call(self, key: str, fn: Callable[[Any], Any], begun: asyncio.Event) -> Any:
        async with self.locks.setdefault(key, asyncio.Lock()):
            begun.set()
            name = f"engine: {fn.__qualname__}"
            if self.down:
                raise EngineUnknown("no answer from Docker", "Docker does not answer.")
            return await self.world.act(name, lambda: self._do(fn), EngineUnknown("lost", "lost"))

    def _do(self, fn: Callable[[Any], Any]) -> Any:
        try:
            return fn(SimpleNamespace(api=self.world.api))
        except Exception as error:  # noqa: BLE001 - as the pool does
            failure = translate(error)
            raise failure from (None if failure is error else error)


class FakeScheduler:
    """The service as the spawner sees it: grants at once, refuses to bind what shall go."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.devices: tuple[Device, ...] = (
            Device(id="SIMULATED-n-0", node="n", index=0, model="T", memory=1, simulated=True),
        )
        self.asks: list[Ask] = []
        #: what it says before it grants
        self.waits: list[Queued] = []
        self.answer: Exception | None = None
        #: (verb, lease, fields), as they arrived
        self.told: list[tuple[str, str, dict[str, Any]]] = []
        #: leases whose intent is stored, with the number of engine effects at that time
        self.gone: dict[str, int] = {}
        self.granted: list[str] = []
        #: leases that the spawner says it has heard of
        self.heard: list[str] = []
        self.streams_open = 0
        self.down = False
        #: why it has stopped a server
        self.why = ""

    async def request(self, ask: Ask) -> AsyncIterator[Any]:
        self.asks.append(ask)
        self.streams_open += 1
        try:
            for line in self.waits:
                yield line
                await asyncio.sleep(0)
            if self.answer is not None:
                raise self.answer
            while True:
                # the real client asks again as well, and gets the lease that it has
                with suppress(SchedulerUnavailable):
                    granted = await self._ask("request", "", self._grant)
                    break
            yield granted
        finally:
            await asyncio.sleep(0)
            self.streams_open -= 1

    def _grant(self) -> Granted:
        last = self.granted[-1] if self.granted else ""
        if not last or last in self.gone or "bind" in self.verbs(last):
            self.granted.append(f"lease{len(self.granted) + 1}")
        lease = self.granted[-1]
        return Granted(
            lease=lease,
            node="n",
            ledger=LEDGER,
            devices=self.devices,
            injection=Injection.BIND,
        )

    async def taken(self, lease: str) -> None:
        self.heard.append(lease)

    async def bind(self, lease: str, container_id: str) -> None:
        def effect() -> None:
            if lease in self.gone:
                raise RefusedError("the lease is over", "over", reason="cancelled")

        await self._ask("bind", lease, effect, container_id=container_id)

    async def running(self, lease: str) -> None:
        await self._ask("running", lease)

    async def stopping(self, lease: str, reason: str) -> None:
        def effect() -> None:
            self.gone.setdefault(lease, len(self.world.api.done))

        await self._ask("stopping", lease, effect, reason=reason)

    async def ended(self, lease: str, **fields: Any) -> End:
        await self._ask("ended", lease, **fields)
        return End(released=True, why=self.why)

    async def summary(self) -> dict[str, Any]:
        raise SchedulerUnavailable("not in this test")

    async def _ask(
        self, verb: str, lease: str, effect: Callable[[], Any] = lambda: None, **fields: Any
    ) -> Any:
        def happens() -> Any:
            result = effect()
            self.told.append((verb, lease, fields))
            return result

        if self.down:
            raise SchedulerUnavailable("connection refused")
        return await self.world.act(f"scheduler: {verb}", happens, SchedulerUnavailable("cut"))

    def verbs(self, lease: str = "lease1") -> list[str]:
        return [verb for verb, which, _ in self.told if which == lease]


class FakeWatch:
    """Events that come when the test says so."""

    def __init__(self) -> None:
        self.live: dict[str, bool] = {}
        self.followers: dict[str, Callable[[], Any]] = {}
        #: times at which the engine was down
        self.away: set[str] = set()
        #: who wants to know whether it was
        self.ends: list[Callable[[], None]] = []

    def is_live(self, container_id: str) -> bool | None:
        return self.live.get(container_id)

    def if_away(self, finished_at: str, tell: Callable[[], None]) -> None:
        if finished_at in self.away:
            tell()
        self.ends.append(tell)

    def follow(self, container_id: str, follower: Callable[[], Any]) -> None:
        self.followers[container_id] = follower

    def unfollow(self, container_id: str) -> None:
        self.followers.pop(container_id, None)


class Wired:
    """A real spawner whose pool, watch and scheduler are the world's."""

    user: Any

    @property
    def world(self) -> Any:
        return self.user.settings["world"]

    @property
    def pool(self) -> Any:
        return self.world.engine

    @property
    def scheduler(self) -> Any:
        return self.world.scheduler

    def _watch(self, ledger: str) -> Any:
        return self.world.watch


class Spawner(Wired, GPUDockerSpawner):
    """The spawner for one Docker engine."""


@lru_cache
def database() -> Any:
    """One database of a Hub for all tests; each test has users of its own."""
    # not new_session_factory: it stamps the database, for which it imports all of the Hub (5 s)
    engine = create_engine("sqlite://", poolclass=StaticPool)
    orm.Base.metadata.create_all(engine)
    session = sessionmaker(bind=engine, expire_on_commit=False)()
    for role in roles.get_default_roles():
        roles.create_role(session, role)
    session.add(orm.OAuthClient(identifier="jupyterhub"))
    session.commit()
    return session


@lru_cache
def _shelf() -> list[orm.User]:
    return []


def _new_orm_user() -> orm.User:
    """A user of the Hub, with everybody's role; made by the hundred, for one alone takes 15 ms."""
    shelf = _shelf()
    if not shelf:
        session = database()
        role = session.query(orm.Role).filter_by(name="user").one()
        shelf += [orm.User(name=f"user{next(_names)}") for _ in range(100)]
        for user in shelf:
            user.created = datetime(2026, 1, 1)
            user.roles.append(role)
        session.add_all(shelf)
        session.commit()
    return shelf.pop()


def spawner_of(
    world: World,
    options: dict[str, Any] | None = None,
    *,
    name: str = "",
    groups: tuple = (),
    cls: type = Spawner,
) -> Any:
    """The spawner of a new user's default server, as the Hub makes it; it is in mid-spawn."""
    user = new_user(world, options, name, cls)
    for group in groups:
        user.orm_user.groups.append(orm.Group(name=group))
    return in_mid_spawn(user)


def new_user(
    world: World, options: dict[str, Any] | None = None, name: str = "", cls: type = Spawner
) -> User:
    """A user of a Hub with these options of ``GPUDockerSpawner``."""
    config = Config()
    values = {"image": "stub", "gpus": 1, "mem_limit": "64M", **(options or {})}
    config.GPUDockerSpawner = Config(values)
    world.watch = FakeWatch()  # type: ignore[attr-defined]
    settings = {
        "world": world,
        "spawner_class": cls,
        "config": config,
        "hub": Hub(ip="127.0.0.1", port=8081, base_url="/hub/"),
        "base_url": "/",
    }
    orm_user = _new_orm_user()
    if name:
        orm_user.name = name
    return User(orm_user, settings)


def in_mid_spawn(user: User, server: str = "") -> Any:
    """The user's spawner as ``User.spawn`` has prepared it when it asks for a server."""
    if server not in user.orm_user.orm_spawners:
        database().add(orm.Spawner(name=server, user=user.orm_user))
        database().commit()
    spawner = user.spawners[server]
    from jupyterhub.objects import Server

    orm_server = orm.Server(base_url=f"{user.base_url}")
    database().add(orm_server)
    database().commit()
    spawner.server = Server(orm_server=orm_server)
    spawner.api_token = "t"
    spawner._spawn_pending = spawner._start_pending = True
    spawner.clear_state()
    return spawner


def no_waiting(monkeypatch: Any) -> None:
    """The server answers as soon as its container runs; retries come at once."""

    async def answers(host: str, port: int, path: str, **_: Any) -> bool:
        return True

    monkeypatch.setattr(launch, "answers", answers)
    monkeypatch.setattr(launch, "BIND_FIRST", 0.0)
    monkeypatch.setattr(launch, "BIND_MOST", 0.0)
    monkeypatch.setattr(launch, "PROBE_PAUSE", 0.0)
    monkeypatch.setattr(scheduler_link, "INSIST_FIRST", 0.0)


async def settle() -> None:
    """Wait until all work that outlives its spawn is done."""
    while True:
        await asyncio.sleep(0)
        here = asyncio.current_task()
        others = [task for task in asyncio.all_tasks() if task is not here]
        if not others and not scheduler_link._OWNED:
            return
        if others:
            await asyncio.wait(others, timeout=5)


def ours(world: World) -> list[str]:
    """States of the containers that carry our labels."""
    found = world.api.containers_by_id.values()
    return [i["State"]["Status"] for i in found if labels.parse(i["Config"]["Labels"])]


def quiet() -> None:
    """JupyterHub's application log is not what these tests are about."""
    logging.getLogger("traitlets").setLevel(logging.CRITICAL)


__all__ = [
    "FakeScheduler",
    "World",
    "dockerspawner",
    "in_mid_spawn",
    "new_user",
    "no_waiting",
    "ours",
    "settle",
    "spawner_of",
]
