"""What the auditor found."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


class Kind(str, Enum):
    """Kinds of violation, by the promise (S1 to S12 of the design) that is broken."""

    #: S1: a device in two containers whose running times overlap
    DOUBLE = "double_grants"
    #: S2: a container runs with other devices than its label says, or than the kernel shows
    DEVICES = "wrong_devices"
    #: S3: something of ours that nobody owns is left on the engine
    LEAK = "leaked_containers"
    #: S3, S10: a device is held by a lease that has no container any more
    LOST = "lost_gpus"
    #: S11: a server that should run was stopped
    STOPPED = "stopped_running"
    #: S8, S10, S12: the ledger contradicts itself or the facts
    BOOK = "book_errors"
    #: S4, S5: more is given out than there is
    OVER = "over_capacity"
    #: S6: more is given to somebody than an admin allows
    QUOTA = "over_quota"
    #: S7: a device is given out that is unknown, unhealthy, drained or somebody else's
    BARRED = "barred_devices"
    #: S9: something that was repeated happened twice
    REPEATED = "repeated"


@dataclass(frozen=True, slots=True)
class Finding:
    """One violation."""

    kind: Kind
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """Counts by kind, and the findings in words."""

    double_grants: int = 0
    leaked_containers: int = 0
    wrong_devices: int = 0
    lost_gpus: int = 0
    stopped_running: int = 0
    book_errors: int = 0
    over_capacity: int = 0
    over_quota: int = 0
    barred_devices: int = 0
    repeated: int = 0
    details: tuple[str, ...] = ()

    @classmethod
    def of(cls, findings: Iterable[Finding]) -> Verdict:
        """Count ``findings``."""
        found = list(dict.fromkeys(findings))
        counts = {kind.value: sum(one.kind is kind for one in found) for kind in Kind}
        return cls(**counts, details=tuple(f"{one.kind.value}: {one.text}" for one in found))

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.details

    def __str__(self) -> str:
        return "\n".join(self.details) if self.details else "nothing found"
