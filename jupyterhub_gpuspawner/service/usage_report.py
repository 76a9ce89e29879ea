"""Who had how much of the GPUs in which period, from the ledger's leases. Pure.

A lease counts in each period with the part of it that is in the period. What its GPUs computed is
known only as a sum, which is spread evenly over the time that it held them. A user of several
groups counts in each of them.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta, timezone

from ..errors import RequestError
from ..scheduler.lost import is_remnant
from ..scheduler.models import Lease
from ..scheduler.policy import DAY, HOUR
from .page_data import Viewer

#: what is counted together, and in which periods
WHO, EACH = ("user", "group", "all"), ("all", "day", "week", "month")
#: seconds, the longest report
LONGEST = 400 * DAY
#: seconds before its beginning in which servers that count in it may have been granted
BEFORE = 400 * DAY


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """What a report is about. POSIX seconds."""

    starts_at: float
    ends_at: float
    #: one of :data:`WHO`
    by: str = "user"
    #: one of :data:`EACH`
    each: str = "all"

    def check(self) -> None:
        """RequestError where no report can be made of it."""
        if not self.starts_at < self.ends_at:
            raise RequestError("from, to: the end has to be after the beginning")
        if self.ends_at - self.starts_at > LONGEST:
            raise RequestError(f"from, to: at most {LONGEST / DAY:g} days in one report")

    def periods(self) -> Iterator[tuple[float, float]]:
        """Its periods in order, by UTC; the first and the last one may be cut off."""
        at = self.starts_at
        while at < self.ends_at:
            end = self.ends_at if self.each == "all" else min(_next(at, self.each), self.ends_at)
            yield at, end
            at = end


def _next(at: float, each: str) -> float:
    """When the period that the time is in ends."""
    begun = datetime.fromtimestamp(at, timezone.utc).replace(
        hour=0, minute=0, second=0, microsecond=0
    )
    if each == "week":
        return (begun + timedelta(days=7 - begun.weekday())).timestamp()
    if each == "month":
        return (begun.replace(day=28) + timedelta(days=4)).replace(day=1).timestamp()
    return (begun + timedelta(days=1)).timestamp()


@dataclass(kw_only=True, slots=True)
class Row:
    """One line: fields as in :class:`.api_models.Used`."""

    who: str
    starts_at: float
    ends_at: float
    servers: int = 0
    reserved_hours: float = 0.0
    used_hours: float = 0.0
    wasted_hours: float = 0.0
    unknown_hours: float = 0.0


@dataclass(kw_only=True, slots=True)
class Report:
    """Sums; :meth:`add` leases in any order."""

    span: Span
    viewer: Viewer
    now: float
    _rows: dict[tuple[float, str], Row] = field(default_factory=dict)

    def add(self, lease: Lease) -> None:
        """Count a lease, where it has GPUs and the viewer may see it."""
        ends_at = self.now if lease.released_at is None else lease.released_at
        whole = ends_at - lease.granted_at
        if not lease.claims or whole <= 0 or not self.viewer.may_see(lease) or is_remnant(lease):
            return
        gpus = len(lease.claims)
        for starts, ends in self.span.periods():
            seconds = min(ends, ends_at) - max(starts, lease.granted_at)
            if seconds > 0:
                for who in self._whose(lease):
                    self._count(who, (starts, ends), lease, gpus * seconds, seconds / whole)

    def _whose(self, lease: Lease) -> Iterable[str]:
        if self.span.by == "user":
            return (lease.key.user,)
        if self.span.by == "all":
            return ("",)
        own = self.viewer.admin or self.viewer.owns(lease.key)
        if own:
            return lease.groups or ("",)
        return self.viewer.groups.intersection(lease.groups)

    def _count(
        self, who: str, period: tuple[float, float], lease: Lease, seconds: float, part: float
    ) -> None:
        row = self._rows.get((period[0], who))
        if row is None:
            row = Row(who=who, starts_at=period[0], ends_at=period[1])
            self._rows[period[0], who] = row
        # what was seen may be a little more than what was held: looks take time
        watched = min(lease.watched * part, seconds)
        computed = min(lease.computed * part, watched)
        row.servers += 1
        row.reserved_hours += seconds / HOUR
        row.used_hours += computed / HOUR
        row.wasted_hours += (watched - computed) / HOUR
        row.unknown_hours += (seconds - watched) / HOUR

    def rows(self) -> list[Row]:
        """The lines: periods in order, in each who had most first."""
        return sorted(
            self._rows.values(), key=lambda row: (row.starts_at, -row.reserved_hours, row.who)
        )


#: what a spreadsheet would take for a formula
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def as_csv(rows: Iterable[Row]) -> str:
    """The lines for a spreadsheet: times as text, hours with three digits."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\r\n")
    names = [one.name for one in fields(Row)]
    writer.writerow(names)
    for row in rows:
        writer.writerow([_cell(name, getattr(row, name)) for name in names])
    return file.getvalue()


def _cell(name: str, value: object) -> object:
    if isinstance(value, str):
        # a user may be called like a formula
        return f"'{value}" if value.startswith(_FORMULA) else value
    if name.endswith("_at") and isinstance(value, float):
        return datetime.fromtimestamp(value, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"{value:.3f}" if isinstance(value, float) else value
