"""Which devices of a node: the ones that waste the least.

Which node is :meth:`~.capacity.Capacity.find`'s to say.
"""

from __future__ import annotations

from collections.abc import Container
from typing import TYPE_CHECKING

from .models import Claim, Device, Mode

if TYPE_CHECKING:
    from .rooms import Kind, Room, Want
    from .tables import Tables
    from .topology import Board


def pick(
    tables: Tables, room: Room, want: Want, wished: Container[str] = ()
) -> list[tuple[Device, list[int]]]:
    """``want.count`` free devices of the node with the atoms to take; it has that many.

    Least memory first, then of whole GPUs those that are connected best, then the fewest free
    atoms, then the lowest index, so that the choice is repeatable. ``wished``: devices that
    others wait for by name, which come last of their kind.
    """
    chosen: list[tuple[Device, list[int]]] = []
    for kind, own in _steps(want):
        shelf = room.shelves.get(kind)
        if shelf is None or not shelf.free:
            continue
        ids = want.among(shelf.free)
        if want.prefer:
            ids = ids & want.prefer if own else ids - want.prefer
        free = [(tables.devices[id], tables.free_atoms(tables.devices[id])) for id in ids]
        free.sort(key=lambda f: (f[0].id in wished, len(f[1]), f[0].index, f[0].id))
        more = want.count - len(chosen)
        if room.board is not None and more < len(free):
            free = _connected(room.board, free, more, wished)
        for device, atoms in free[:more]:
            # a whole GPU is all of its atoms; of a shared one a single slot, because two slots
            # of one GPU would be the same hardware twice
            chosen.append((device, atoms if device.mode is Mode.EXCLUSIVE else atoms[:1]))
    return chosen


def _connected(
    board: Board, free: list[tuple[Device, list[int]]], count: int, wished: Container[str]
) -> list[tuple[Device, list[int]]]:
    """Those ``count`` of the free ones of a kind that are connected best; all where unknown."""
    ids = [device.id for device, _ in free if device.id not in wished]
    known = all(id in board.rows for id in ids) and free[0][0].mode is Mode.EXCLUSIVE
    if not known or len(ids) < count:
        return free
    chosen = board.choose(ids, count)
    return [each for each in free if each[0].id in chosen]


def _steps(want: Want) -> list[tuple[Kind, bool]]:
    """The kinds in order; what is booked for those who ask comes first."""
    steps = [(kind, False) for kind in want.kinds]
    return [*((kind, True) for kind in want.kinds), *steps] if want.prefer else steps


def claims(
    tables: Tables, room: Room, want: Want, lease_id: str, wished: Container[str] = ()
) -> tuple[Claim, ...]:
    """The claims of a lease for ``want`` on the node."""
    return tuple(
        Claim(device=device.id, atom=atom, lease_id=lease_id)
        for device, atoms in pick(tables, room, want, wished)
        for atom in atoms
    )
