"""Compares ledger and Swarm: one manager, many nodes, a service for each server.

The rules are :func:`.reconcile.plan`'s. What the manager says about a node that is not ready is
what it heard last: its leases become uncertain, nothing is released and nothing is stopped.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from ..discovery import swarm, toolkit
from ..discovery.agent_report import combined, doubted
from ..discovery.base import Report
from ..discovery.engine import Plan
from ..discovery.toolkit import Verdict
from ..engine import tasks
from ..engine.observe import Observation
from ..engine.pulls import Pull
from ..scheduler import events
from ..scheduler.lost import is_remnant
from ..scheduler.models import Admin, Lease, NodeState
from ..scheduler.state import SchedulerState
from ..swarm_nodes import kinds_of
from . import inventory as inv
from .actor import Actor
from .agents import Agents
from .engine_view import Seen, WorldView
from .reconciler import Reconciler
from .swarm_view import Held, SwarmSeen, SwarmView

log = logging.getLogger("gpus.reconcile")

#: of a site without agents
NO_AGENTS = Agents("", 1.0, lambda: 0.0)
#: seconds for which the container of a task that is gone counts as ours: its last process may
#: be in a report that is as old
REMEMBERED = 60.0

#: seconds until the next look while a service is gone and its container is not known to be, or
#: an image is pulled
WATCHED = 1.0


class SwarmReconciler(Reconciler):
    """Keeps the leases and services of a whole Swarm in agreement."""

    #: names of the nodes that were ready at the last look
    _ready_nodes: frozenset[str] = frozenset()
    #: the nodes' agents
    agents: Agents = NO_AGENTS
    #: services that are gone without proof
    _vanished: frozenset[str] = frozenset()

    def __init__(self, actor: Actor, engine: WorldView, *others: Any) -> None:
        super().__init__(actor, engine, *others)
        assert isinstance(engine, SwarmView)
        self._view = engine
        #: containers of our servers -> when they were last listed; device -> when last held
        self._containers: dict[str, float] = {}
        self._held: dict[str, float] = {}
        self._known_images: Mapping[str, frozenset[str]] = {}
        engine.recall = self._recall

    async def _recall(self, service_id: str) -> Held | None:
        def look(state: SchedulerState) -> Held | None:
            lease = state.tables.leases.get(state.tables.lease_of_container.get(service_id, ""))
            return Held(node=lease.node, granted_at=lease.granted_at) if lease else None

        return await self._actor.read(look)

    def restart(self) -> None:
        """Also what is not stored is told again."""
        self._known_images = {}
        super().restart()

    # -- what differs ------------------------------------------------------------------------

    def _mine(self, lease: Lease) -> bool:
        return True

    def _home_of(self, container: Observation) -> str:
        return container.node or self._node

    def _nodes(self) -> Iterable[str]:
        return sorted(self._ready_nodes)

    def _until_due(self) -> float:
        going_on = any(state in ("waiting", "pulling") for state in self._pull_states())
        due = WATCHED if self._vanished or going_on else super()._until_due()
        return min(due, self.agents.silence / 2) if self.agents.wanted else due

    def _pull_states(self) -> Iterable[str]:
        return (state for found in self.pulls.values() for _, state in found)

    async def _silence(self) -> None:
        for name in await self._actor.read(lambda state: sorted(state.tables.nodes)):
            await self._actor.post(events.NodeChanged(node=name, state=NodeState.SILENT))

    async def _act(self, seen: tuple[Observation, ...], only: frozenset[str] | None) -> bool:
        lost = await self._actor.read(_lost)
        for one in seen:
            # of no use to anybody: its user may have a server of the same name elsewhere
            if one.container_id in lost and not one.certain and one.state != "removing":
                await self._view.abandon(one.container_id)
        gone = frozenset(one.container_id for one in seen if one.state == "removing") - lost
        self._vanished = gone if only is None else (self._vanished - only) | gone
        return await super()._act(seen, only)

    async def _report(self, info: Mapping[str, Any], version: str, seen: Seen) -> None:
        """Tell the scheduler what each node has; a node that is not ready is silent."""
        assert isinstance(seen, SwarmSeen)
        taken_at = self._clock()
        recorded = await self._actor.read(lambda state: frozenset(state.tables.lease_of_container))
        self._view.forget(recorded | {one.container_id for one in seen.ours})
        listed = {name: node for node, name in seen.nodes}
        ready = {name: node for name, node in listed.items() if tasks.is_ready(node)}
        listed_reports = {name: swarm.report(node, name) for name, node in ready.items()}
        reports, told = self._heard(listed_reports, ready, seen)
        ready = {name: node for name, node in ready.items() if name in reports}
        devices = [device for report in reports.values() for device, _ in report.devices]
        self._inventory.injections = {one.id: swarm.injection(one) for one in devices}
        known = await self._actor.read(_states)
        for name in sorted(known.keys() - ready.keys()):
            if name in self._ready_nodes or known[name] is NodeState.UP:
                why = "its agent is silent" if name in listed_reports else "not ready in the Swarm"
                log.warning("%s: %s; nothing of it is known", name, why)
            await self._actor.post(events.NodeChanged(node=name, state=NodeState.SILENT))
        for name, report in reports.items():
            await self._report_node(report, seen, told.get(name, taken_at))
            await self._follow_admin(name, swarm.admin(ready[name]))
        self._ready_nodes = frozenset(ready)
        await self._images(seen)

    async def _images(self, seen: SwarmSeen) -> None:
        """Tell placement where images are, and pages what is pulled."""
        if seen.images != self._known_images:
            await self._actor.post(events.ImagesSeen(images=seen.images))
            self._known_images = seen.images
        pulls = pulls_of(seen.pulls)
        if pulls != self.pulls:
            self.pulls = pulls
            self.on_change()

    def _heard(
        self, listed: dict[str, Report], ready: Mapping[str, Any], seen: SwarmSeen
    ) -> tuple[dict[str, Report], dict[str, float]]:
        """Reports with what the agents say, and when theirs were taken. Silent nodes have none."""
        now = self._clock()
        self._containers.update(dict.fromkeys(seen.containers, now))
        self._containers = {id: at for id, at in self._containers.items() if now - at < REMEMBERED}
        if not self.agents.wanted:
            return listed, {}
        reports, taken = {}, {}
        verdicts: dict[str, Verdict | None] = {}
        for name, report in listed.items():
            if not report.devices:
                reports[name] = report
                continue
            told = self.agents.latest(str(ready[name]["ID"]))
            if not all(device.simulated for device, _ in report.devices):
                verdicts[name] = None
            if told is None:
                continue
            taken[name], said = told.taken_at, told.message.report
            heard = (
                doubted(report, told.message.error)
                if said is None
                else combined(report, said, frozenset(self._containers))
            )
            if told.message.toolkit is not None:
                verdicts[name] = toolkit.judge(told.message.toolkit, kinds_of(ready[name]).values())
            reports[name] = toolkit.checked(heard, verdicts.get(name))
        self.agents.verdicts = verdicts
        return reports, taken

    async def _report_node(self, report: Report, seen: SwarmSeen, taken_at: float) -> None:
        def make(state: SchedulerState) -> events.NodeReported:
            devices = [device for device, _ in report.devices]
            # one that was held when it was measured may have been in use by its lease
            now = self._clock()
            self._held.update(dict.fromkeys(inv.held(state), now))
            held = frozenset(id for id, at in self._held.items() if at >= taken_at or at == now)
            foreign = inv.foreign_use(
                [*seen.ours, *seen.others], state.tables.leases.values(), devices
            )
            return events.NodeReported(
                node=report.node,
                devices=inv.merged(report, _PLAIN, foreign, held),
                occupied=inv.occupied(report),
                working=inv.working(report),
                taken_at=taken_at,
            )

        await self._actor.post(make)

    async def _follow_admin(self, node: str, admin: Admin) -> None:
        """``docker node update --availability`` is the admin's word about a node."""

        def make(state: SchedulerState) -> events.AdminAsked | None:
            known = state.tables.nodes.get(node)
            if known is None or known.admin is admin:
                return None
            return events.AdminAsked(admin=admin, node=node)

        await self._actor.post(make)


#: no device of a Swarm has a problem that the engine's ``/info`` tells
_PLAIN = Plan(injections={}, problems={})


def pulls_of(jobs: Mapping[str, tuple[Pull, ...]]) -> dict[str, tuple[tuple[str, str], ...]]:
    """Node -> (image, how far it is) of what is not there yet. Pure."""
    found: dict[str, list[tuple[str, str]]] = {}
    for image, pulls in sorted(jobs.items()):
        for one in pulls:
            if one.state != "there":
                found.setdefault(one.node, []).append((image, one.words or one.state))
    return {node: tuple(each) for node, each in found.items()}


def _lost(state: SchedulerState) -> frozenset[str]:
    """Services of nodes that were declared gone."""
    remnants = (lease for lease in state.tables.leases.values() if is_remnant(lease))
    return frozenset(lease.container_id for lease in remnants if lease.container_id)


def _states(state: SchedulerState) -> dict[str, NodeState]:
    return {name: node.state for name, node in state.tables.nodes.items()}
