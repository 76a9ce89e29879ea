"""What the service asks of a Swarm's manager; the counterpart of ``engine_view`` for services.

The recorded id of a lease is its service's. That the service is gone proves little: ``service
rm`` returns before the container is gone, and a node that is cut off may still run it.
:func:`proven` says what does prove it.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import docker
import docker.errors

from ..engine import labels, pulls, services, tasks
from ..engine.observe import Observation, seconds
from ..engine.pool import EnginePool
from ..engine.pulls import Pull
from ..engine.swarm_owner import claim_swarm
from ..scheduler.models import GPURequest
from ..swarm_nodes import named
from .engine_view import CLAIM_LIMIT, LOOK_LIMIT, Seen

#: seconds after which Swarm gives up the tasks of a node that is down ("orphaned": it forgets
#: them without a word from the node), less one hour for clocks
FORGETS_AFTER = 23 * 3600.0
#: seconds that the clocks of manager and scheduler may differ
SKEW = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """What the ledger says about the lease of a service."""

    #: name of its node
    node: str
    #: POSIX seconds; the node was up then
    granted_at: float


@dataclass(frozen=True, kw_only=True, slots=True)
class SwarmSeen(Seen):
    """One full look at the Swarm."""

    #: ``/nodes`` with the names that we give them
    nodes: tuple[tuple[Mapping[str, Any], str], ...] = ()
    #: ids of the containers of our servers, on all nodes
    containers: frozenset[str] = frozenset()
    #: image -> names of nodes that have it, and how far each node is with one that is pulled
    images: Mapping[str, frozenset[str]] = field(default_factory=dict)
    pulls: Mapping[str, tuple[Pull, ...]] = field(default_factory=dict)


def proven(
    node: Mapping[str, Any] | None,
    left: Sequence[Mapping[str, Any]],
    held: Held,
    sighted: float,
    now: float,
) -> bool:
    """Whether a service that is gone has no container any more. Pure.

    Swarm deletes a task whose service is gone in three cases: its node reported the end; the
    node was down for 24 h; the node was removed from the Swarm. Only the first is proof. So the
    other two have to be ruled out: the node is the same member as at the grant, it is ready, and
    since a moment at which it was ready and the service was there it was never down, or not long
    enough.

    Parameters
    ----------
    node:
        The node of that name now; None = there is none.
    left:
        The service's tasks that the manager still knows.
    held:
        The lease.
    sighted:
        When the service was last seen with its node ready; 0.0 = never by this process.
    """
    if node is None or not tasks.is_ready(node) or not all(map(tasks.is_final, left)):
        return False
    if seconds(node.get("CreatedAt")) > held.granted_at:
        return False
    witness = max(held.granted_at, sighted)
    never_down = seconds(node.get("UpdatedAt")) + SKEW <= witness
    return never_down or now - witness < FORGETS_AFTER


class SwarmView:
    """Everything the service does with a Swarm's manager. Errors are those of the pool.

    Parameters
    ----------
    pool:
        Threads with a client each.
    ledger:
        Id of the ledger whose services are ours.
    stop_grace:
        Seconds a stop is given beyond what Swarm needs.
    exclusive:
        Whether the Swarm must belong to this ledger alone.
    """

    def __init__(
        self,
        pool: EnginePool,
        ledger: str,
        stop_grace: float,
        *,
        exclusive: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._pool = pool
        self._ledger = ledger
        self._stop_grace = max(int(stop_grace), 1)
        #: service id -> its live lease; None = no lease has it on record
        self.recall: Callable[[str], Awaitable[Held | None]] = _nobody
        self._exclusive = exclusive
        self._clock = clock
        #: service id -> when it was last seen with its node ready
        self._sighted: dict[str, float] = {}

    async def claim(self) -> tuple[Mapping[str, Any], str]:
        """Claim the Swarm; Docker's ``/info`` and the API version it was asked with."""

        def work(client: docker.DockerClient) -> tuple[Mapping[str, Any], str]:
            if self._exclusive:
                return claim_swarm(client, self._ledger), str(client.api._version)
            return cast("Mapping[str, Any]", client.api.info()), str(client.api._version)

        return await self._pool.run("claim", work, CLAIM_LIMIT)

    async def look(self) -> SwarmSeen:
        """All our services, and tasks of others that hold generic resources."""
        asked = self._clock()
        seen = await self._pool.run("look", self._look, LOOK_LIMIT)
        # of a service that is gone the moment counts until its lease is over
        self._sighted.update(
            {one.container_id: asked for one in seen.ours if one.certain and one.node}
        )
        return seen

    def forget(self, kept: frozenset[str]) -> None:
        """Keep the moments of these services only."""
        self._sighted = {id: when for id, when in self._sighted.items() if id in kept}

    async def look_at(self, container_id: str) -> Observation | None:
        """One service; None = it is proven gone with its container."""
        held = await self.recall(container_id)

        def work(client: docker.DockerClient) -> Observation | None:
            nodes = named(services.all_nodes(client))
            seen = services.observe(client, container_id)
            if seen is not None:
                return _with_name(seen, _names(nodes))
            left = [t for t in services.all_tasks(client) if t.get("ServiceID") == container_id]
            if held is None:
                return tasks.vanished(container_id) if left else None
            node = next((info for info, name in nodes if name == held.node), None)
            sighted = self._sighted.get(container_id, 0.0)
            if proven(node, left, held, sighted, self._clock()):
                return None
            return tasks.vanished(container_id, held.node)

        return await self._pool.run(_key(container_id), work, LOOK_LIMIT)

    async def limits(self, container_id: str, devices: int) -> GPURequest:
        """What a service that is to be adopted was given."""

        def work(client: docker.DockerClient) -> GPURequest:
            info = cast("dict[str, Any]", client.api.inspect_service(container_id))
            resources = info["Spec"]["TaskTemplate"].get("Resources") or {}
            most: Mapping[str, Any] = resources.get("Limits") or {}
            return GPURequest(
                count=devices,
                memory=int(most.get("MemoryBytes") or 0),
                cpu=int(most.get("NanoCPUs") or 0) / 1e9,
            )

        return await self._pool.run(_key(container_id), work, LOOK_LIMIT)

    async def remove(self, container_id: str) -> None:
        """Stop and remove a service whose lease says that it shall go."""
        grace = self._stop_grace

        def work(client: docker.DockerClient) -> None:
            services.remove(client, container_id, grace)

        limit = grace + services.STOP_EXTRA + 2 * LOOK_LIMIT
        await self._pool.run(_key(container_id), work, limit)

    async def abandon(self, container_id: str) -> None:
        """Remove a service whose node is gone for good. What runs on the node proves nothing."""
        await self._pool.run(
            _key(container_id), lambda client: services.abandon(client, container_id), LOOK_LIMIT
        )

    async def discard(self, container_id: str) -> None:
        """Remove a service that has no task. Refused if it has one."""
        await self._pool.run(
            _key(container_id), lambda client: services.discard(client, container_id), LOOK_LIMIT
        )

    def _look(self, client: docker.DockerClient) -> SwarmSeen:
        survey = services.look_all(client, self._ledger)
        nodes = named(survey.nodes)
        names = _names(nodes)
        ours = [_with_name(one, names) for one in survey.ours]
        known = {one.container_id for one in ours}
        others = [
            _stranger(task, names)
            for task in survey.tasks
            if task.get("ServiceID") not in known
            and tasks.assigned(task)
            and not tasks.is_final(task)
            and not self._is_ours(task)
        ]
        mine = (
            tasks.container_of(task)
            for task in survey.tasks
            if task.get("ServiceID") in known or self._is_ours(task)
        )
        return SwarmSeen(
            ours=tuple(ours),
            others=tuple(others),
            nodes=tuple(nodes),
            containers=frozenset(mine) - {""},
            images=pulls.remembered(client),
            pulls=pulls.going_on(survey.nodes, survey.tasks),
        )

    def _is_ours(self, task: Mapping[str, Any]) -> bool:
        """Of a service of ours that is gone, or younger than the list."""
        container = (task.get("Spec") or {}).get("ContainerSpec") or {}
        return (container.get("Labels") or {}).get(labels.LEDGER) == self._ledger


async def _nobody(service_id: str) -> Held | None:
    return None


def _names(nodes: Sequence[tuple[Mapping[str, Any], str]]) -> dict[str, str]:
    """The Swarm's id of each node -> our name of it."""
    return {str(info["ID"]): name for info, name in nodes}


def _with_name(seen: Observation, names: Mapping[str, str]) -> Observation:
    return replace(seen, node=names.get(seen.node, ""))


def _stranger(task: Mapping[str, Any], names: Mapping[str, str]) -> Observation:
    """A task of somebody else that holds GPUs, as inventory sees a foreign container."""
    return Observation(
        container_id=str(task["ID"]),
        name=f"of service {task.get('ServiceID')}",
        labels={},
        state="running",
        exit_code=None,
        oom=False,
        started=True,
        created_at=seconds(task.get("CreatedAt")),
        device_ids=(),
        injected=tasks.assigned(task),
        node=names.get(str(task.get("NodeID") or ""), ""),
    )


def _key(container_id: str) -> str:
    return f"service {container_id[:12]}"
