"""Who was seen to use what, and how long that has been known without a gap."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from .models import Lease

#: seconds after which what was seen is no longer known. Activity is asked for every minute
FRESH = 300.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Quiet:
    """That nobody uses something, POSIX seconds."""

    #: when it was last used
    used_at: float
    #: since when it is known without a gap whether it is used
    known_since: float

    def lasts(self, now: float) -> float:
        """Seconds for which it is known that nobody used it."""
        return now - max(self.used_at, self.known_since)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Seen:
    used_at: float
    known_since: float
    at: float


@dataclass(eq=False, slots=True)
class IdleFacts:
    """What was seen of servers (by lease) and of devices. Not durable.

    After a restart, and after each gap, knowing begins anew: in between it may have been used.
    """

    servers: dict[str, _Seen] = field(default_factory=dict)
    devices: dict[str, _Seen] = field(default_factory=dict)
    #: lease -> groups of its user, as the Hub said last
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)
    #: lease -> (GPU seconds watched, of which computing) that are not on record yet
    work: dict[str, tuple[float, float]] = field(default_factory=dict)

    def server(self, lease_id: str, used_at: float | None, now: float) -> None:
        """A server was last used then; None = nobody knows."""
        _note(self.servers, lease_id, used_at, now)

    def device(self, device_id: str, working: bool | None, now: float) -> None:
        """A device computes now, or does not; None = nobody knows."""
        _note(self.devices, device_id, None if working is None else now if working else 0.0, now)

    def worked(self, lease: Lease, device_id: str, working: bool | None, now: float) -> None:
        """Count what a lease's device does, from the last look at it until this one.

        To be called before :meth:`device`, which makes this look the last one.
        """
        last = self.devices.get(device_id)
        if last is None or working is None or now - last.at > FRESH:
            return
        atoms = sum(claim.device == device_id for claim in lease.claims)
        seconds = atoms * max(0.0, now - max(last.at, lease.granted_at))
        watched, computed = self.work.get(lease.id, (0.0, 0.0))
        self.work[lease.id] = (watched + seconds, computed + (seconds if working else 0.0))

    def quiet(self, lease_id: str, devices: Iterable[str], now: float) -> Quiet | None:
        """Since when neither the server nor any of the devices is used; None = not known."""
        seen = [self.servers.get(lease_id), *(self.devices.get(one) for one in devices)]
        known = [one for one in seen if one is not None and now - one.at <= FRESH]
        if len(known) < len(seen):
            return None
        return Quiet(
            used_at=max(one.used_at for one in known),
            known_since=max(one.known_since for one in known),
        )

    def forget(self, leases: Iterable[str]) -> None:
        """Keep only what is about these leases."""
        live = set(leases)
        self.servers = {id: seen for id, seen in self.servers.items() if id in live}
        self.groups = {id: names for id, names in self.groups.items() if id in live}
        self.work = {id: seconds for id, seconds in self.work.items() if id in live}


def _note(table: dict[str, _Seen], name: str, used_at: float | None, now: float) -> None:
    if used_at is None:
        table.pop(name, None)
        return
    old = table.get(name)
    if old is not None and now - old.at > FRESH:
        old = None
    # a clock that is ahead must not keep a server for ever
    used_at = min(used_at, now)
    table[name] = _Seen(
        used_at=used_at if old is None else max(old.used_at, used_at),
        known_since=now if old is None else old.known_since,
        at=now,
    )
