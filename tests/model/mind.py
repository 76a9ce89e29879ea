"""The shipped scheduler and ledger as a function: what is known, an event, what is known then.

A :class:`Mind` is all that a scheduler knows, as a value. An event is handled by a
``SchedulerState`` that is put into that mind, its decisions go through the shipped ledger, and
what is known then is read off. The same event in the same mind is worked out once.

Time is of two kinds: now, and after all deadlines. So values keep no times, and
:meth:`Scheduler.later` is the tick after all deadlines.
"""

from __future__ import annotations

from dataclasses import dataclass

from jupyterhub_gpuspawner.errors import RefusedError
from jupyterhub_gpuspawner.scheduler import events
from jupyterhub_gpuspawner.scheduler.decisions import (
    Decision,
    DeviceStored,
    EntryStored,
    LeaseStored,
    NodeStored,
)
from jupyterhub_gpuspawner.scheduler.models import (
    Device,
    DeviceStatus,
    GPURequest,
    Lease,
    LeaseState,
    Limits,
    Node,
    NodeState,
    QueueEntry,
    Settings,
)
from jupyterhub_gpuspawner.scheduler.policy import Fairness
from jupyterhub_gpuspawner.scheduler.state import SchedulerState
from jupyterhub_gpuspawner.scheduler.values import replace
from jupyterhub_gpuspawner.store import Ledger, replay
from jupyterhub_gpuspawner.store.tables import metadata
from tests.model.tries import Tries, check_moves, fence, must

RESERVED = LeaseState.RESERVED

GIB = 2**30
NODE = Node(name="n", memory=100 * GIB, cpus=8.0, boot_id="1")
REQUEST = GPURequest(count=1, memory=20 * GIB)
#: all deadlines are shorter
LATER = 100.0
SETTINGS = Settings(
    limits=Limits(per_user=1),
    bind_deadline=10.0,
    start_deadline=10.0,
    detach_grace=10.0,
    requeue_grace=10.0,
    return_grace=10.0,
    # in order of arrival: what users have had is no part of a mind
    fairness=Fairness(by_usage=False, age_guard=None, age_first=None),
)
RESERVED = LeaseState.RESERVED


