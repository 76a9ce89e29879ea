"""GPU servers in containers on one Docker engine.

The verbs are DockerSpawner's; what is ours is when they are called and what their answers
prove. The order of a start is the two-phase start of DESIGN: create, record the container's id
with the lease, start that id. The order of a stop is: store the intent, stop, read how it
ended, remove, report. Each step may be repeated, and a step that was cancelled goes on in its
own task: the Hub gives a cancelled start one second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import docker.errors
from dockerspawner import DockerSpawner
from traitlets import Bool, Float, Integer, TraitError, default, observe, validate

from .client import Granted
from .companions import start_companions, variables
from .docker_spec import limits_of
from .ending import Ending
from .engine import volumes
from .engine.limits import ResourceLimits
from .engine.pool import EnginePool
from .engine.watch import EngineWatch, Follower
from .errors import GPUSpawnerError
from .launch import ContainerVerbs, Launch
from .live_server import LiveServer
from .profiles import Companion, ResolvedProfile
from .pulling import have_image, have_others
from .refusal import refusal
from .spawner import GPUSpawnerMixin
from .storage_traits import StorageTraits
from .user_network import UserNetworkTraits
from .warned import WarningTraits

T = TypeVar("T")

#: seconds until a launch that did not hear its cancel is cancelled again
CANCEL_AGAIN = 0.2

_pools: dict[str, EnginePool] = {}
_watches: dict[tuple[int, str], EngineWatch] = {}


class GPUDockerSpawner(
    UserNetworkTraits,
    StorageTraits,
    WarningTraits,
    GPUSpawnerMixin,
    ContainerVerbs,
    DockerSpawner,
):
    """Start each server with exactly the GPUs that the scheduler leased to it."""

    #: the engine's id of the container; empty = none
    object_id: str

    engine_threads = Integer(
        8,
        min=1,
        config=True,
        help="""
        Calls to Docker at the same time, for all users together.

        A whole number of threads, each with a connection of its own; calls for one server never
        overlap. More helps when many servers start at once. As many as the Hub's machine has
        cores (at least two) may make and start containers.

        .. versionadded:: 0.1
        """,
    )

    stop_grace = Integer(
        10,
        min=0,
        config=True,
        help="""
        Seconds a server gets to end by itself before it is killed.

        0 = killed at once. Give more where notebooks write large files at the end.

        .. versionadded:: 0.1
        """,
    )

    engine_timeout = Float(
        60.0,
        min=1.0,
        config=True,
        help="""
        Seconds Docker may be silent during a call.

        Past it nothing is known about the call's effect, and nothing is given back.

        .. versionadded:: 0.1
        """,
    )

    drop_capabilities = Bool(
        True,
        config=True,
        help="""
        Whether servers run without any kernel capability and can't gain privileges.

        True suits images that run as a normal user, such as ours. Set it to False for images
        that start as root to change the user.

        .. versionadded:: 0.1
        """,
    )

    # DockerSpawner's defaults that a lease can't live with

    @default("remove")
    def _default_remove(self) -> bool:
        return True

    @validate("remove")
    def _always_removed(self, proposal: Any) -> bool:
        if not proposal.value:
            raise TraitError(
                "remove=False would start a server again with GPUs that are somebody else's by "
                "then; want True: a stopped container is always removed (files are in volumes)"
            )
        return True

    @default("use_internal_ip")
    def _internal(self) -> bool:
        return True

    @default("object_name")
    def _our_name(self) -> str:
        return volumes.container_name(self.user.name, self.name, self.hub_name)

    @observe("image")
    def _image_changed(self, change: Any) -> None:
        """The name does not depend on the image."""

    def __init__(self, **kwargs: Any) -> None:
        #: clean-up of a start that was cancelled
        self._abandoned: asyncio.Task[None] | None = None
        self.ending = Ending(self)
        super().__init__(**kwargs)

    # -- the engine ------------------------------------------------------------------------

    @property
    def pool(self) -> EnginePool:
        """Threads to the engine, shared by all servers of this Hub."""
        options = dict(self.client_kwargs)
        if self.tls_config:
            options["tls"] = dict(self.tls_config)
        key = repr((sorted(options.items()), self.engine_threads, self.engine_timeout))
        if key not in _pools:
            _pools[key] = EnginePool(
                None, size=self.engine_threads, timeout=self.engine_timeout, options=options
            )
        return _pools[key]

    async def engine(self, call: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """``call(client, …)`` in the pool, in turn with the other calls for this server."""
        return await self.pool.run(
            self.object_name, lambda client: call(client, *args, **kwargs), timeout=self.patience
        )

    @property
    def patience(self) -> float:
        """Seconds to wait for one call, its turn included."""
        return 2 * self.engine_timeout + self.stop_grace

    async def docker(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """DockerSpawner's way to the engine, through our pool."""
        return await self.engine(lambda client: getattr(client.api, method)(*args, **kwargs))

    def _watch(self, ledger: str) -> EngineWatch:
        key = (id(self.pool), ledger)
        if key not in _watches:
            _watches[key] = EngineWatch(self.pool, ledger)
        _watches[key].start()
        return _watches[key]

    # -- before the lease ------------------------------------------------------------------

    async def prepare(self, resolved: ResolvedProfile) -> None:
        """Check the limits, and have the image on the engine before a GPU is taken."""
        self.kernel_limits = limits_of(resolved)
        self._image_command = await have_image(self)
        self.companions = dict(resolved.companions)
        await have_others(self, (one.image for one in self.companions.values()))

    #: what the profile starts beside the server, by name
    companions: Mapping[str, Companion] = MappingProxyType({})

    #: the image's own command, seen when it was looked for; None = ask the engine
    _image_command: list[str] | None = None

    async def get_command(self) -> list[str]:
        """The server's command line: ``cmd``, else the image's, and the arguments."""
        if self.cmd or self._image_command is None:
            command: list[str] = await super().get_command()
            return command
        return [*self._image_command, *self.get_args()]

    # -- start -----------------------------------------------------------------------------

    async def start(self) -> str:
        """Create, bind, start and probe. Returns the server's URL."""
        try:
            launch = self.own(self.launched())
            self.live_server()
            return await asyncio.shield(launch)
        except asyncio.CancelledError:
            self._abandoned = self.own(self._abandon(launch))
            self.forget_server()
            raise
        except GPUSpawnerError as error:
            self.say(100, error.user_message)
            raise refusal(self, error) from error

    async def launched(self) -> str:
        """One start to its end; the server's URL."""
        return await Launch(self, self.granted()).run()

    async def _abandon(self, launch: asyncio.Task[str]) -> None:
        """End a start that nobody waits for any more, and leave nothing behind."""
        while not launch.done():
            # again and again: before Python 3.12, wait_for drops a cancel that comes together
            # with the result. A launch that cleans up already is not disturbed by it.
            launch.cancel()
            await asyncio.wait([launch], timeout=CANCEL_AGAIN)
        if not launch.cancelled():
            launch.exception()  # looked at; it was told to nobody
        if self.object_id:
            # it had come up in the same moment
            await self.stop()

    #: what the kernel enforces for this server; None = not known (yet)
    kernel_limits: ResourceLimits | None = None

    def get_env(self) -> dict[str, Any]:
        """The server's environment: also where its companions are."""
        return {**super().get_env(), **variables(self.companions, self.name)}

    async def start_companions(self, granted: Granted) -> None:
        """Start what the profile has beside the server. Never raises."""
        await start_companions(self, granted)

    # -- stop ------------------------------------------------------------------------------

    async def stop(self, now: bool = False) -> None:
        """Store the intent, stop, remove, report. Also works while the scheduler is down."""
        if self._abandoned is not None and self._abandoned is not asyncio.current_task():
            # whatever became of it: what it left is stopped here
            await asyncio.wait([self._abandoned])
        if self.object_id:
            await self.ending.stop(0 if now else self.stop_grace)

    # -- poll ------------------------------------------------------------------------------

    async def poll(self) -> int | str | None:
        """None = it runs, or nothing is known. Never raises: the Hub would forget the server."""
        if self._check_pending:
            self.live_server(runs_already=True)
            await self.rejoin(self.object_id)
        try:
            return await self._poll()
        except (GPUSpawnerError, docker.errors.DockerException, OSError) as error:
            self.log.warning("%s: poll: nothing is known: %s", self._log_name, error)
        except Exception:
            self.log.exception("%s: poll: nothing is known", self._log_name)
        return None

    async def _poll(self) -> int | str | None:
        if self._is_ending():
            return None
        if not self.object_id and not await self._find_again():
            return 0
        container_id = self.object_id
        seen = None
        if not self._ledger_id or not self._watch(self._ledger_id).is_live(container_id):
            seen = await self.engine(self.verbs.observe, container_id)
            if self._is_ending():
                return None
            if self.object_id != container_id:
                return 0
            if seen is None or (seen.started and not seen.live):
                return await self.ending.died(container_id, seen)
        if self._ledger_id and not self._start_pending and (seen is None or seen.live):
            self.follow(container_id)
        return None

    def _is_ending(self) -> bool:  # a stop or a clean-up is at work: nothing can be said yet
        return self.ending.stopping or (self._abandoned is not None and not self._abandoned.done())

    async def _find_again(self) -> bool:
        """After a Hub that died in mid-start: is there a running container of this server?

        Its id was not saved. An engine that does not answer counts as no: saying "it runs"
        would make the Hub wait for it and then stop it.
        """
        if not self._check_pending:
            return False
        try:
            found = await self.engine(self.verbs.name_taken, self.object_name)
        except GPUSpawnerError as error:
            self.log.warning("%s: can't look for its container: %s", self._log_name, error)
            return False
        who = found.identity if found is not None else None
        if found is None or who is None or not found.live:
            return False
        if (who.user, who.server) != (self.user.name, self.name):
            return False
        self.log.info("%s: found again: container %s", self._log_name, found.container_id[:12])
        self.object_id, self._lease_id = found.container_id, who.lease
        self._ledger_id = who.ledger
        return True

    def if_away(self, finished_at: str, tell: Callable[[], None]) -> None:
        """Call ``tell`` if the engine was down at that time, or turns out to have been."""
        if self._ledger_id:
            self._watch(self._ledger_id).if_away(finished_at, tell)

    def live_server(self, *, runs_already: bool = False) -> None:
        """Let the Hub's wait for the server's answer end with its container, or not begin."""
        server = self.server
        if isinstance(server, LiveServer) and server.ended is self.container_ended:
            server.runs_already = runs_already  # the Hub may wait on this very object
        elif server is not None and server.orm_server is not None:
            self.container_ended = asyncio.get_running_loop().create_future()
            self._server = LiveServer(
                orm_server=server.orm_server,
                ended=self.container_ended,
                runs_already=runs_already,
            )

    #: its result is the user's words for the end of the container
    container_ended: asyncio.Future[str] | None = None

    def unfollow(self, container_id: str) -> None:
        """The end of the container is nobody's news any more."""
        if self._ledger_id:
            self._watch(self._ledger_id).unfollow(container_id)

    def follow(self, container_id: str, follower: Follower | None = None) -> None:
        """Call ``follower`` once when the container ends; None = have the Hub notice it."""
        self._watch(self._ledger_id).follow(container_id, follower or self._tell_the_hub)
        if follower is None:
            self.ask_for_activity()
            self.listen_for_warnings()

    async def _tell_the_hub(self) -> None:
        """The container ended: read how at once, and let the Hub know as soon as it can hear."""
        await self.poll()
        if self._spawn_pending and self._spawn_future is not None:
            # the Hub listens from the end of a start on; told before, it would never know
            await asyncio.wait([self._spawn_future])
        await self.poll_and_notify()

    def sees_alive(self, container_id: str) -> bool:
        """Whether the engine's events say that the container runs."""
        return self._watch(self._ledger_id).is_live(container_id) is True

    # -- state -----------------------------------------------------------------------------

    _saved_ledger = ""

    @property
    def _ledger_id(self) -> str:
        return self._granted.ledger if self._granted is not None else self._saved_ledger

    @_ledger_id.setter
    def _ledger_id(self, ledger: str) -> None:
        self._saved_ledger = ledger

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back the container's id, its ledger and its memory limit."""
        super().load_state(state)
        self._saved_ledger = str(state.get("ledger") or "")
        memory = state.get("mem_limit")
        self.kernel_limits = ResourceLimits(mem_limit=memory) if isinstance(memory, int) else None

    def get_state(self) -> dict[str, Any]:
        """What finds the server again after a restart of the Hub."""
        state = super().get_state()
        if self.object_id:
            state["ledger"] = self._ledger_id
            state["mem_limit"] = self.kernel_limits.mem_limit if self.kernel_limits else None
        return state

    def clear_state(self) -> None:
        """Forget the container."""
        super().clear_state()
        self.object_id = ""
        self._saved_ledger = ""
        self.container_ended = None
