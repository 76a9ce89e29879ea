"""The HTTP side: Docker's routes, and ``/_fake/…`` for the test.

A handler is never cancelled when its client hangs up (aiohttp's default), as in Docker: a create
goes on, and its container is there afterwards.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from aiohttp import web

from tests.fake_engine.containers import Containers
from tests.fake_engine.events import Events, fits
from tests.fake_engine.faults import Fault, Faults
from tests.fake_engine.networks import Networks, own_block
from tests.fake_engine.rules import Refused, read_filters
from tests.fake_engine.stubs import Stubs
from tests.fake_engine.volumes import Volumes

API, OLDEST_API, VERSION = "1.45", "1.24", "26.1.5"
_VERSIONED = re.compile(r"^/v\d+\.\d+(?=/)")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def default_images() -> dict[str, dict[str, Any]]:
    """What the engine has: the stub."""
    config = {"Cmd": ["jupyterhub-singleuser"], "Env": ["PATH=/usr/bin"], "Labels": None}
    return {
        "stub:latest": {"Id": "sha256:" + "5" * 64, "RepoTags": ["stub:latest"], "Config": config}
    }


class World:
    """All state of one engine."""

    def __init__(self, cdi: set[str], block: int) -> None:
        self.events = Events()
        self.volumes = Volumes(self.events)
        self.networks = Networks(self.events, block)
        self.containers = Containers(
            self.events, self.networks, self.volumes, default_images(), cdi
        )
        self.faults = Faults()
        self.stubs = Stubs()
        self.containers.on_up = self.stubs.up
        self.containers.on_down = self.stubs.down
        #: seconds that a removal takes
        self.removal = 0.0
        #: ``METHOD /path`` of each call, as it began
        self.calls: list[str] = []

    def close(self) -> None:
        """Cut the streams and end the servers."""
        self.events.hang_up()
        for container in list(self.containers.by_id):
            self.stubs.down(container)


class Engine:
    """The application."""

    def __init__(self, cdi: set[str]) -> None:
        self._cdi = cdi
        self._block, self._lock = own_block()
        self.world = World(cdi, self._block)
        self.app = web.Application(client_max_size=16 << 20)
        self.app.router.add_route("*", "/{path:.*}", self._serve)
        self._routes: list[tuple[str, re.Pattern[str], Callable[..., Any]]] = [
            (method, re.compile(pattern), handler) for method, pattern, handler in self._table()
        ]

    def _table(self) -> list[tuple[str, str, Callable[..., Any]]]:
        one = r"([^/]+)"
        return [
            ("GET|HEAD", r"/_ping", self._ping),
            ("GET", r"/version", self._version),
            ("GET", r"/info", self._info),
            ("GET", r"/events", self._events),
            ("POST", r"/containers/create", self._create),
            ("GET", r"/containers/json", self._list),
            ("GET", rf"/containers/{one}/json", self._inspect),
            ("GET", rf"/containers/{one}/logs", self._logs),
            ("POST", rf"/containers/{one}/start", self._start),
            ("POST", rf"/containers/{one}/stop", self._stop),
            ("POST", rf"/containers/{one}/kill", self._kill),
            ("POST", rf"/containers/{one}/(pause|unpause)", self._pause),
            ("DELETE", rf"/containers/{one}", self._remove),
            ("GET", r"/images/(.+)/json", self._image),
            ("POST", r"/images/create", self._pull),
            ("POST", r"/volumes/create", self._volume_create),
            ("GET", r"/volumes", self._volume_list),
            ("GET", rf"/volumes/{one}", self._volume),
            ("DELETE", rf"/volumes/{one}", self._volume_remove),
            ("POST", r"/networks/create", self._network_create),
            ("GET", r"/networks", self._network_list),
            ("GET", rf"/networks/{one}", self._network),
            ("DELETE", rf"/networks/{one}", self._network_remove),
            ("POST", rf"/networks/{one}/(connect|disconnect)", self._network_join),
            ("POST", r"/_fake/(\w+)", self._control),
        ]

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        path = _VERSIONED.sub("", request.path)
        call = f"{request.method} {path}"
        control = path.startswith("/_fake/")
        fault = None if control else self.world.faults.strikes(call)
        if not control:
            self.world.calls.append(call)
        try:
            await request.read()  # it has arrived; what happens from here on is ours
        except ConnectionError:
            raise asyncio.CancelledError from None  # half a request: nothing happens
        try:
            if fault is not None:
                await _before(fault, request)
            response = await self._answer(request, path)
        except Refused as refused:
            response = web.json_response({"message": refused.message}, status=refused.status)
        if fault is not None:
            response = await _after(fault, request, response)
        return response

    async def _answer(self, request: web.Request, path: str) -> web.StreamResponse:
        for method, pattern, handler in self._routes:
            found = pattern.fullmatch(path)
            if found and request.method in method.split("|"):
                answer: web.StreamResponse = await handler(request, *found.groups())
                return answer
        raise Refused(404, "page not found")

    # -- the engine ------------------------------------------------------------------------

    async def _ping(self, request: web.Request) -> web.Response:
        return web.Response(text="OK", headers={"Api-Version": API})

    async def _version(self, request: web.Request) -> web.Response:
        return web.json_response(
            {
                "Version": VERSION,
                "ApiVersion": API,
                "MinAPIVersion": OLDEST_API,
                "Os": "linux",
                "Arch": "amd64",
            }
        )

    async def _info(self, request: web.Request) -> web.Response:
        states = [c["State"]["Status"] for c in self.world.containers.by_id.values()]
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return web.json_response(
            {
                "ID": "fake",
                "Name": "fake",
                "Containers": len(states),
                "ContainersRunning": states.count("running"),
                "Images": len(self.world.containers.images),
                "NCPU": os.cpu_count() or 1,
                "MemTotal": memory,
                "OSType": "linux",
                "Runtimes": {"runc": {"path": "runc"}},
                "DefaultRuntime": "runc",
                "ServerVersion": VERSION,
                "CDISpecDirs": ["/etc/cdi"] if self._cdi else [],
                "SecurityOptions": [],
                "Warnings": None,
            }
        )

    async def _events(self, request: web.Request) -> web.StreamResponse:
        filters = read_filters(request.query.get("filters"))
        since, until = request.query.get("since"), request.query.get("until")
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        listener: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        events = self.world.events
        events.listeners.add(listener)
        past = [e for e in events.past if since and e["timeNano"] / 1e9 >= float(since)]
        try:
            await response.prepare(request)
            with suppress(ConnectionError):
                for event in past:
                    if fits(event, filters) and _in_time(event, until):
                        await response.write(_line(event))
                while (wait := _left(until)) is None or wait > 0:
                    try:
                        event = await asyncio.wait_for(listener.get(), wait)
                    except asyncio.TimeoutError:
                        break
                    if event is None:
                        break
                    if fits(event, filters) and event not in past:
                        await response.write(_line(event))
        finally:
            events.listeners.discard(listener)
        return response

    # -- containers ------------------------------------------------------------------------

    async def _create(self, request: web.Request) -> web.Response:
        body = await request.json()
        name = request.query.get("name", "")
        return web.json_response(self.world.containers.create(name, body, time.time()), status=201)

    async def _list(self, request: web.Request) -> web.Response:
        everything = request.query.get("all", "0").lower() in ("1", "true")
        filters = read_filters(request.query.get("filters"))
        return web.json_response(self.world.containers.list(everything, filters))

    async def _inspect(self, request: web.Request, which: str) -> web.Response:
        info = self.world.containers.find(which)
        return web.json_response({k: v for k, v in info.items() if not k.startswith("_")})

    async def _logs(self, request: web.Request, which: str) -> web.Response:
        info = self.world.containers.find(which)
        text = self.world.containers.logs[info["Id"]]
        # one frame of Docker's multiplexed stream: stdout, three zeros, length
        frame = b"\x01\0\0\0" + len(text).to_bytes(4, "big") + text if text else b""
        kind = "application/vnd.docker.multiplexed-stream"
        return web.Response(body=frame, content_type=kind)

    async def _start(self, request: web.Request, which: str) -> web.Response:
        return web.Response(status=204 if self.world.containers.start(which) else 304)

    async def _stop(self, request: web.Request, which: str) -> web.Response:
        containers = self.world.containers
        info = containers.find(which)
        if info["State"]["Status"] not in ("running", "paused"):
            return web.Response(status=304)
        containers.tell("kill", info["Id"], signal=15)
        if "STUB_IGNORE_TERM=1" in info["Config"]["Env"]:
            await asyncio.sleep(float(request.query.get("t", 10)))
            containers.end(info["Id"], 137)
        else:
            containers.end(info["Id"], 0)
        containers.tell("stop", info["Id"])
        return web.Response(status=204)

    async def _kill(self, request: web.Request, which: str) -> web.Response:
        containers = self.world.containers
        try:
            info = containers.find(which)
            if info["State"]["Status"] not in ("running", "paused"):
                raise Refused(409, f"container {info['Id']} is not running")
        except Refused as no:
            raise Refused(no.status, f"cannot kill container: {which}: {no.message}") from no
        containers.tell("kill", info["Id"], signal=9)
        containers.end(info["Id"], 137)
        return web.Response(status=204)

    async def _pause(self, request: web.Request, which: str, verb: str) -> web.Response:
        self.world.containers.pause(which, verb == "pause")
        return web.Response(status=204)

    async def _remove(self, request: web.Request, which: str) -> web.Response:
        truths = ("1", "true", "True")
        force, volumes = (request.query.get(name, "0") in truths for name in ("force", "v"))
        world = self.world
        info = world.containers.begin_removal(which, force)
        await asyncio.sleep(world.removal)
        world.containers.forget(info, volumes)
        return web.Response(status=204)

    # -- images ----------------------------------------------------------------------------

    async def _image(self, request: web.Request, ref: str) -> web.Response:
        return web.json_response(self.world.containers.image(ref))

    async def _pull(self, request: web.Request) -> web.Response:
        ref = request.query.get("fromImage", "")
        words = f"pull access denied for {ref}, repository does not exist or may require login"
        raise Refused(404, words)

    # -- volumes and networks --------------------------------------------------------------

    async def _volume_create(self, request: web.Request) -> web.Response:
        return web.json_response(self.world.volumes.create(await request.json()), status=201)

    async def _volume_list(self, request: web.Request) -> web.Response:
        filters = read_filters(request.query.get("filters"))
        return web.json_response(self.world.volumes.list(filters))

    async def _volume(self, request: web.Request, name: str) -> web.Response:
        return web.json_response(self.world.volumes.get(name))

    async def _volume_remove(self, request: web.Request, name: str) -> web.Response:
        self.world.volumes.remove(name, request.query.get("force") in ("1", "true", "True"))
        return web.Response(status=204)

    async def _network_create(self, request: web.Request) -> web.Response:
        return web.json_response(self.world.networks.create(await request.json()), status=201)

    async def _network_list(self, request: web.Request) -> web.Response:
        filters = read_filters(request.query.get("filters"))
        return web.json_response(self.world.networks.list(filters))

    async def _network(self, request: web.Request, which: str) -> web.Response:
        return web.json_response(self.world.networks.find(which))

    async def _network_remove(self, request: web.Request, which: str) -> web.Response:
        self.world.networks.remove(which)
        return web.Response(status=204)

    async def _network_join(self, request: web.Request, which: str, verb: str) -> web.Response:
        body = await request.json()
        network = self.world.networks.find(which)
        containers = self.world.containers
        join = containers.connect if verb == "connect" else containers.disconnect
        join(network, str(body.get("Container") or ""))
        return web.Response(status=200)

    # -- for the test ----------------------------------------------------------------------

    async def _control(self, request: web.Request, verb: str) -> web.Response:
        body: dict[str, Any] = await request.json()
        world = self.world
        if verb == "reset":
            world.close()
            self.world = World(self._cdi, self._block)
        elif verb == "die":
            world.containers.end(body["id"], body.get("code", 1), oom=body.get("oom", False))
        elif verb == "log":
            world.containers.logs[world.containers.find(body["id"])["Id"]] = body["text"].encode()
        elif verb == "fault":
            world.faults.arm(body)
        elif verb == "removal":
            world.removal = float(body["seconds"])
        elif verb == "calls":
            return web.json_response(world.calls)
        else:
            raise Refused(404, "page not found")
        return web.json_response({})


async def _before(fault: Fault, request: web.Request) -> None:
    if fault.action == "status":
        raise Refused(fault.status, fault.message)
    if fault.action == "cut":
        _cut(request)
    elif fault.action == "slow":
        await asyncio.sleep(fault.seconds)
    elif fault.action == "hang":
        await asyncio.Event().wait()


async def _after(
    fault: Fault, request: web.Request, response: web.StreamResponse
) -> web.StreamResponse:
    if fault.action == "lost":
        _cut(request)
    elif fault.action == "late":
        await asyncio.sleep(fault.seconds)
    elif fault.action == "broken":
        return web.Response(text='{"Id": "', content_type="application/json")
    return response


def _cut(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()
    raise asyncio.CancelledError


def _line(event: dict[str, Any]) -> bytes:
    return json.dumps(event).encode() + b"\n"


def _in_time(event: dict[str, Any], until: str | None) -> bool:
    return until is None or event["timeNano"] / 1e9 <= float(until)


def _left(until: str | None) -> float | None:
    return None if until is None else float(until) - time.time()
