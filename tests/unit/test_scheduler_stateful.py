"""Random lives of a small installation, against a naive model of who holds what.

Two nodes with four GPUs (one of them shared, one in MIG mode), four users, a few servers each.
The model below knows only what was *asked of the engine* and what was *granted*: it recomputes
the invariants from lists, without the indices of the tables.
"""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from jupyterhub_gpuspawner.errors import RefusedError
from jupyterhub_gpuspawner.scheduler import events
from jupyterhub_gpuspawner.scheduler.decisions import Decision, LeaseStored
from jupyterhub_gpuspawner.scheduler.lost import is_remnant
from jupyterhub_gpuspawner.scheduler.models import (
    Admin,
    Booking,
    DeviceStatus,
    EntryState,
    GPURequest,
    Health,
    Lease,
    LeaseState,
    Limits,
    Mode,
    NodeState,
    Settings,
    Target,
)
from jupyterhub_gpuspawner.scheduler.policy import Budget, Fairness, Share
from jupyterhub_gpuspawner.scheduler.queue import Queue
from jupyterhub_gpuspawner.scheduler.state import SchedulerState
from tests.unit.scheduler_reference import Checked
from tests.unit.scheduler_world import GIB, dump, gpu, key, machine, stored, used_now

PARTS = tuple(
    gpu(f"m{n}", "n2", mode=Mode.MIG, parent="b1", memory=20 * GIB, simulated=False) for n in (1, 2)
)
DEVICES = (
    gpu("a1", simulated=False),
    gpu("a2"),
    gpu("s3", mode=Mode.SLOTS, atoms=2),
    gpu("b1", "n2", simulated=False),
    *PARTS,
)
PARENT = {device.id: device.parent for device in DEVICES if device.parent}
NODES = ("n1", "n2")
USERS = ("ann", "ann/two", "bob", "bob/two", "cy", "dan")
GROUPS = {"ann": ("lab",), "bob": ("lab", "all"), "cy": ("all",), "dan": ()}
BUDGET = 80 * GIB
SHARES = (
    Share(name="lab", parent="all", weight=2.0, quota=1, borrow=2),
    Share(name="all", quota=2),
)
POLICIES = (
    Settings(),
    Settings(fairness=Fairness(shares=SHARES, age_guard=5000.0)),
    Settings(fairness=Fairness(shares=SHARES, priorities={"lab": 1}, half_life=100.0)),
    Settings(fairness=Fairness(by_usage=False, backfill=False), cpu_overcommit=0.25),
    Settings(fairness=Fairness(by_usage=False, priorities={"all": 2}, age_guard=None)),
    Settings(reclaim_warning=1000.0, fairness=Fairness(shares=SHARES)),
)

requests = st.builds(
    GPURequest,
    count=st.sampled_from([0, 1, 1, 1, 2]),
    sharing=st.sampled_from([Mode.EXCLUSIVE, Mode.EXCLUSIVE, Mode.SLOTS, Mode.MIG]),
    memory=st.sampled_from([0, 0, 10 * GIB, 50 * GIB]),
    cpu=st.sampled_from([0.0, 0.1, 2.0]),
    length=st.sampled_from([None, 60.0, 3600.0, 86_400.0]),
    node=st.sampled_from([None, None, None, "n1", "n2"]),
)
named = st.lists(st.sampled_from(["a1", "a2", "b1"]), min_size=1, max_size=2, unique=True).map(
    lambda ids: GPURequest(count=len(ids), devices=tuple(ids))
)
limits = st.builds(
    Limits,
    per_user=st.sampled_from([None, 1, 2]),
    groups=st.sampled_from([{}, {"lab": 2}, {"all": 1}]),
    user_budget=st.sampled_from([None, None, Budget(hours=30.0, period=50_000.0)]),
    group_budgets=st.sampled_from([{}, {"lab": Budget(hours=30.0, period=90_000.0)}]),
    queued_per_user=st.sampled_from([1, 10]),
)
statuses = st.sampled_from(
    [
        DeviceStatus(),
        DeviceStatus(),
        DeviceStatus(),
        DeviceStatus(health=Health.SUSPECT),
        DeviceStatus(health=Health.BAD),
        DeviceStatus(foreign=True),
        None,
    ]
)
nodes = st.sampled_from(NODES)


