"""How the GPUs of well-known machines are connected, for simulated ones and for tests.

As their makers' documents and ``nvidia-smi topo -m`` show them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..scheduler.models import Device
from ..scheduler.topology import bond

#: NVLinks of a DGX-1 with V100s: a cube whose faces are meshes. Two GPUs without a link between
#: them reach each other through PCIe and the processors
_DGX_1V = (
    (0, 1, 1, 2, 2, 0, 0, 0),
    (1, 0, 2, 1, 0, 2, 0, 0),
    (1, 2, 0, 2, 0, 0, 1, 0),
    (2, 1, 2, 0, 0, 0, 0, 1),
    (2, 0, 0, 0, 0, 1, 1, 2),
    (0, 2, 0, 0, 1, 0, 2, 1),
    (0, 0, 1, 0, 1, 2, 0, 2),
    (0, 0, 0, 1, 2, 1, 2, 0),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """A machine: how many GPUs it has, and what is between them."""

    gpus: int
    #: (size, word): GPUs whose number is the same when divided by the size are so near; the
    #: first that holds counts, else ``SYS``
    near: tuple[tuple[int, str], ...]
    #: NVLinks of all pairs, where an NVSwitch connects them
    switched: int = 0
    #: else those of each pair
    meshed: tuple[tuple[int, ...], ...] = ()

    def bonds(self) -> list[list[int]]:
        """The matrix that :mod:`~jupyterhub_gpuspawner.scheduler.topology` works with."""
        every = range(self.gpus)
        return [[self._bond(a, b) if a != b else 0 for b in every] for a in every]

    def _bond(self, a: int, b: int) -> int:
        word = next((word for size, word in self.near if a // size == b // size), "SYS")
        return bond(self.meshed[a][b] if self.meshed else self.switched, word)


MODELS = {
    "dgx-1v": Model(gpus=8, near=((2, "PIX"), (4, "PHB")), meshed=_DGX_1V),
    "dgx-a100": Model(gpus=8, near=((2, "PXB"),), switched=12),
    "hgx-h100": Model(gpus=8, near=((4, "NODE"),), switched=18),
    # 16 GPUs behind NVSwitches
    "dgx-2": Model(gpus=16, near=((2, "PIX"), (4, "PXB"), (8, "NODE")), switched=6),
}


def wired(devices: tuple[Device, ...], model: Model) -> tuple[Device, ...]:
    """The devices, connected like the first ones of the model; every ``gpus`` of them anew."""
    bonds = model.bonds()
    found = []
    for place, device in enumerate(devices):
        begin = place - place % model.gpus
        board = devices[begin : begin + model.gpus]
        row = bonds[place % model.gpus]
        others = tuple((o.id, row[n]) for n, o in enumerate(board) if o.id != device.id)
        found.append(replace(device, bonds=others))
    return tuple(found)
