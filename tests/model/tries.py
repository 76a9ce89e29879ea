"""The guards that stand behind the others, tried out in each state that a search comes to.

What decides never comes to where they would refuse. So they are shown what it would look like if it
did: a state that moves along no arrow, an atom that is taken twice, claims that are not those of
the leases, a commit of a scheduler of the last epoch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from jupyterhub_gpuspawner.errors import DoubleClaim, LedgerError, LedgerFenced
from jupyterhub_gpuspawner.scheduler.decisions import Decision, EntryStored, LeaseStored
from jupyterhub_gpuspawner.scheduler.models import (
    EntryState,
    Lease,
    LeaseState,
    QueueEntry,
    ServerKey,
    Target,
)
from jupyterhub_gpuspawner.scheduler.tables import Tables
from jupyterhub_gpuspawner.scheduler.transitions import IllegalTransition
from jupyterhub_gpuspawner.scheduler.values import replace
from jupyterhub_gpuspawner.store import Ledger
from jupyterhub_gpuspawner.store.tables import claims as claims_table

#: the arrows of DESIGN, written down once more
MOVES = {
    "queued": {"granted", "cancelled", "rejected"},
    "granted": {"bound", "cancelled", "rejected"},
    "bound": {"done"},
    "reserved": {"starting", "stopping"},
    "starting": {"running", "stopping"},
    "running": {"stopping"},
    "stopping": {"released"},
}


class Broken(AssertionError):
    """Something that must always hold does not."""


def must(holds: object, rule: str) -> None:
    """Raise :class:`Broken` unless it holds."""
    if not holds:
        raise Broken(rule)


class Tries:
    """Remembers what was tried, so that each is tried once."""

    def __init__(self) -> None:
        self._tried: set[object] = set()

    def moves(self, tables: Tables, decided: Iterable[Decision]) -> None:
        """S8: the tables of states let nothing move that is not an arrow of DESIGN."""
        for decision in decided:
            if isinstance(decision, LeaseStored):
                lease = decision.lease
                state: tuple[object, ...] = (lease.state, lease.target)
                latest = tables.leases.get(lease.id) == lease
            elif isinstance(decision, EntryStored):
                entry = decision.entry
                state = (entry.state,)
                latest = tables.entries.get(entry.id) == entry
            else:
                continue
            if latest and state not in self._tried:
                self._tried.add(state)
                for wrong in _wrong(decision):
                    _must_refuse(tables, wrong)

    def claims(self, ledger: Ledger, leases: Sequence[Lease]) -> None:
        """S1: the ledger takes no atom twice, and gives no leases without their claims."""
        claims = frozenset(claim for lease in leases for claim in lease.claims)
        if not claims or claims in self._tried:
            return
        self._tried.add(claims)
        held = next(lease for lease in leases if lease.claims)
        other = replace(
            held,
            id="other",
            key=ServerKey(hub="h", user="other"),
            container_id=None,
            claims=tuple(replace(claim, lease_id="other") for claim in held.claims),
        )
        try:
            ledger.commit([LeaseStored(lease=other)], 0.0)
        except DoubleClaim:
            pass
        else:
            raise Broken("S1: the ledger takes an atom twice")
        with ledger._database.transaction(write=True) as connection:
            connection.execute(claims_table.delete())
        try:
            ledger.load()
        except LedgerError:
            return
        raise Broken("S1: the ledger gives leases without their claims")


def fence(ledger: Ledger, decided: Sequence[Decision], now: float) -> None:
    """S12: a scheduler of the last epoch stores nothing."""
    mine, before = ledger.epoch, len(ledger.journal())
    ledger.epoch = mine - 1
    try:
        ledger.commit(decided, now)
    except LedgerFenced:
        must(len(ledger.journal()) == before, "S12: an older scheduler changes the ledger")
    else:
        raise Broken("S12: an older scheduler writes")
    finally:
        ledger.epoch = mine


def _may(old: LeaseState | EntryState, new: LeaseState | EntryState) -> bool:
    """Whether DESIGN has an arrow, or nothing moves."""
    return old is new or new.value in MOVES.get(old.value, ())


def _wrong(decision: LeaseStored | EntryStored) -> list[Decision]:
    """The same lease or entry, moved along no arrow."""
    if isinstance(decision, EntryStored):
        entry = decision.entry
        return [
            EntryStored(entry=replace(entry, state=state))
            for state in EntryState
            if not _may(entry.state, state)
        ]
    lease = decision.lease
    back = lease.target is Target.GONE
    return [
        *(
            LeaseStored(lease=replace(lease, state=state))
            for state in LeaseState
            if not _may(lease.state, state)
        ),
        *([LeaseStored(lease=replace(lease, target=Target.RUN))] if back else []),
    ]


def _must_refuse(tables: Tables, decision: Decision) -> None:
    try:
        tables.apply(decision)
    except IllegalTransition:
        return
    raise Broken(f"S8: the tables take {decision}")


def check_moves(
    before: Iterable[Lease | QueueEntry], decided: Iterable[Decision], adopts: bool
) -> None:
    """S8: states move along the arrows only; one that is adopted begins by running."""
    states = {_what(value): value.state.value for value in before}
    for decision in decided:
        if isinstance(decision, LeaseStored):
            what, now = _what(decision.lease), decision.lease.state.value
        elif isinstance(decision, EntryStored):
            what, now = _what(decision.entry), decision.entry.state.value
        else:
            continue
        old = states.get(what)
        if old is None:
            fine = now in ("queued", "running" if adopts else "reserved")
        else:
            fine = now == old or now in MOVES.get(old, ())
        must(fine, f"S8: {what[0]} goes from {old} to {now}")
        states[what] = now


def _what(value: Lease | QueueEntry) -> tuple[str, str]:
    return ("lease" if isinstance(value, Lease) else "entry", value.id)
