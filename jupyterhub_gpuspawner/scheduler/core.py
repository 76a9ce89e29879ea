"""What the scheduler's parts share: the tables, what is known of this run, and ``emit``."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from .decisions import Decision, EntryStored
from .models import EntryState, QueueEntry, Reason, Settings
from .tables import Tables


@dataclass(kw_only=True, slots=True)
class Core:
    """The state itself. Only ``tables`` is durable; the rest is true of this run alone."""

    settings: Settings
    #: number of this scheduler's life
    epoch: int = 0
    tables: Tables = field(default_factory=Tables)
    #: what the event at hand has led to
    decided: list[Decision] = field(default_factory=list)
    #: entry id -> why it waits, from the last pass
    reasons: dict[str, Reason] = field(default_factory=dict)
    #: entries that a spawn waits for now: only these are granted
    attached: set[str] = field(default_factory=set)
    #: entry id -> since when nobody waits for it
    detached: dict[str, float] = field(default_factory=dict)
    #: the Hub process that lives now, as far as it has shown itself
    boot_id: str = ""
    #: nodes whose ledger and engine were compared in this epoch
    ready: set[str] = field(default_factory=set)
    #: released device -> since when; its memory was not seen empty yet
    settling: dict[str, float] = field(default_factory=dict)
    #: something outside the tables that a grant may depend on has changed
    stirred: bool = False

    def emit(self, decision: Decision) -> None:
        """Make a decision: part of the state at once, durable when the caller stores it."""
        self.tables.apply(decision)
        self.decided.append(decision)

    def attach(self, entry_id: str) -> None:
        """A spawn waits for the entry."""
        if entry_id not in self.attached:
            self.detached.pop(entry_id, None)
            self.attached.add(entry_id)
            self.stirred = True

    def forget_waiter(self, entry_id: str) -> None:
        """It no longer matters whether a spawn waits for the entry."""
        self.attached.discard(entry_id)
        self.detached.pop(entry_id, None)

    def end_entry(self, entry: QueueEntry, state: EntryState) -> None:
        """Close an entry for good."""
        self.emit(EntryStored(entry=replace(entry, state=state)))
        self.forget_waiter(entry.id)
        self.reasons.pop(entry.id, None)
