"""Compares ledger and engine: at the start, on the engine's events, and every interval.

The decisions are :func:`.reconcile.plan`'s; this looks, and does what the plan says.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import docker.errors

from ..engine.events import ContainerEvent, EngineEvents
from ..engine.observe import UNNAMED, Observation
from ..errors import DiscoveryError, EngineConflict, EngineError, EngineUnknown, LedgerError
from ..scheduler import events
from ..scheduler.decisions import Noted
from ..scheduler.models import Lease, NodeState, Reason
from ..scheduler.state import SchedulerState
from . import inventory as inv
from . import reconcile, waiting
from .actor import Actor
from .engine_view import Seen, WorldView
from .identity import key
from .inventory import Inventory, SwarmInventory
from .metrics import Metrics
from .reconcile import Scope
from .removals import Removals
from .words import safe

log = logging.getLogger("gpus.reconcile")

#: seconds until the next try while the engine does not answer, at most the interval
RETRY = 3.0
#: failed looks in a row after which the node counts as silent
PATIENCE = 2
#: seconds in which events are collected before one look
GATHER = 0.05
#: seconds that a stop of the Hub's may take beyond the grace before reconcile does it
HUB_STOP_EXTRA = 20.0


class Reconciler:
    """Keeps one node's leases and containers in agreement."""

    def __init__(
        self,
        actor: Actor,
        engine: WorldView,
        inventory: Inventory | SwarmInventory,
        metrics: Metrics,
        scope: Scope,
        clock: Callable[[], float],
    ) -> None:
        self._actor = actor
        self._engine = engine
        self._inventory = inventory
        self._metrics = metrics
        self._node, self._scope = scope.node, scope
        self._retry = min(RETRY, scope.interval)
        self._clock = clock
        #: our containers that were seen last, by id; the device source asks for them
        self.containers: frozenset[str] = frozenset()
        #: node -> (image, how far it is) of images that an admin has all nodes pull
        self.pulls: Mapping[str, tuple[tuple[str, str], ...]] = {}
        #: ids of running containers in which the kernel killed a process for memory
        self.starved: frozenset[str] = frozenset()
        #: why nothing can be granted on the node; None = all is well
        self.trouble: tuple[Reason, str] | None = (Reason.SCHEDULER_STARTING, "")
        #: called when ``trouble`` changes
        self.on_change: Callable[[], None] = lambda: None
        self._ready = False
        self._failures, self._said = 0, ""
        self._silent = False
        self._ended_since: dict[str, float] = {}
        self._hub_stops: dict[str, float] = {}
        self._warned: set[str] = set()
        self._removals = Removals(actor, engine, metrics, clock, scope.hung_stop)
        self._wake = asyncio.Event()
        self._all = True
        self._some: set[str] = set()

    # -- what others ask for -------------------------------------------------------------

    def nudge(self, container_id: str | None = None) -> None:
        """Look soon: at one container, or (None) at everything."""
        if container_id is None:
            self._all = True
        else:
            self._some.add(container_id)
        self._wake.set()

    def restart(self) -> None:
        """The state was built anew: no node is ready any more."""
        self._ready = False
        self._set_trouble((Reason.SCHEDULER_STARTING, ""))
        self.nudge()

    def hub_stops(self, lease_id: str) -> None:
        """The Hub stops this server itself: leave it to it for a while."""
        limit = self._scope.stop_grace + HUB_STOP_EXTRA
        self._hub_stops[lease_id] = self._clock() + limit

    async def settle(self, lease_id: str, reason: Reason, note: str) -> bool:
        """The Hub says that a server has ended: look, and give back what is proven free.

        True where the lease is over. A server that runs is never stopped by this.
        """
        self._hub_stops.pop(lease_id, None)
        lease = await self._actor.read(lambda state: state.tables.leases.get(lease_id))
        if lease is None:
            return True
        if lease.container_id is None:
            await self._actor.post(events.StopWanted(lease_id=lease_id, reason=reason, note=note))
            return True
        try:
            return await self._settle(lease, lease.container_id, reason, note)
        except EngineError as error:
            self._metrics.engine_errors.inc()
            log.warning("%s: the end is not proven yet: %s", safe(lease.key), error)
            self.nudge(lease.container_id)
            return False

    async def _settle(self, lease: Lease, container_id: str, reason: Reason, note: str) -> bool:
        seen = await self._engine.look_at(container_id)
        if seen is not None and seen.live:
            log.warning("%s: said to have ended, but it runs", safe(lease.key))
            self.nudge(container_id)
            return False
        if seen is not None:
            await self._actor.post(events.StopWanted(lease_id=lease.id, reason=reason, note=note))
            await self._engine.remove(container_id)
        return await self._removals.prove(lease.id, container_id, reason, note)

    # -- the loop ------------------------------------------------------------------------

    async def run(self) -> None:
        """Compare until cancelled."""
        try:
            while True:
                self._wake.clear()
                pause = await self._round()
                if await self._pause(pause):
                    await asyncio.sleep(GATHER)
                else:
                    self._all = True
        finally:
            await self._removals.close()

    async def _round(self) -> float:
        """One comparison; seconds until the next one."""
        every, self._all = self._all, False
        some, self._some = self._some, set()
        try:
            try:
                if every:
                    await self._compare_all()
                elif some:
                    await self._compare(some)
                return self._until_due()
            except EngineError as error:
                await self._engine_failed(error)
            except DiscoveryError as error:
                self._set_trouble((Reason.NODE_NOT_READY, f"The GPUs can't be read: {error}"))
        except LedgerError as error:
            log.warning("%s: not compared: %s", self._node, error)
        self._all = True
        return self._retry

    def _until_due(self) -> float:
        """Seconds until an ended container has to be looked at again; else the interval."""
        now, graces = self._clock(), self._scope.graces
        due = [since + graces.exited - now + GATHER for since in self._ended_since.values()]
        return min((wait for wait in due if wait > 0), default=self._scope.interval)

    async def follow(self, stream: EngineEvents) -> None:
        """Turn the engine's events into looks, until cancelled."""
        async with stream:
            async for item in stream:
                if isinstance(item, ContainerEvent):
                    self.nudge(item.container_id)
                else:
                    self.nudge()

    async def _pause(self, seconds: float) -> bool:
        """Wait for a nudge; False where none came."""
        if not await waiting.happens(self._wake, seconds):
            return False
        if self._failures:
            # events must not turn a failing engine into a busy loop
            await asyncio.sleep(self._retry)
            self._all = True
        return True

    async def _compare_all(self) -> None:
        """One full comparison; afterwards the node takes part in grants."""
        started = time.monotonic()
        info, version = await self._engine.claim()
        seen = await self._engine.look()
        self.containers = frozenset(container.container_id for container in seen.ours)
        self.starved = reconcile.starved(seen.ours)
        self._note_ends(seen.ours)
        await self._report(info, version, seen)
        if await self._act(seen.ours, None):
            self.nudge()  # what was adopted is held now, no longer in foreign use
        self._come_back()
        # each time: the scheduler forgets it when the node shows a new boot id
        for node in self._nodes():
            await self._actor.post(events.NodeReconciled(node=node))
        self._ready = True
        self._set_trouble(None)
        self._metrics.reconcile.observe(time.monotonic() - started)

    async def _compare(self, ids: Iterable[str]) -> None:
        """Compare a few containers."""
        seen = [await self._engine.look_at(container_id) for container_id in sorted(ids)]
        found = tuple(container for container in seen if container is not None)
        self.containers |= {container.container_id for container in found}
        self.starved = self.starved - set(ids) | reconcile.starved(found)
        self._note_ends(found, only=set(ids))
        await self._act(found, frozenset(ids))

    def _come_back(self) -> None:
        self._failures, self._said = 0, ""
        if self._silent:
            self._silent = False
            log.info("%s: Docker answers again", self._node)

    async def _engine_failed(self, error: EngineError) -> None:
        self._failures += 1
        self._metrics.engine_errors.inc()
        foreign = isinstance(error, EngineConflict)
        reason = Reason.ENGINE_NOT_OURS if foreign else Reason.ENGINE_UNAVAILABLE
        if str(error) != self._said and (self._failures == 1 or foreign):
            self._said = str(error)
            log.error("%s: %s", self._node, error)
        # who waits need not try again, as who starts a server would be told
        self._set_trouble((reason, "" if isinstance(error, EngineUnknown) else error.user_message))
        if (foreign or self._failures >= PATIENCE) and not self._silent:
            self._silent = True
            self._ready = False
            await self._silence()

    def _mine(self, lease: Lease) -> bool:
        """Whether the lease's container is to be found here."""
        return lease.node == self._node

    def _nodes(self) -> Iterable[str]:
        """Nodes that were compared."""
        return (self._node,)

    def _home_of(self, container: Observation) -> str:
        """Name of the node that the container is on."""
        return self._node

    async def _silence(self) -> None:
        """Nothing is known any more."""
        await self._actor.post(events.NodeChanged(node=self._node, state=NodeState.SILENT))

    def _set_trouble(self, trouble: tuple[Reason, str] | None) -> None:
        if trouble != self.trouble:
            self.trouble = trouble
            self.on_change()

    # -- devices -------------------------------------------------------------------------

    async def _report(self, info: Mapping[str, Any], version: str, seen: Seen) -> None:
        """Tell the scheduler what devices there are and who else uses them."""
        held_before, taken_at = await self._actor.read(inv.held), self._clock()
        try:
            report, how = await cast(Inventory, self._inventory).look(info, version)
        except DiscoveryError as error:
            why = str(error)
            if why != self._inventory.trouble:
                log.error("%s: %s", self._node, why)
                self._inventory.trouble = why
            told = await self._actor.post_then(
                lambda state: inv.doubtful(state, self._node, why),
                lambda state: self._node in state.tables.nodes,
            )
            if not told:
                raise
            return
        self._inventory.trouble = ""

        def make(state: SchedulerState) -> events.NodeReported:
            held = held_before | inv.held(state)
            devices = [device for device, _ in report.devices]
            foreign = inv.foreign_use(
                [*seen.ours, *seen.others], state.tables.leases.values(), devices
            )
            return events.NodeReported(
                node=report.node,
                devices=inv.merged(report, how, foreign, held),
                occupied=inv.occupied(report),
                working=inv.working(report),
                taken_at=taken_at,
            )

        await self._actor.post(make)

    # -- steps ---------------------------------------------------------------------------

    def _note_ends(self, seen: Iterable[Observation], only: set[str] | None = None) -> None:
        """Remember since when each container is seen ended."""
        now = self._clock()
        fresh = {
            container.container_id: self._ended_since.get(container.container_id, now)
            for container in seen
            if container.started and not container.live
        }
        if only is not None:
            kept = {key: since for key, since in self._ended_since.items() if key not in only}
            fresh = {**kept, **fresh}
        self._ended_since = fresh

    async def _act(self, seen: tuple[Observation, ...], only: frozenset[str] | None) -> bool:
        """Do what the plan says; whether something was adopted."""
        leases = await self._actor.read(lambda state: dict(state.tables.leases))
        now = self._clock()
        self._hub_stops = {id: until for id, until in self._hub_stops.items() if until > now}
        if only is not None:
            labelled = {c.identity.lease for c in seen if c.identity is not None}
            leases = {
                lease.id: lease
                for lease in leases.values()
                if lease.container_id in only or lease.id in labelled
            }
        steps = reconcile.plan(
            reconcile.View(
                now=now,
                ledger=self._scope.ledger,
                leases={id: lease for id, lease in leases.items() if self._mine(lease)},
                seen=seen,
                ended_since=self._ended_since,
                hub_stops=frozenset(self._hub_stops),
                graces=self._scope.graces,
            )
        )
        adopted = False
        for step in steps:
            if isinstance(step, reconcile.Tell):
                await self._actor.post(step.event)
            elif isinstance(step, reconcile.Confirm):
                await self._confirm(step, leases[step.lease])
            elif isinstance(step, reconcile.Adopt):
                adopted = await self._adopt(step) or adopted
            elif isinstance(step, reconcile.Warn):
                await self._warn(step)
            else:
                self._removals.begin(step)  # takes seconds; nothing here waits for it
        return adopted

    async def _confirm(self, step: reconcile.Confirm, lease: Lease) -> None:
        seen = await self._engine.look_at(step.container_id)
        if seen is None:
            await self._actor.post(
                events.ContainerGone(
                    lease_id=step.lease,
                    container_id=step.container_id,
                    reason=lease.reason or Reason.VANISHED,
                    note=lease.note or "its container was removed from outside",
                )
            )
        else:
            self.nudge(step.container_id)

    async def _adopt(self, step: reconcile.Adopt) -> bool:
        container = await self._engine.look_at(step.container.container_id)
        identity = container.identity if container is not None else None
        if container is None or identity is None or not container.live:
            return False
        try:
            request = await self._engine.limits(container.container_id, len(container.injected))
        except docker.errors.NotFound:
            return False
        # "all of them" and paths are no ids; what they mean counts as foreign use
        named = (name for name in container.injected if name[0] not in (UNNAMED, "/"))
        decisions = await self._actor.post(
            events.ContainerFound(
                lease_id=identity.lease,
                container_id=container.container_id,
                key=key(identity.user, identity.server),
                node=self._home_of(container),
                devices=tuple(named),
                request=request,
            )
        )
        return bool(decisions)

    async def _warn(self, step: reconcile.Warn) -> None:
        if step.container_id not in self._warned:
            self._warned.add(step.container_id)
            self._metrics.mismatches.inc()
            await self._actor.post(
                Noted(kind="devices_differ", text=step.text, subject=step.subject)
            )
