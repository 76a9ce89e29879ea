"""The journal and the projections say the same, whatever was committed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyterhub_gpuspawner.errors import DoubleClaim
from jupyterhub_gpuspawner.scheduler.decisions import (
    Decision,
    DeviceStored,
    EntryStored,
    LeaseStored,
    NodeStored,
    Noted,
)
from jupyterhub_gpuspawner.scheduler.models import (
    Claim,
    Device,
    DeviceStatus,
    EntryState,
    GPURequest,
    Health,
    Lease,
    LeaseState,
    Node,
    NodeState,
)
from jupyterhub_gpuspawner.store import Ledger, replay
from tests.unit.store_values import Places, entry, key, whole_journal

# real sockets, files or processes
pytestmark = pytest.mark.slow

_ATOMS = [("GPU-1", 0), ("GPU-2", 0), ("GPU-2", 1)]


@st.composite
def _lease(draw: st.DrawFn) -> Lease:
    number = draw(st.integers(0, 4))
    id = f"lease-{number}"
    atoms = draw(st.lists(st.sampled_from(_ATOMS), unique=True, max_size=2))
    return Lease(
        id=id,
        key=key(f"user-{number // 2}"),
        request=GPURequest(),
        node="node-1",
        claims=tuple(Claim(device=device, atom=atom, lease_id=id) for device, atom in atoms),
        state=draw(st.sampled_from(LeaseState)),
        granted_at=draw(st.sampled_from([0.0, 1.0])),
    )


_decisions: st.SearchStrategy[Decision] = st.one_of(
    _lease().map(lambda value: LeaseStored(lease=value)),
    _lease().map(lambda value: LeaseStored(lease=value)),
    st.builds(
        lambda number, state: EntryStored(entry=entry(f"e-{number}", seq=number, state=state)),
        st.integers(0, 3),
        st.sampled_from(EntryState),
    ),
    st.builds(
        lambda id, health: DeviceStored(
            device=Device(id=id, node="node-1"), status=DeviceStatus(health=health)
        ),
        st.sampled_from(["GPU-1", "GPU-2"]),
        st.sampled_from(Health),
    ),
    st.sampled_from(NodeState).map(lambda state: NodeStored(node=Node(name="n", state=state))),
    st.builds(Noted, kind=st.just("k"), text=st.text(max_size=3)),
)
_steps = st.lists(
    st.lists(_decisions, min_size=1, max_size=5) | st.just("prune"), min_size=3, max_size=8
)


def _accepted(leases: dict[str, Lease]) -> bool:
    """The rule of the ledger, said in another way than the database's keys."""
    live = [lease for lease in leases.values() if lease.live]
    atoms = [(claim.device, claim.atom) for lease in live for claim in lease.claims]
    keys = [lease.key for lease in live]
    return len(set(atoms)) == len(atoms) and len(set(keys)) == len(keys)


def _run(ledger: Ledger, steps: list[Any]) -> None:
    leases: dict[str, Lease] = {}
    for now, step in enumerate(steps):
        if step == "prune":
            ledger.prune_journal(before=float(now - 1))
            continue
        after = {**leases, **{d.lease.id: d.lease for d in step if isinstance(d, LeaseStored)}}
        rows = ledger.journal()
        try:
            ledger.commit(step, now=float(now))
        except DoubleClaim:
            assert not _accepted(after)
            assert ledger.journal() == rows
        else:
            assert _accepted(after)
            leases = after
    loaded = ledger.load()
    assert {lease.id: lease for lease in loaded.leases} == {
        id: lease for id, lease in leases.items() if lease.live
    }
    assert loaded == replay(whole_journal(ledger))


@given(steps=_steps)
@settings(max_examples=15, deadline=None)
def test_the_journal_replays_to_what_load_gives(places: Places, steps: list[Any]) -> None:
    with places() as place, place.new() as ledger:
        _run(ledger, steps)
