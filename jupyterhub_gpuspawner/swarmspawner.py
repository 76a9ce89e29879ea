"""GPU servers as services of a Docker Swarm: one scheduler over many machines.

The order of a start and of an end is :class:`~.dockerspawner.GPUDockerSpawner`'s; a server is a
Swarm service with one task, made, scaled and ended by :mod:`.engine.services`. Talks to a
*manager* of the Swarm only. Nothing of the stock ``SwarmSpawner`` is used: it waits for rejected
tasks, takes tasks that are about to run for ended ones, and has Swarm start ended ones again.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from traitlets import TraitError, default, validate

from .client import Ask, Granted
from .docker_spec import limits_of
from .dockerspawner import GPUDockerSpawner
from .engine import service_spec, services
from .engine.service_spec import ServiceSpec
from .engine.service_watch import SwarmWatch
from .engine.services import Progress
from .errors import (
    ConfigError,
    DeviceMissing,
    EngineError,
    GPUSpawnerError,
    ImageMissing,
    MountMissing,
    RefusedError,
    ServerDied,
)
from .profiles import ResolvedProfile
from .scheduler.models import Reason
from .swarm_spec import build_spec, mounts_of, node_of_volumes
from .swarm_traits import SwarmTraits

#: seconds between two looks at a task that starts
LOOK_PAUSE = 0.1
#: seconds that Swarm may find no suitable node: it hears a moment late that a GPU is free
NO_NODE_PATIENCE = 1.0
#: seconds to wait for a lease on another node
ELSEWHERE_PATIENCE = 30.0
#: seconds between two lists of all services
LIST_INTERVAL = 5.0
#: the command of an image, where the Hub has arguments for it
SERVER_COMMAND = "jupyterhub-singleuser"

_watches: dict[tuple[int, str], SwarmWatch] = {}


class GPUSwarmSpawner(SwarmTraits, GPUDockerSpawner):
    """Start each server as a Swarm service with exactly the GPUs that were leased to it.

    Takes the options of ``GPUDockerSpawner`` too, but those that a service has nothing for
    (``extra_create_kwargs``, ``extra_host_config``, ``links``) are refused.
    """

    verbs = services

    @validate("delete_homes")
    def _homes_stay(self, proposal: Any) -> bool:
        if proposal.value:
            raise TraitError(
                "delete_homes=True: homes are volumes of the nodes, which the Hub can't reach; "
                "remove them there"
            )
        return False

    @default("network_name")
    def _overlay(self) -> str:
        return "gpus"

    @default("user_networks")
    def _one_network(self) -> bool:
        return False

    async def user_network(self, ledger: str) -> str | None:
        """None: all servers share the overlay network."""
        return None

    # -- before the lease ------------------------------------------------------------------

    async def prepare(self, resolved: ResolvedProfile) -> None:
        """Check what a service can't have. Images are the nodes' own: Swarm has them pull."""
        self.kernel_limits = limits_of(resolved)
        self._image_command = None
        if resolved.companions:
            raise ConfigError(
                f"profile {resolved.slug}: companions: a Swarm has none; remove them",
                "This Hub is not set up right. Please tell an administrator.",
            )
        for name in ("extra_create_kwargs", "extra_host_config", "links"):
            if getattr(self, name):
                raise ConfigError(
                    f"{type(self).__name__}.{name}: a Swarm service has nothing like it; remove it",
                    "This Hub is not set up right. Please tell an administrator.",
                )
        self.only_node = await node_of_volumes(self)
        if self.only_node is not None:
            self.say(5, f"Your files are on {self.only_node}: your server has to start there")
            if resolved.node not in (None, self.only_node):
                raise RefusedError(
                    f"{self._log_name}: profile {resolved.slug} is for {resolved.node}, the "
                    f"volumes are on {self.only_node}",
                    f"Your files are on {self.only_node}, and this choice is for {resolved.node}.",
                    reason=Reason.NODE_OTHER.value,
                )

    #: name of the only node that has the volumes of this start; None = any node will do
    only_node: str | None = None

    def ask_for(self, resolved: ResolvedProfile) -> Ask:
        """What the scheduler is asked for: also the node that has the volumes."""
        ask = super().ask_for(resolved)
        if self.only_node is None:
            return ask
        return replace(ask, request=replace(ask.request, node=self.only_node))

    async def get_command(self) -> list[str]:
        """The server's command line; empty = the image's own."""
        arguments = self.get_args()
        if self.cmd:
            return [*self.cmd, *arguments]
        return [SERVER_COMMAND, *arguments] if arguments else []

    async def build_spec(self, granted: Granted) -> ServiceSpec:  # type: ignore[override]
        """The service for a lease."""
        return await build_spec(self, granted, self.kernel_limits)

    # -- start -----------------------------------------------------------------------------

    async def launched(self) -> str:
        """One start to its end; where the node lacked an image or a mount, one on another node.

        By then nothing of the first is left, or the scheduler still waits for the proof: it
        grants the second only once the first lease is over.
        """
        try:
            return await super().launched()
        except (ImageMissing, MountMissing) as error:
            if not await self._leased_elsewhere(error):
                raise
        return await super().launched()

    async def _leased_elsewhere(self, error: EngineError) -> bool:
        """Get a lease on another node than the first; False where there is none soon."""
        first = self.granted()
        assert self._resolved is not None
        ask = self.ask_for(self._resolved)
        if ask.request.node is not None or self._tied:
            return False  # no other will do
        self.log.warning("%s: not on %s: %s", self._log_name, first.node, error)
        self.say(35, f"{first.node} lacks what your server needs; another machine is tried")
        ask = replace(ask, request=replace(ask.request, not_node=first.node))
        try:
            await asyncio.wait_for(self._wait_for_lease(ask), ELSEWHERE_PATIENCE)
        except (GPUSpawnerError, asyncio.TimeoutError) as why:
            self.log.info("%s: no other node: %s", self._log_name, why or "none is free")
        except asyncio.CancelledError:
            if self._granted is not first:
                self._give_back()
            raise
        return self._granted is not first

    @property
    def _tied(self) -> bool:
        """Whether the first start has put volumes on its node for good."""
        mounts = mounts_of(self, self._ledger_id)
        return self.local_volumes == "tie" and bool(service_spec.node_bound(mounts))

    async def await_started(self, container_id: str) -> None:
        """Return when the task runs, with exactly the leased devices.

        Raises
        ------
        ServerDied, ImageMissing, EngineError
            It does not run; with Swarm's own words.
        DeviceMissing
            Swarm gave it other devices. It is removed again; the lease stays what it is.
        """
        loop = asyncio.get_running_loop()
        said, patience = "", 0.0
        while True:
            seen = await self._progress_of(container_id)
            if seen.state == "running":
                return self._check_devices(seen)
            if seen.over:
                raise await self._not_started(container_id, seen)
            if seen.state == "pending" and seen.words:
                patience = patience or loop.time() + NO_NODE_PATIENCE
                if loop.time() > patience:
                    raise self._refused(seen)
            if seen.state != said:
                said = seen.state
                self.say(60, f"Docker Swarm: {said}")
            await asyncio.sleep(LOOK_PAUSE)

    async def _progress_of(self, service_id: str) -> Progress:
        return await self.engine(services.progress, service_id, self.network_name)

    def _check_devices(self, seen: Progress) -> None:
        leased = sorted(device.id for device in self.granted().devices)
        if sorted(seen.assigned) != leased:
            raise DeviceMissing(
                f"{self._log_name}: Swarm assigned {', '.join(seen.assigned) or 'nothing'}, the "
                f"lease has {', '.join(leased) or 'nothing'}; the new task is removed",
                "Docker Swarm gave your server other GPUs than it was granted. Please tell an "
                "administrator.",
            )

    async def _not_started(self, service_id: str, seen: Progress) -> EngineError:
        if seen.state in ("complete", "failed", "shutdown") and not seen.lacks:
            report = await self.engine(services.exit_report, service_id)
            if report is None or report.exit_code is not None:
                return self.ending.death(report)
        return self._refused(seen)

    def _refused(self, seen: Progress) -> EngineError:
        words = seen.words or "no reason given"
        log = f"{self._log_name}: task {seen.state}: {words}"
        user = f"Docker Swarm can't start your server ({seen.state}): {words}"
        if seen.over and seen.lacks:
            return (ImageMissing if seen.lacks == "image" else MountMissing)(log, user)
        return ServerDied(log, user) if seen.over else EngineError(log, user)

    async def get_ip_and_port(self) -> tuple[str, int]:
        """The task's address on the overlay network, and the server's port."""
        seen = await self._progress_of(self.object_id)
        if not seen.address:
            raise EngineError(
                f"{self._log_name}: its task has no address on network {self.network_name}",
                "Your server has no address. Start it again.",
            )
        return seen.address, self.port

    # -- while it runs -----------------------------------------------------------------------

    def _watch(self, ledger: str) -> SwarmWatch:
        key = (id(self.pool), ledger)
        if key not in _watches:
            _watches[key] = SwarmWatch(self.pool, ledger, interval=LIST_INTERVAL)
        _watches[key].start()
        return _watches[key]
