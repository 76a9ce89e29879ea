"""What the service asks of the engine, each as one call in the pool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

import docker
import docker.errors

from ..engine import labels
from ..engine.companions import CompanionSeen, list_companions, remove_companion
from ..engine.containers import remove, stop
from ..engine.faults import says_gone
from ..engine.homes import Home, list_homes
from ..engine.networks import UserNetwork, list_networks, remove_network
from ..engine.observe import Observation, from_inspect, observe, observe_all
from ..engine.owner import claim_engine
from ..engine.pool import EnginePool
from ..engine.usage import Sample, sample
from ..scheduler.models import GPURequest

#: seconds a look may take, its turn included
LOOK_LIMIT = 30.0
#: seconds for the first question of a comparison: an engine that is well answers it at once
CLAIM_LIMIT = 10.0
#: seconds for a look at what a container uses
USAGE_LIMIT = 5.0
#: seconds in which all volumes have to be measured
MEASURE_LIMIT = 1800.0
#: containers of others whose configuration is remembered
_REMEMBERED = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """One full look at the engine."""

    #: our containers, running or not
    ours: tuple[Observation, ...]
    #: running containers of anybody else
    others: tuple[Observation, ...]


class WorldView(Protocol):
    """What reconcile asks of the world, whatever a server is made of.

    An id is a container's, or on Swarm a service's. Errors are those of the pool; an error never
    means "gone".
    """

    async def claim(self) -> tuple[Mapping[str, Any], str]:
        """Claim it for the ledger; Docker's ``/info`` and the API version it was asked with."""
        ...

    async def look(self) -> Seen:
        """Everything of ours, and what others use."""
        ...

    async def look_at(self, container_id: str) -> Observation | None:
        """One of ours; None = proof that it is gone."""
        ...

    async def limits(self, container_id: str, devices: int) -> GPURequest:
        """What one that is to be adopted was given."""
        ...

    async def remove(self, container_id: str) -> None:
        """Stop and remove one whose lease says that it shall go."""
        ...

    async def discard(self, container_id: str) -> None:
        """Remove one that does not run. Refused if it does."""
        ...


class EngineView:
    """Everything the service does with Docker. Errors are those of the pool.

    Parameters
    ----------
    pool:
        Threads with a client each.
    ledger:
        Id of the ledger whose containers are ours.
    stop_grace:
        Seconds a container gets before it is killed.
    exclusive:
        Whether the engine must belong to this ledger alone.
    """

    def __init__(
        self, pool: EnginePool, ledger: str, stop_grace: float, *, exclusive: bool = True
    ) -> None:
        self._pool = pool
        self._exclusive = exclusive
        self._ledger = ledger
        self._stop_grace = max(int(stop_grace), 1)
        self._strangers: dict[str, Observation] = {}

    async def claim(self) -> tuple[Mapping[str, Any], str]:
        """Claim the engine; Docker's ``/info`` and the API version it was asked with."""

        def work(client: docker.DockerClient) -> tuple[Mapping[str, Any], str]:
            if self._exclusive:
                claim_engine(client, self._ledger)
            info = cast("Mapping[str, Any]", client.api.info())
            return info, str(client.api._version)

        return await self._pool.run("claim", work, CLAIM_LIMIT)

    async def look(self) -> Seen:
        """All our containers, and the running ones of others."""
        return await self._pool.run("look", self._look, LOOK_LIMIT)

    async def look_at(self, container_id: str) -> Observation | None:
        """One container; None = the engine says that there is no such container."""
        return await self._pool.run(
            _key(container_id), lambda client: observe(client, container_id), LOOK_LIMIT
        )

    async def limits(self, container_id: str, devices: int) -> GPURequest:
        """What a container that is to be adopted was given."""

        def work(client: docker.DockerClient) -> GPURequest:
            info = cast("dict[str, Any]", client.api.inspect_container(container_id))
            host: Mapping[str, Any] = info.get("HostConfig") or {}
            period = int(host.get("CpuPeriod") or 0) or 100_000
            cpu = int(host.get("CpuQuota") or 0) / period or int(host.get("NanoCpus") or 0) / 1e9
            memory = int(host.get("Memory") or 0)
            return GPURequest(count=devices, memory=max(memory, 0), cpu=max(cpu, 0.0))

        return await self._pool.run(_key(container_id), work, LOOK_LIMIT)

    async def remove(self, container_id: str) -> None:
        """Stop and remove a container whose lease says that it shall go."""
        grace = self._stop_grace

        def work(client: docker.DockerClient) -> None:
            stop(client, container_id, grace)
            remove(client, container_id)

        await self._pool.run(_key(container_id), work, grace + 2 * LOOK_LIMIT)

    async def discard(self, container_id: str) -> None:
        """Remove a container that does not run. Docker refuses if it does."""

        def work(client: docker.DockerClient) -> None:
            try:
                client.api.remove_container(container_id, v=True, force=False)
            except docker.errors.NotFound as error:
                if not says_gone(error):
                    raise

        await self._pool.run(_key(container_id), work, LOOK_LIMIT)

    async def usage(self, container_id: str) -> Sample | None:
        """What a container uses now; None = it does not run."""
        return await self._pool.run(
            "usage", lambda client: sample(client, container_id), USAGE_LIMIT
        )

    async def homes(self) -> list[Home]:
        """The homes of this installation, measured: minutes where there are many files."""

        def work(client: docker.DockerClient) -> list[Home]:
            found = list_homes(client, MEASURE_LIMIT)
            return [home for home in found if home.ledger == self._ledger]

        return await self._pool.run("homes", work, MEASURE_LIMIT)

    async def networks(self) -> tuple[UserNetwork, ...]:
        """The users' networks."""
        return await self._pool.run(
            "networks", lambda client: list_networks(client, self._ledger), LOOK_LIMIT
        )

    async def companions(self) -> tuple[CompanionSeen, ...]:
        """What stands beside servers."""
        return await self._pool.run(
            "companions", lambda client: list_companions(client, self._ledger), LOOK_LIMIT
        )

    async def remove_companion(self, container_id: str) -> None:
        """Stop and remove a companion."""
        grace = self._stop_grace
        await self._pool.run(
            _key(container_id),
            lambda client: remove_companion(client, container_id, grace),
            grace + 2 * LOOK_LIMIT,
        )

    async def remove_network(self, network_id: str) -> bool:
        """Remove a user's network; False = it is in use after all."""
        return await self._pool.run(
            f"network {network_id[:12]}",
            lambda client: remove_network(client, network_id),
            LOOK_LIMIT,
        )

    def _look(self, client: docker.DockerClient) -> Seen:
        ours = tuple(observe_all(client, self._ledger))
        known = {container.container_id for container in ours}
        rows = cast("list[dict[str, Any]]", client.api.containers())
        strangers: dict[str, Observation] = {}
        for row in rows:
            container_id = str(row["Id"])
            if container_id in known or len(strangers) >= _REMEMBERED:
                continue
            if (row.get("Labels") or {}).get(labels.LEDGER) == self._ledger:
                continue  # ours, and younger than the first list
            # what a container was given never changes, so one look at each is enough
            seen = self._strangers.get(container_id) or _stranger(client, container_id)
            if seen is not None:
                strangers[container_id] = seen
        self._strangers = strangers
        return Seen(ours=ours, others=tuple(strangers.values()))


def _stranger(client: docker.DockerClient, container_id: str) -> Observation | None:
    try:
        return from_inspect(cast("dict[str, Any]", client.api.inspect_container(container_id)))
    except docker.errors.NotFound:
        return None


def _key(container_id: str) -> str:
    return f"container {container_id[:12]}"
