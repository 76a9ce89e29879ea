"""Which devices: best fit. Pure choices over what the filters let through.

Waste the least: the node with the fewest suitable devices left over, then the devices with the
least memory above what was asked for, then the lowest index, so that the choice is repeatable.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .models import Claim, Device, GPURequest, Mode


@dataclass(frozen=True, kw_only=True, slots=True)
class Offer:
    """What one node could give to a request now."""

    node: str
    #: suitable devices with their free atoms, in no order
    free: tuple[tuple[Device, tuple[int, ...]], ...]
    #: bytes of memory that stay free after the grant
    memory_left: int


def atoms_of(offer: Offer, request: GPURequest) -> list[tuple[Device, int]]:
    """The atoms of ``request.count`` devices, best first; none where the node has too few."""

    def waste(item: tuple[Device, tuple[int, ...]]) -> tuple[int, int, int, str]:
        device, atoms = item
        return (device.memory - request.min_memory, len(atoms), device.index, device.id)

    chosen: list[tuple[Device, int]] = []
    left = request.count
    for device, atoms in sorted(offer.free, key=waste):
        # a whole GPU is all of its atoms; of a shared one a single slot, because two slots of
        # one GPU would be the same hardware twice
        wanted = device.atoms if request.sharing is Mode.EXCLUSIVE else 1
        if left and len(atoms) >= wanted:
            chosen.extend((device, atom) for atom in atoms[:wanted])
            left -= 1
    return [] if left else chosen


def choose(
    offers: Iterable[Offer], request: GPURequest, lease_id: str
) -> tuple[str, tuple[Claim, ...]] | None:
    """The node and claims for ``request``, or None where no node has enough."""
    fitting: list[tuple[tuple[int, int, int, str], Offer, list[tuple[Device, int]]]] = []
    for offer in offers:
        atoms = atoms_of(offer, request)
        if not atoms and request.count:
            continue
        wasted = sum(device.memory - request.min_memory for device, _ in atoms)
        left_over = len(offer.free) - request.count
        fitting.append(((left_over, wasted, offer.memory_left, offer.node), offer, atoms))
    if not fitting:
        return None
    _, best, atoms = min(fitting, key=lambda candidate: candidate[0])
    claims = (Claim(device=device.id, atom=atom, lease_id=lease_id) for device, atom in atoms)
    return best.node, tuple(claims)
