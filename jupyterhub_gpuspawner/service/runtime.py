"""The service's life: the order of its start, and its tasks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from ..agent import read_key
from ..discovery.alarms import Alarms
from ..engine.events import EngineEvents
from ..engine.pool import EnginePool
from ..engine.service_watch import SwarmEvents
from ..errors import LedgerError, LedgerFenced
from ..scheduler import events
from ..scheduler.decisions import Decision, LeaseStored
from ..scheduler.models import Lease, LeaseState, Reason, Target
from ..scheduler.state import SchedulerState
from ..store import Ledger
from . import waiting
from .actor import Actor, Store
from .agents import Agents
from .alarm_watch import AlarmWatch
from .clock import SteadyClock
from .companions import CompanionKeeper
from .desk import Desk, Phase, Status
from .engine_view import EngineView, WorldView
from .home_watch import HomeWatch
from .inventory import Inventory, SwarmInventory, make_sources
from .networks import NetworkKeeper, Upkeep
from .options import GPUScheduler
from .reconcile import Graces
from .reconciler import Reconciler, Scope
from .requeue import HubStarter, Requeue
from .swarm_reconciler import SwarmReconciler
from .swarm_view import SwarmView
from .words import REASONS, Announcer

log = logging.getLogger("gpus")

#: seconds between two looks at the deadlines
TICK = 1.0
#: seconds between two tries to open the ledger
OPEN_RETRY = 2.0


class LedgerLike(Store, Protocol):
    """What is used of :class:`~jupyterhub_gpuspawner.store.Ledger`."""

    id: str

    def raise_epoch(self) -> int: ...
    def close(self) -> None: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Outside:
    """The things outside this process, as functions that reach them."""

    #: opens the ledger; blocks; LedgerError
    open_ledger: Callable[[], LedgerLike]
    #: ledger id -> what the service does with the engine
    engine: Callable[[str], WorldView]
    #: ledger id -> the engine's events
    events: Callable[[str], EngineEvents]
    #: asks the Hub to start servers again; None = there is no Hub to ask
    hub: HubStarter | None = None
    #: POSIX seconds
    clock: Callable[[], float] = field(default_factory=SteadyClock)


class Runtime:
    """Everything that lives as long as the process.

    Parameters
    ----------
    options:
        Checked options.
    desk:
        Gets its parts as they come up.
    outside:
        Ledger, engine, Hub and clock.
    on_fenced:
        Called when a younger scheduler has taken over.
    """

    def __init__(
        self,
        options: GPUScheduler,
        desk: Desk,
        outside: Outside,
        on_fenced: Callable[[LedgerFenced], None] = lambda error: None,
    ) -> None:
        self._options = options
        self._desk = desk
        self._outside = outside
        self._on_fenced = on_fenced
        self._announcer = Announcer()
        self._ledger: LedgerLike | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._bound: frozenset[str] = frozenset()
        self._companions: CompanionKeeper | None = None

    async def run(self) -> None:
        """Open the ledger, compare, serve; until cancelled or a part fails."""
        try:
            ledger = await self._open()
            self._ledger = ledger
            log.info("ledger %s is open, epoch %d", ledger.id, ledger.epoch)
            for name, part in self._assemble(ledger).items():
                self._tasks.append(asyncio.create_task(part, name=name))
            done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            raise RuntimeError(f"{', '.join(task.get_name() for task in done)} ended")
        finally:
            await self._close()

    # -- start ---------------------------------------------------------------------------

    async def _open(self) -> LedgerLike:
        """Open the ledger and raise its epoch, however long that takes."""
        said = ""
        while True:
            try:
                return await asyncio.get_running_loop().run_in_executor(None, self._open_once)
            except LedgerError as error:
                reason = Reason.LEDGER_UNAVAILABLE
                self._desk.opening = Status(
                    phase=Phase.STARTING, reason=reason, message=REASONS[reason]
                )
                self._desk.metrics.ledger_errors.inc()
                if str(error) != said:
                    said = str(error)
                    log.error("ledger: %s", error)
            self._desk.waiters.excuse()
            await asyncio.sleep(OPEN_RETRY)

    def _open_once(self) -> LedgerLike:
        ledger = self._outside.open_ledger()
        try:
            ledger.raise_epoch()
        except BaseException:
            ledger.close()
            raise
        return ledger

    def _assemble(self, ledger: LedgerLike) -> dict[str, Coroutine[Any, Any, None]]:
        """Build the parts, hand them to the desk, return what has to run."""
        options, desk, clock = self._options, self._desk, self._outside.clock
        actor = Actor(ledger, options.settings(), clock=clock, on_fenced=self._on_fenced)
        local = not options.docker_host or options.docker_host.startswith("unix:")
        swarm = options.discovery == "swarm"
        desk.inventory = (
            SwarmInventory()
            if swarm
            else Inventory(
                sources=make_sources(options, self._containers),
                alarms=Alarms(options.alarm_hold),
                clock=clock,
                cdi_dir=options.cdi_dir,
                local_engine=local,
            )
        )
        engine = self._outside.engine(ledger.id)
        desk.reconciler = (SwarmReconciler if swarm else Reconciler)(
            actor,
            engine,
            desk.inventory,
            desk.metrics,
            _scope(options, ledger.id),
            clock,
        )
        desk.reconciler.on_change = self._node_changed
        if isinstance(desk.reconciler, SwarmReconciler):
            desk.agents = desk.reconciler.agents = _agents(options, clock)
            desk.agents.on_news = desk.reconciler.nudge
        actor.listeners.append(self._stored)
        actor.on_rebuilt.append(self._rebuilt)
        actor.on_trouble.append(self._troubled)
        desk.ledger_id = desk.waiters.ledger = ledger.id
        desk.language = options.language
        desk.actor = actor
        parts = {
            "actor": actor.run(),
            "reconcile": desk.reconciler.run(),
            "events": desk.reconciler.follow(self._outside.events(ledger.id)),
            "clock": self._tick(actor),
        }
        if isinstance(desk.inventory, Inventory):
            inventory = desk.inventory
            watch = AlarmWatch(inventory.alarms, inventory.listens, desk.reconciler.nudge, clock)
            parts["alarms"] = watch.run()
        # a manager of a Swarm does not see what runs on other machines
        desk.watch.ask = getattr(engine, "usage", None)
        if not swarm:  # a Swarm has no networks of users
            keeper = NetworkKeeper(actor, cast(EngineView, engine), _upkeep(options), clock)
            parts["networks"] = keeper.run()
            self._companions = CompanionKeeper(
                actor,
                cast(EngineView, engine),
                options.node_name,
                options.reconcile_interval,
            )
            parts["companions"] = self._companions.run()
            if options.home_warning is not None:
                homes = HomeWatch(
                    cast(EngineView, engine).homes,
                    options.home_warning,
                    options.home_interval,
                    desk.live.changed,
                )
                desk.large_home = homes.of
                parts["homes"] = homes.run()
        if self._outside.hub is not None:
            parts["requeue"] = Requeue(desk, self._outside.hub).run()
        return parts

    # -- while it runs -------------------------------------------------------------------

    def _containers(self) -> frozenset[str]:
        """Ids of our containers: those seen last, and those that may have started since."""
        reconciler = self._desk.reconciler
        return self._bound | (reconciler.containers if reconciler is not None else frozenset())

    def _stored(self, state: SchedulerState, decisions: list[Decision]) -> None:
        """Decisions are on disk: say so in the log and to those who wait, and act on them."""
        self._desk.metrics.count(decisions, self._announcer.leases)
        for line in self._announcer.lines(decisions):
            log.info("%s", line)
        self._desk.waiters.publish(state)
        if decisions:
            self._desk.live.changed()
        leases = [item.lease for item in decisions if isinstance(item, LeaseStored)]
        if leases:
            self._bound = _bound(state)
        for lease in leases:
            self._desk.remember(lease)
            self._act(state, lease)

    def _act(self, state: SchedulerState, lease: Lease) -> None:
        reconciler = self._desk.reconciler
        assert reconciler is not None
        if lease.state is LeaseState.STOPPING and lease.container_id:
            reconciler.nudge(lease.container_id)
        if lease.target is Target.GONE and self._companions is not None:
            self._companions.nudge()
        if lease.state is LeaseState.RELEASED:
            devices = state.tables.devices
            if any(id in devices and not devices[id].simulated for id in lease.devices):
                reconciler.nudge()  # seen empty soon, granted again soon

    def _rebuilt(self, state: SchedulerState) -> None:
        """The state comes from the ledger: nobody is attached, no node is compared."""
        desk = self._desk
        assert desk.reconciler is not None
        self._announcer.prime(state)
        self._bound = _bound(state)
        desk.reconciler.restart()
        if desk.boot_id:
            desk.later(events.BootSeen(boot_id=desk.boot_id))
        desk.waiters.stand_up()
        desk.live.changed()

    def _troubled(self, error: LedgerError) -> None:
        self._desk.metrics.ledger_errors.inc()
        self._desk.waiters.excuse()
        self._desk.live.changed()

    def _node_changed(self) -> None:
        """What is in the way of grants changed: tell those who wait."""
        self._desk.metrics.up.set(self._desk.excuse() is None)
        self._desk.waiters.excuse()
        self._desk.live.changed()
        self._desk.later(events.Tick())

    async def _tick(self, actor: Actor) -> None:
        while True:
            try:
                await actor.post(events.Tick())
            except LedgerError as error:
                log.debug("no tick: %s", error)
            await asyncio.sleep(TICK)

    async def _close(self) -> None:
        await waiting.end(self._tasks)
        await self._desk.close()
        if self._desk.inventory is not None:
            self._desk.inventory.close()
        if self._ledger is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._ledger.close)


def real_outside(options: GPUScheduler, pool: EnginePool, hub: HubStarter | None) -> Outside:
    """The real ledger and engine of the options."""
    host = options.docker_host or None
    swarm = options.discovery == "swarm"
    view, events_of = (SwarmView, SwarmEvents) if swarm else (EngineView, EngineEvents)
    return Outside(
        open_ledger=lambda: Ledger.open(options.ledger),
        engine=lambda ledger: view(
            pool, ledger, options.stop_grace, exclusive=options.claim_engine
        ),
        events=lambda ledger: events_of(ledger, host),
        hub=hub,
    )


def _agents(options: GPUScheduler, clock: Callable[[], float]) -> Agents:
    key = read_key(options.agent_key_file) if options.agent_key_file else ""
    return Agents(key, options.agent_silence, clock)


def _scope(options: GPUScheduler, ledger: str) -> Scope:
    return Scope(
        node=options.node_name,
        ledger=ledger,
        interval=options.reconcile_interval,
        stop_grace=options.stop_grace,
        hung_stop=options.hung_stop,
        graces=Graces(
            created=options.created_grace,
            exited=options.exited_grace,
            start=options.start_deadline,
        ),
    )


def _upkeep(options: GPUScheduler) -> Upkeep:
    return Upkeep(interval=options.reconcile_interval, grace=options.network_grace)


def _bound(state: SchedulerState) -> frozenset[str]:
    """Recorded containers of all live leases: on record before they may start."""
    ids = (lease.container_id for lease in state.tables.leases.values())
    return frozenset(id for id in ids if id)
