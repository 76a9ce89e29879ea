"""Answers to "why does it wait?" and "why these GPUs?", from the state and from the journal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from .. import units
from ..errors import NotThereError
from ..scheduler import explain as answers
from ..scheduler.models import Lease, Settings
from ..scheduler.state import SchedulerState
from . import api_models as models
from .page_data import Viewer
from .words import REASONS, clock_time, gpus

if TYPE_CHECKING:
    from .desk import Desk

#: rows of the journal that are read at a time
PART = 500

NodeAnswers = Sequence[answers.NodeAnswer]


async def explain(desk: Desk, viewer: Viewer, name: str) -> models.Explanation:
    """The answer about one request or lease. NotThereError, LedgerError."""
    found = await desk.read(lambda state: _waiting(state, viewer, name))
    if found is not None:
        return found
    settings = await desk.read(lambda state: _settings(state, viewer, name))
    if settings is None:
        # the same where it is another's: nobody learns what exists
        raise _nothing()
    past, after = answers.Past(name), 0
    while rows := await desk.journal(after, PART):
        if any(past.take(row.decision) for row in rows):
            break
        after = rows[-1].seq
    if past.lease is None:
        raise _nothing()
    return _granted(past, past.lease, settings)


def _nothing() -> NotThereError:
    return NotThereError("You have no such request or lease, or the journal does not reach back.")


def _settings(state: SchedulerState, viewer: Viewer, name: str) -> Settings | None:
    """The policy, where the viewer may ask for this lease: admins for any, also an old one."""
    lease = state.tables.leases.get(name)
    asks = viewer.admin if lease is None else viewer.may_see(lease)
    return state.settings if asks else None


def _waiting(state: SchedulerState, viewer: Viewer, name: str) -> models.Explanation | None:
    for place in state.waiting():
        entry = place.entry
        if entry.id == name and viewer.may_see(entry):
            nodes = state.nodes_for(name)
            since = clock_time(entry.submitted_at)
            begin = (
                f"{entry.key} waits for {gpus(entry.request.count)} since {since}. "
                f"{REASONS[place.reason]} Place {place.position}."
            )
            return models.Explanation(
                id=name,
                server=str(entry.key),
                state="waiting",
                at=entry.submitted_at,
                reason=place.reason.value,
                position=place.position,
                devices=[],
                nodes=[_node(node, None) for node in nodes],
                words=[begin, *_words(nodes, None)],
            )
    return None


def _granted(past: answers.Past, lease: Lease, settings: Settings) -> models.Explanation:
    nodes = past.nodes(settings)
    after = ""
    if past.asked_at is not None:
        after = f" after {units.format_duration(lease.granted_at - past.asked_at)}"
    begin = f"{lease.key} got {gpus(len(lease.devices))} on {lease.node}"
    words = [f"{begin} at {clock_time(lease.granted_at)}{after}.", *_words(nodes, lease)]
    links = past.links()
    if links is not None:
        words.append(f"There are {links} NVLinks among {', '.join(lease.devices)}.")
    return models.Explanation(
        id=lease.id,
        server=str(lease.key),
        state="granted",
        at=lease.granted_at,
        reason=None,
        position=None,
        devices=list(lease.devices),
        nodes=[_node(node, lease) for node in nodes],
        words=words,
    )


def _node(node: answers.NodeAnswer, lease: Lease | None) -> models.NodeAnswer:
    return models.NodeAnswer(
        node=node.node,
        free=node.free,
        usable=node.usable,
        links=node.links,
        reason=None if node.reason is None else node.reason.value,
        chosen=lease is not None and lease.node == node.node,
    )


def _words(nodes: NodeAnswers, lease: Lease | None) -> Iterator[str]:
    """A sentence or two for each machine."""
    verb, plural = ("is", "are") if lease is None else ("was", "were")
    for node in nodes:
        count = f"{node.free} of {node.usable} suitable GPUs {verb if node.free == 1 else plural}"
        text = f"{node.node}: {count} free."
        if node.links is not None:
            text += f" The best of them have {node.links} NVLinks."
        if node.reason is not None:
            text += f" {REASONS[node.reason]}"
        elif lease is None:
            text += " It has room, and is kept for those who come first."
        elif lease.node == node.node:
            text += " It was chosen."
        else:
            text += " It came after the one that was chosen."
        yield text