class Installation(RuleBasedStateMachine):
    """Events in any order, also such as nobody in his senses would send."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.state = SchedulerState(POLICIES[0], epoch=1, queues=Checked)
        #: the same events, handled by another scheduler: it must decide the same
        self.twin = SchedulerState(POLICIES[0], epoch=1)
        #: all leases that ever were, as last stored
        self.history: dict[str, Lease] = {}
        self.ids = 0
        self.relived = False
        self.boots = dict.fromkeys(NODES, 1)
        #: what the engine would show: container -> lease that it carries as a label
        self.running: dict[str, str] = {}
        #: devices that were released and not reported since
        self.unseen: set[str] = set()
        self.reconciled: set[str] = set()
        self.attached: set[str] = set()

    # -- one event -----------------------------------------------------------------------

    def do(self, event: events.Event) -> list[Decision]:
        before = dict(self.state.tables.leases)
        known = dump(self.state.tables)
        try:
            decided = self.state.handle(event, self.now)
        except RefusedError:
            assert dump(self.state.tables) == known, "a refusal changes nothing"
            try:
                self.twin.handle(event, self.now)
            except RefusedError:
                return []
            raise AssertionError("the same event is refused once and not twice") from None
        assert self.twin.handle(event, self.now) == decided, "the same events, other decisions"
        self.look_at(event, decided, before)
        again = dump(self.state.tables)
        assert self.state.handle(event, self.now) == [], "S9: a repetition decides something"
        assert dump(self.state.tables) == again
        return decided

    def look_at(
        self, event: events.Event, decided: list[Decision], before: dict[str, Lease]
    ) -> None:
        if isinstance(event, events.Submitted):
            self.attached.add(self.entry_of(event.key))
        stored_leases = [d.lease for d in decided if isinstance(d, LeaseStored)]
        self.history.update((lease.id, lease) for lease in stored_leases)
        # first what was given back, then what was granted in its place
        for lease in stored_leases:
            if lease.state is LeaseState.RELEASED:
                self.check_release(before[lease.id], event)
                self.note_release(lease, event)
        for lease in stored_leases:
            if lease.state is LeaseState.RESERVED and lease.id not in before:
                self.check_grant(lease)
        if isinstance(event, events.Tick):
            for id, lease in before.items():
                if lease.state is LeaseState.RUNNING:
                    self.check_end(lease, self.state.tables.leases[id])

    def note_release(self, lease: Lease, event: events.Event) -> None:
        if isinstance(event, events.NodeReported):
            return  # by a reboot, and the devices were looked at after it
        self.unseen.update(lease.devices)
        for device in lease.devices:
            self.unseen.update(c for c, p in PARENT.items() if p == device)
            self.unseen.update({PARENT.get(device, device)})

    def check_end(self, before: Lease, after: Lease) -> None:
        """S11, L6: a server goes only after its length and a whole warning."""
        if after.target is not before.target:
            assert before.warned and before.stop_at is not None, "stopped without a warning"
            assert before.stop_at <= self.now, "S11: stopped before its warned end"
            assert before.ends_at is not None and before.ends_at <= self.now, "in its length"
            assert any(id in self.attached for id in self.state.tables.queued_of.values())
        elif after.warned and not before.warned:
            assert before.ends_at is not None and before.ends_at <= self.now, "warned too early"
            assert after.stop_at == self.now + 1000.0, "L6"
            assert self.state.tables.queued_of, "warned for nobody"

    def check_release(self, lease: Lease, event: events.Event) -> None:
        if lease.container_id is None:
            assert lease.state is LeaseState.RESERVED
        elif isinstance(event, events.NodeLost) and not event.empty:
            heir = self.state.tables.leases[f"{lease.id}@lost"]
            assert (heir.container_id, heir.devices) == (lease.container_id, lease.devices)
            assert (heir.target, heir.node) == (Target.GONE, event.node)
        elif isinstance(event, (events.NodeLost, events.NodeReported)):
            # the admin's second word, or another boot
            assert is_remnant(lease), "S3: released without proof"
        else:
            assert isinstance(event, events.ContainerGone), "S3: released without proof"
            assert event.container_id == lease.container_id, "S3: another container's end"

    def check_grant(self, lease: Lease) -> None:
        tables = self.state.tables
        live = list(tables.leases.values())
        assert lease.id in self.attached, "granted to nobody"
        assert lease.node in self.reconciled, "S7: granted on an unknown node"
        node = tables.nodes[lease.node]
        assert (node.state, node.admin) == (NodeState.UP, Admin.OPEN), "S7"
        for device in lease.devices:
            status = tables.status[device]
            fine = DeviceStatus(note=status.note)
            assert status == fine, f"S7: {device} is {status}"
            assert tables.devices[device].node == lease.node
            assert tables.devices[device].mode is lease.request.sharing
            assert tables.devices[device].simulated or device not in self.unseen, "S7: settling"
        assert len(lease.devices) == lease.request.count
        for booking in tables.bookings.values():
            ours = lease.key.user in booking.users or set(lease.groups) & set(booking.groups)
            if set(lease.devices) & set(booking.devices) and not ours:
                ends = inf if lease.ends_at is None else lease.ends_at
                before = ends <= booking.starts_at
                assert before or self.now >= booking.ends_at, "granted what is booked for others"
        assert lease.request.node in (None, lease.node), "another node than asked for"
        wanted = lease.request.devices
        assert not wanted or set(lease.devices) == set(wanted), "others than asked for by name"
        limit = self.state.settings.limits
        mine = sum(len(x.claims) for x in live if x.key.user == lease.key.user)
        assert limit.per_user is None or not lease.claims or mine <= limit.per_user, "S6"
        for group in lease.groups:
            held = sum(len(x.claims) for x in live if group in x.groups)
            cap = limit.groups.get(group)
            assert cap is None or not lease.claims or held <= cap, "S6"
        if lease.request.memory:
            used = sum(x.request.memory for x in live if x.node == lease.node)
            assert used <= BUDGET, "S5"

    # -- helpers -------------------------------------------------------------------------

    def entry_of(self, who: events.ServerKey) -> str:
        tables = self.state.tables
        return tables.queued_of.get(who) or tables.lease_of[who]

    def some(self, data: st.DataObject, *states: LeaseState) -> str:
        """A lease in one of the states, if there is one; else an id of nothing."""
        leases = self.state.tables.leases.values()
        ids = sorted(lease.id for lease in leases if not states or lease.state in states)
        return data.draw(st.sampled_from([*ids, "nothing"] if ids else ["nothing"]))

    # -- rules: spawns -------------------------------------------------------------------

    @initialize()
    def first_reports(self) -> None:
        for name in NODES:
            self.reconcile(name, {device.id: DeviceStatus() for device in DEVICES})

    @rule(
        user=st.sampled_from(USERS), request=requests | requests | named, boot=st.sampled_from("12")
    )
    def submit(self, user: str, request: GPURequest, boot: str) -> None:
        self.ids += 1
        self.do(
            events.Submitted(
                entry_id=f"e{self.ids}",
                key=key(user),
                groups=GROUPS[key(user).user],
                request=request,
                boot_id=boot,
                admin=True,
            )
        )

    @rule(user=st.sampled_from(USERS))
    def submit_again(self, user: str) -> None:
        entries = self.state.tables.entries.values()
        for entry in [entry for entry in entries if entry.key == key(user)][:1]:
            self.submit(user, entry.request, "1")

    @rule(data=st.data(), priority=st.integers(-1, 2))
    def give_priority(self, data: st.DataObject, priority: int) -> None:
        ids = sorted(self.state.tables.entries) or ["nothing"]
        entry_id = data.draw(st.sampled_from(ids))
        self.do(events.PriorityGiven(entry_id=entry_id, priority=priority))

    @rule(data=st.data(), cancel=st.booleans())
    def leave(self, data: st.DataObject, cancel: bool) -> None:
        ids = sorted(self.state.tables.entries) or ["nothing"]
        entry_id = data.draw(st.sampled_from(ids))
        if cancel:
            self.do(events.Cancelled(entry_id=entry_id))
            return
        entry = self.state.tables.entries.get(entry_id)
        if entry is not None and entry.state is EntryState.QUEUED:
            self.attached.discard(entry_id)
        self.do(events.Detached(entry_id=entry_id))

    @rule(data=st.data())
    def take(self, data: st.DataObject) -> None:
        ids = sorted(self.state.tables.entries) or ["nothing"]
        self.do(events.Taken(entry_id=data.draw(st.sampled_from(ids))))

    @rule(boot=st.sampled_from("12"))
    def hub_seen(self, boot: str) -> None:
        self.do(events.BootSeen(boot_id=boot))

    # -- rules: containers ---------------------------------------------------------------

    @rule(data=st.data(), other=st.sampled_from(["", "", "-other"]))
    def bind(self, data: st.DataObject, other: str) -> None:
        lease_id = self.some(data, LeaseState.RESERVED, LeaseState.STARTING, LeaseState.STOPPING)
        container = f"c-{lease_id}{other}"
        before = self.state.tables.leases.get(lease_id)
        self.do(events.BindAsked(lease_id=lease_id, container_id=container))
        lease = self.state.tables.leases.get(lease_id)
        if lease is not None and lease.container_id == container and lease.live:
            if before is not None and before.container_id is None:
                assert before.state is LeaseState.RESERVED
            if lease.state is LeaseState.STARTING:
                self.running[container] = lease_id

    @rule(data=st.data())
    def container_runs(self, data: st.DataObject) -> None:
        self.do(events.ContainerRunning(lease_id=self.some(data)))

    @rule(data=st.data())
    def stop(self, data: st.DataObject) -> None:
        self.do(events.StopWanted(lease_id=self.some(data)))

    @rule(data=st.data(), wrong=st.sampled_from([False, False, True]))
    def container_goes(self, data: st.DataObject, wrong: bool) -> None:
        lease_id = self.some(data)
        lease = self.state.tables.leases.get(lease_id)
        container = (lease.container_id if lease else None) or f"c-{lease_id}"
        if wrong:
            container += "-wrong"
        self.running.pop(container, None)
        self.do(events.ContainerGone(lease_id=lease_id, container_id=container))

    @rule(data=st.data())
    def stop_hangs(self, data: st.DataObject) -> None:
        self.do(events.StopHung(lease_id=self.some(data, LeaseState.STOPPING)))

    @rule(
        user=st.sampled_from(USERS),
        data=st.data(),
        devices=st.lists(st.sampled_from(["a1", "a2", "s3", "m1", "new"]), max_size=2),
    )
    def container_found(self, user: str, data: st.DataObject, devices: list[str]) -> None:
        self.ids += 1
        lease_id = data.draw(st.sampled_from([f"old{self.ids}", self.some(data)]))
        self.do(
            events.ContainerFound(
                lease_id=lease_id,
                container_id=f"found{self.ids}",
                key=key(user),
                node="n1",
                devices=tuple(devices),
                request=GPURequest(count=len(devices)),
            )
        )

    # -- rules: nodes and time -------------------------------------------------------------

    def report(self, name: str, status: dict[str, DeviceStatus | None], boot: str) -> None:
        listed = tuple(
            (device, seen)
            for device in DEVICES
            if device.node == name and (seen := status.get(device.id)) is not None
        )
        self.unseen -= {device.id for device, _ in listed}
        node = machine(name, boot_id=boot)
        if self.state.tables.nodes.get(name, node).boot_id != boot:
            self.reconciled.discard(name)
        self.do(events.NodeReported(node=node, devices=listed))

    def reconcile(self, name: str, status: dict[str, DeviceStatus | None]) -> None:
        self.report(name, status, f"boot-{self.boots[name]}")
        self.reconciled.add(name)
        self.do(events.NodeReconciled(node=name))

    @rule(name=nodes, status=st.fixed_dictionaries({d.id: statuses for d in DEVICES}))
    def node_reports(self, name: str, status: dict[str, DeviceStatus | None]) -> None:
        self.reconcile(name, status)

    @rule(name=nodes)
    def all_is_well(self, name: str) -> None:
        self.reconcile(name, {device.id: DeviceStatus() for device in DEVICES})

    @rule(name=nodes)
    def node_reboots(self, name: str) -> None:
        self.boots[name] += 1
        self.remnants_end(name)
        self.report(name, {}, f"boot-{self.boots[name]}")

    @rule(name=nodes, state=st.sampled_from(NodeState))
    def node_changes(self, name: str, state: NodeState) -> None:
        before = self.state.tables.nodes[name].state
        if state is not NodeState.UP and (before, state) != (NodeState.DOWN, NodeState.SILENT):
            self.reconciled.discard(name)
        leases = {id: lease.state for id, lease in self.state.tables.leases.items()}
        self.do(events.NodeChanged(node=name, state=state))
        if state is not NodeState.UP:
            now = {id: lease.state for id, lease in self.state.tables.leases.items()}
            assert now.items() >= leases.items(), "silence released or stopped something"

    def remnants_end(self, name: str) -> None:
        """Nothing runs any more of what ran when the node was declared gone."""
        for lease in self.state.tables.leases.values():
            if lease.node == name and is_remnant(lease):
                self.running.pop(lease.container_id or "", None)

    @rule(name=nodes, empty=st.booleans())
    def node_is_lost(self, name: str, empty: bool) -> None:
        if empty:
            self.remnants_end(name)
        elif self.state.tables.nodes[name].state is not NodeState.UP:
            self.reconciled.discard(name)
            for container, lease in self.running.items():
                if self.state.tables.leases[lease].node == name and not lease.endswith("@lost"):
                    self.running[container] = f"{lease}@lost"
        self.do(events.NodeLost(node=name, empty=empty))

    @rule(data=st.data(), admin=st.sampled_from([Admin.OPEN, *Admin]))
    def admin_decides(self, data: st.DataObject, admin: Admin) -> None:
        what = data.draw(st.sampled_from([*NODES, "a1", "b1"]))
        if what in NODES:
            self.do(events.AdminAsked(admin=admin, node=what))
        else:
            self.do(events.AdminAsked(admin=admin, device=what))

    @rule(
        ids=st.lists(st.sampled_from(["a1", "a2", "s3", "b1", "m1"]), min_size=1, max_size=2),
        begins=st.sampled_from([-10, 0, 100, 5000]),
        lasts=st.sampled_from([60, 4000, 90_000]),
        groups=st.sampled_from([("lab",), ("all",), ()]),
    )
    def book(self, ids: list[str], begins: int, lasts: int, groups: tuple[str, ...]) -> None:
        self.ids += 1
        starts = self.now + begins
        self.do(
            events.Booked(
                booking=Booking(
                    id=f"b{self.ids}",
                    devices=tuple(sorted(set(ids))),
                    groups=groups,
                    users=("dan",),
                    starts_at=starts,
                    ends_at=starts + lasts,
                )
            )
        )

    @rule(data=st.data(), seconds=st.sampled_from([30, 3000, 50_000]))
    def extend(self, data: st.DataObject, seconds: int) -> None:
        lease_id = self.some(data, LeaseState.RUNNING)
        before = self.state.tables.leases.get(lease_id)
        self.do(events.ExtensionAsked(lease_id=lease_id, ends_at=self.now + seconds))
        after = self.state.tables.leases.get(lease_id)
        assert before == after or after is None or not after.warned

    @precondition(lambda self: self.state.tables.bookings)
    @rule()
    def unbook(self) -> None:
        self.do(events.BookingCancelled(booking_id=min(self.state.tables.bookings)))

    @rule(limit=limits, policy=st.sampled_from(range(6)))
    def settings_change(self, limit: Limits, policy: int) -> None:
        states = {id: lease.state for id, lease in self.state.tables.leases.items()}
        self.relived = self.relived or policy == 2
        self.do(events.SettingsChanged(settings=replace(POLICIES[policy], limits=limit)))
        now = {id: lease.state for id, lease in self.state.tables.leases.items()}
        assert now.items() >= states.items(), "S6: a limit stopped something"

    @rule(seconds=st.sampled_from([1, 16, 121, 601, 4000, 90_000]))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds
        self.do(events.Tick())

    @precondition(lambda self: self.state.tables.leases or self.state.tables.entries)
    @rule()
    def scheduler_restarts(self) -> None:
        """What the ledger holds is the whole of what is believed."""
        for name in ("state", "twin"):
            old = getattr(self, name)
            queues = Checked if name == "state" else Queue
            new = SchedulerState(old.settings, epoch=2, queues=queues)
            ended = [LeaseStored(lease=v) for v in self.history.values() if not v.live]
            new.restore([*stored(old.tables), *ended], self.now)
            assert dump(new.tables) == dump(old.tables)
            setattr(self, name, new)
        self.unseen = set(self.state.tables.devices)
        self.reconciled = set()
        self.attached = {
            entry.id
            for entry in self.state.tables.entries.values()
            if entry.state is not EntryState.QUEUED
        }

    # -- what always holds -------------------------------------------------------------------

    @invariant()
    def the_state_is_valid(self) -> None:
        self.state.validate()

    @invariant()
    def usage_is_what_the_leases_add_up_to(self) -> None:
        usage, fair = self.state._core.usage, self.state.settings.fairness
        for account in usage._accounts.values():
            mine = [
                v
                for v in self.history.values()
                if (v.key.hub, v.key.user) == account.key and usage.leaf(v.groups) is account.group
            ]
            weights = [2 ** ((v.granted_at - self.now) / fair.half_life) for v in mine]
            had = sum(w * usage.charge(v) for w, v in zip(weights, mine, strict=True))
            # where the half-life was changed meanwhile, the sum is another one
            if not self.relived:
                assert abs(used_now(usage, account, self.now) - had) <= 1e-6 * (1 + had)

    @invariant()
    def no_atom_is_held_twice_and_none_is_lost(self) -> None:
        tables = self.state.tables
        atoms = [(c.device, c.atom) for lease in tables.leases.values() for c in lease.claims]
        assert len(atoms) == len(set(atoms)), "S1"
        for device in tables.devices.values():
            held = [atom for name, atom in atoms if name == device.id]
            free = tables.free_atoms(device)
            family = {PARENT.get(device.id), *(c for c, p in PARENT.items() if p == device.id)}
            if not family & {name for name, _ in atoms}:
                assert sorted(free + held) == list(range(device.atoms)), "S10"
            else:
                assert free == []

    @invariant()
    def a_gpu_and_its_instances_are_never_in_different_leases(self) -> None:
        holder: dict[str, set[str]] = {}
        for lease in self.state.tables.leases.values():
            for device in lease.devices:
                holder.setdefault(device, set()).add(lease.id)
        for child, parent in PARENT.items():
            if child in holder and parent in holder:
                assert holder[child] == holder[parent], "S4"

    @invariant()
    def every_open_container_that_we_let_start_has_its_lease(self) -> None:
        for container, lease_id in self.running.items():
            lease = self.state.tables.leases.get(lease_id)
            assert lease is not None and lease.container_id == container, "S3"

    @invariant()
    def every_waiting_entry_has_a_reason_and_a_place(self) -> None:
        line = self.state.waiting()
        assert [waiting.position for waiting in line] == list(range(1, len(line) + 1))
        twin = [(w.entry.id, w.reason) for w in self.twin.waiting()]
        assert [(w.entry.id, w.reason) for w in line] == twin


TestInstallation = pytest.mark.slow(Installation.TestCase)
TestInstallation.settings = settings(
    max_examples=25,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
