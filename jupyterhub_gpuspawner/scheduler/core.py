"""What the scheduler's parts share: the tables, what is known of this run, and ``emit``."""

from __future__ import annotations

from dataclasses import dataclass, field

from .budgets import Spent
from .decisions import Decision, EntryStored, LeaseStored
from .estimate import Learnt
from .fairshare import Usage
from .idle_facts import IdleFacts
from .models import EntryState, GPURequest, QueueEntry, Settings
from .reasons import impossible
from .tables import Tables
from .values import replace


@dataclass(kw_only=True, slots=True)
class Core:
    """The state itself. Only ``tables`` is durable; the rest is true of this run alone."""

    settings: Settings
    #: number of this scheduler's life
    epoch: int = 0
    tables: Tables = field(default_factory=Tables)
    #: what the event at hand has led to
    decided: list[Decision] = field(default_factory=list)
    #: what users and groups have had; follows the leases
    usage: Usage = field(init=False)
    #: what was charged to budgets; follows them too
    spent: Spent = field(init=False)
    #: how long servers really stay; follows them too
    learnt: Learnt = field(default_factory=Learnt)
    #: entries that a spawn waits for now: only these are granted
    attached: set[str] = field(default_factory=set)
    #: entry id -> since when nobody waits for it
    detached: dict[str, float] = field(default_factory=dict)
    #: entry that waited before a restart -> until when what it could use is kept for it
    awaited: dict[str, float] = field(default_factory=dict)
    #: the Hub process that lives now, as far as it has shown itself
    boot_id: str = ""
    #: nodes whose ledger and engine were compared in this epoch
    ready: set[str] = field(default_factory=set)
    #: released device -> since when; its memory was not seen empty yet
    settling: dict[str, float] = field(default_factory=dict)
    #: who was seen to use what; of this run alone, so that nothing is believed for long
    idle: IdleFacts = field(default_factory=IdleFacts)
    #: something outside the tables that a grant may depend on has changed
    stirred: bool = False
    #: why requests are impossible, for :attr:`_judged_at`
    _judged: dict[GPURequest, str | None] = field(default_factory=dict)
    _judged_at: int = -1

    def __post_init__(self) -> None:
        self.usage = Usage(self.settings.fairness)
        self.spent = Spent(self.settings.limits)

    def emit(self, decision: Decision) -> None:
        """Make a decision: part of the state at once, durable when the caller stores it."""
        self.take(decision)
        self.decided.append(decision)

    def take(self, decision: Decision) -> None:
        """Take in what was decided, now or in an earlier life."""
        if isinstance(decision, LeaseStored):
            old = self.tables.leases.get(decision.lease.id)
            self.tables.apply(decision)
            self.usage.follow(old, decision.lease)
            self.learnt.follow(decision.lease)
            if self.spent.active:
                self.spent.follow(decision.lease, self.usage.charge(decision.lease))
        else:
            self.tables.apply(decision)

    def impossible(self, request: GPURequest) -> str | None:
        """Why no node could ever serve the request; remembered while the nodes are the same."""
        if self._judged_at != self.tables.inventory or len(self._judged) > 1000:
            self._judged.clear()
            self._judged_at = self.tables.inventory
        if request not in self._judged:
            self._judged[request] = impossible(self.tables, self.settings, request)
        return self._judged[request]

    def set_ready(self, node: str, ready: bool) -> None:
        """The node takes part in grants, or no longer does."""
        if ready is (node in self.ready):
            return
        if ready:
            self.ready.add(node)
            self.stirred = True
        else:
            self.ready.discard(node)
        self.tables.touched_nodes.add(node)

    def settle(self, device_id: str) -> None:
        """The device's memory was seen empty."""
        del self.settling[device_id]
        self.tables.touched.add(device_id)
        self.stirred = True

    def attach(self, entry_id: str) -> None:
        """A spawn waits for the entry."""
        if entry_id not in self.attached:
            self.detached.pop(entry_id, None)
            self.awaited.pop(entry_id, None)
            self.attached.add(entry_id)
            self.tables.touched_entries.add(entry_id)
            self.stirred = True

    def expect(self, entry: QueueEntry, now: float) -> None:
        """The entry's spawn was cut off by a restart: it has a while to come back."""
        # who asks for no GPU loses nothing by being passed
        if entry.request.count and self.settings.return_grace:
            self.awaited[entry.id] = now + self.settings.return_grace
            self.tables.touched_entries.add(entry.id)

    def expect_no_more(self, entry_id: str) -> None:
        """It did not come back in time."""
        del self.awaited[entry_id]
        self.tables.touched_entries.add(entry_id)
        self.stirred = True

    def in_line(self, entry: QueueEntry) -> bool:
        """Whether the entry is served in its turn: somebody waits for it, or will again soon."""
        back = entry.id in self.attached or entry.id in self.awaited
        return back and entry.key not in self.tables.lease_of

    def forget_waiter(self, entry_id: str) -> None:
        """It no longer matters whether a spawn waits for the entry."""
        self.attached.discard(entry_id)
        self.detached.pop(entry_id, None)
        self.awaited.pop(entry_id, None)
        self.tables.touched_entries.add(entry_id)

    def end_entry(self, entry: QueueEntry, state: EntryState) -> None:
        """Close an entry for good."""
        self.emit(EntryStored(entry=replace(entry, state=state)))
        self.forget_waiter(entry.id)