@dataclass(frozen=True, slots=True, eq=False)
class Mind:
    """What a scheduler knows: the first two are in its ledger, the others of this life.

    There is one object for each: :meth:`Scheduler.one`.
    """

    entries: tuple[QueueEntry, ...] = ()
    leases: tuple[Lease, ...] = ()
    attached: frozenset[str] = frozenset()
    detached: frozenset[str] = frozenset()
    awaited: frozenset[str] = frozenset()
    settling: frozenset[str] = frozenset()
    ready: bool = False
    #: of the Hub that has shown itself: ``new`` is the one that lives
    boot: str = ""
    #: the node does not answer
    silent: bool = False
    #: devices that are out of service until a reboot
    quarantined: frozenset[str] = frozenset()

    def values(self) -> tuple[object, ...]:
        """All of it."""
        return (
            *(self.entries, self.leases, self.attached, self.detached),
            *(self.awaited, self.settling, self.ready, self.boot),
            *(self.silent, self.quarantined),
        )

    def of(self, server: str) -> tuple[object, ...]:
        """What it knows of one server, without its name."""
        return (
            tuple(
                (e.id[1:], e.state.value, e.seq, e.boot_id)
                for e in self.entries
                if e.id[0] == server
            ),
            tuple(
                (
                    *(one.id[1:], one.state.value, one.target.value, one.boot_id),
                    *(one.container_id is not None, one.devices, one.quarantined),
                )
                for one in self.leases
                if one.id[0] == server
            ),
            *(
                tuple(sorted(id[1:] for id in ids if id[0] == server))
                for ids in (self.attached, self.detached, self.awaited)
            ),
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """What an event led to."""

    mind: Mind
    refused: bool
    #: leases that were granted
    granted: tuple[Lease, ...] = ()
    #: leases that were stopped
    stopped: tuple[str, ...] = ()


class Scheduler:
    """Handles events in minds, with the shipped code.

    Parameters
    ----------
    devices:
        Of the one node. Half of them are real: their memory has to be seen empty.
    ledger:
        Where each set of decisions is stored, and read again.
    """

    def __init__(self, devices: int, ledger: Ledger) -> None:
        self.devices = tuple(
            Device(id=f"g{n}", node="n", index=n, memory=40 * GIB, simulated=n % 2 == 1)
            for n in range(devices)
        )
        self.real = frozenset(device.id for device in self.devices if not device.simulated)
        self._ledger = ledger
        self._minds: dict[tuple[object, ...], Mind] = {}
        self._answers: dict[tuple[Mind, object], Answer] = {}
        self._restarts: dict[Mind, Mind] = {}
        #: what was in the ledger, and what it was told -> what it holds then
        self._stored: dict[object, tuple[set[Lease], set[QueueEntry]]] = {}
        self._tries = Tries()

    @property
    def device_reports(self) -> tuple[tuple[Device, DeviceStatus], ...]:
        """All devices, and nothing wrong with them."""
        return tuple((device, DeviceStatus()) for device in self.devices)

    def one(self, mind: Mind) -> Mind:
        """The one object that stands for it."""
        return self._minds.setdefault(mind.values(), mind)

    @property
    def handled(self) -> int:
        """Number of events in different minds."""
        return len(self._answers)

    @property
    def commits(self) -> int:
        """Number of different commits."""
        return len(self._stored)

    def handle(self, mind: Mind, event: events.Event) -> Answer:
        """What the event leads to now."""
        return self._answer(mind, event, 0.0)

    def later(self, mind: Mind) -> Answer:
        """What a tick leads to after all deadlines."""
        return self._answer(mind, events.Tick(), LATER)

    def restart(self, mind: Mind) -> Mind:
        """What the next scheduler knows: what the ledger holds."""
        if mind not in self._restarts:
            state = SchedulerState(SETTINGS, epoch=self._ledger.epoch)
            state.restore(self._held(mind), 0.0)
            state.validate()
            self._restarts[mind] = self._read(state)
        return self._restarts[mind]

    def _answer(self, mind: Mind, event: events.Event, now: float) -> Answer:
        # what a report tells of devices can't be a key itself
        what = repr(event) if isinstance(event, events.NodeReported) else event
        known = self._answers.get((mind, what))
        if known is None:
            known = self._answers[mind, what] = self._work_out(mind, event, now)
        return known

    def _work_out(self, mind: Mind, event: events.Event, now: float) -> Answer:
        state = self._put_into(mind)
        try:
            decided = state.handle(event, now)
        except RefusedError:
            must(self._read(state) is mind, "S9: a refusal changes something")
            return Answer(mind=mind, refused=True)
        state.validate()
        self._store(mind, state, decided, now)
        adopts = isinstance(event, events.ContainerFound)
        check_moves((*mind.leases, *mind.entries), decided, adopts)
        self._tries.moves(state.tables, decided)
        after = self._read(state)
        must(state.handle(event, now) == [], "S9: a repetition decides something")
        must(self._read(state) is after, "S9: a repetition changes something")
        before = {lease.id: lease for lease in mind.leases}
        leases = [d.lease for d in decided if isinstance(d, LeaseStored)]
        return Answer(
            mind=after,
            refused=False,
            granted=tuple(one for one in leases if one.id not in before and one.state is RESERVED),
            stopped=tuple(
                one.id
                for one in leases
                if one.id in before and one.target is not before[one.id].target
            ),
        )

    def _read(self, state: SchedulerState) -> Mind:
        return self.one(_read(state))

    def _held(self, mind: Mind) -> list[Decision]:
        node = replace(NODE, state=NodeState.SILENT) if mind.silent else NODE
        status = {id: DeviceStatus(quarantined=True) for id in mind.quarantined}
        return [
            NodeStored(node=node),
            *(
                DeviceStored(device=device, status=status.get(device.id, DeviceStatus()))
                for device in self.devices
            ),
            *(LeaseStored(lease=lease) for lease in mind.leases),
            *(EntryStored(entry=entry) for entry in mind.entries),
        ]

    def _put_into(self, mind: Mind) -> SchedulerState:
        state = SchedulerState(SETTINGS, epoch=self._ledger.epoch)
        state.restore(self._held(mind), 0.0)
        core = state._core
        for there, known in (
            (core.attached, mind.attached),
            (core.ready, {"n"} if mind.ready else set()),
        ):
            there.clear()
            there.update(known)
        for times, ids, at in (
            (core.detached, mind.detached, 0.0),
            (core.awaited, mind.awaited, 10.0),
            (core.settling, mind.settling, 0.0),
        ):
            times.clear()
            times.update(dict.fromkeys(ids, at))
        core.boot_id = mind.boot
        # a pass has been made after what came last
        core.stirred, state._seen = False, core.tables.version
        return state

    def _store(
        self, mind: Mind, state: SchedulerState, decided: list[Decision], now: float
    ) -> None:
        """Let the ledger take the decisions, and compare what it holds with what is believed."""
        if not decided:
            return
        asked = (mind.entries, mind.leases, repr(decided))
        if asked not in self._stored:
            self._stored[asked] = self._commit(mind, decided, now)
        leases, entries = self._stored[asked]
        tables = state.tables
        must(leases == set(tables.leases.values()), "S8: other leases in the ledger")
        must(entries == set(tables.entries.values()), "S8: other entries in the ledger")

    def _commit(
        self, mind: Mind, decided: list[Decision], now: float
    ) -> tuple[set[Lease], set[QueueEntry]]:
        """What the ledger holds after the decisions."""
        ledger = self._ledger
        with ledger._database.transaction(write=True) as connection:
            for table in reversed(metadata.sorted_tables):
                if table.name != "meta":
                    connection.execute(table.delete())
        ledger.commit(self._held(mind), 0.0)
        fence(ledger, decided, now)
        ledger.commit(decided, now)
        found = ledger.load()
        must(replay(ledger.journal()) == found, "S8: the journal says something else")
        self._tries.claims(ledger, found.leases)
        return set(found.leases), set(found.entries)


def _read(state: SchedulerState) -> Mind:
    """What is known now, without times, reasons and numbers that only grow."""
    core, tables = state._core, state.tables
    waiting = sorted(tables.entries.values(), key=lambda entry: entry.seq)
    return Mind(
        entries=tuple(
            replace(entry, submitted_at=0.0, seq=number)
            for number, entry in enumerate(waiting, start=1)
        ),
        leases=tuple(
            replace(lease, granted_at=0.0, moved_at=0.0, epoch=0, reason=None, note="")
            for _, lease in sorted(tables.leases.items())
        ),
        attached=frozenset(core.attached),
        detached=frozenset(core.detached),
        awaited=frozenset(core.awaited),
        settling=frozenset(core.settling),
        ready=bool(core.ready),
        boot=core.boot_id,
        silent=tables.nodes[NODE.name].state is NodeState.SILENT,
        quarantined=frozenset(id for id, status in tables.status.items() if status.quarantined),
    )
