"""A node that an admin declares gone for good.

Its servers are over for everybody but the node itself: a lease ends, so that its user can start
the server again elsewhere, and nothing of it counts against a limit. Whether its container ended
too nobody knows; should the node come back after all, it may run. So a lease of nobody's, the
*remnant*, takes over container and devices, with the target GONE: reconcile removes the
container before a device of it is given out, as after any other stop. Where that can never be
proven, a new boot id of the node ends the remnant, or a second word of the admin.
"""

from __future__ import annotations

from ..errors import RefusedError
from . import events, leases
from .core import Core
from .decisions import LeaseStored, NodeStored
from .models import Lease, LeaseState, Node, NodeState, Reason, Target
from .values import replace

#: what the user name of a remnant begins with; a user's own can't have a slash
LOST = "lost/"


def node_lost(core: Core, event: events.NodeLost, now: float) -> None:
    """End the leases of a node that is gone, or (``empty``) what was left of them."""
    node = core.tables.nodes.get(event.node)
    if node is None:
        return
    if event.empty:
        give_back(core, node.name, now)
        return
    check(node, event)
    if node.state is not NodeState.DOWN:
        core.emit(NodeStored(node=replace(node, state=NodeState.DOWN)))
    for lease in _leases(core, node.name):
        if not is_remnant(lease):
            _set_aside(core, lease, now)


def check(node: Node, event: events.NodeLost) -> None:
    """RefusedError where the node answers: then it is not gone."""
    if node.state is NodeState.UP and not event.empty:
        raise RefusedError(
            f"node {node.name}: declared gone, but it answers",
            f"{node.name} answers, so it is not gone. Drain it, or stop its servers.",
            reason=Reason.IMPOSSIBLE.value,
        )


def give_back(core: Core, node: str, now: float) -> None:
    """Nothing runs on the node that ran when it was declared gone: it was booted since, say."""
    for lease in _leases(core, node):
        if is_remnant(lease):
            leases.release(core, lease, "", now)


def is_remnant(lease: Lease) -> bool:
    """Whether it is what is left of a lease on a node that was declared gone."""
    return lease.key.user.startswith(LOST)


def _leases(core: Core, node: str) -> list[Lease]:
    return [core.tables.leases[id] for id in sorted(core.tables.leases_of_node[node])]


def _set_aside(core: Core, lease: Lease, now: float) -> None:
    """End a lease; what it had goes to a remnant."""
    if lease.target is Target.RUN:
        why = f"{lease.node} was declared gone for good"
        leases.stop(core, lease, Reason.NODE_LOST, why, now)
    ended = core.tables.leases.get(lease.id)
    if ended is None:
        return  # it had no container, and can't get one any more
    leases.release(core, ended, "", now)
    container = ended.container_id or ""
    key = replace(lease.key, user=f"{LOST}{lease.key.user}")
    if key in core.tables.lease_of:
        key = replace(key, server=f"{key.server}@{container[:12]}")
    id = f"{lease.id}@lost"
    remnant = Lease(
        id=id,
        key=key,
        request=replace(lease.request, length=None),
        profile=lease.profile,
        node=lease.node,
        claims=tuple(replace(claim, lease_id=id) for claim in lease.claims),
        state=LeaseState.STOPPING,
        target=Target.GONE,
        container_id=container,
        # the node was up then: reconcile's proof asks for it
        granted_at=lease.granted_at,
        moved_at=now,
        epoch=core.epoch,
        reason=Reason.NODE_LOST,
        uncertain=True,
        quarantined=lease.quarantined,
    )
    core.emit(LeaseStored(lease=remnant))
