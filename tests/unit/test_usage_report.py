"""Who had how much of the GPUs in which period: the sums, by hand."""

from __future__ import annotations

import csv
import io
from datetime import datetime, timezone
from typing import Any

import pytest

from jupyterhub_gpuspawner.errors import RequestError
from jupyterhub_gpuspawner.scheduler.lost import LOST
from jupyterhub_gpuspawner.scheduler.models import Claim, GPURequest, Lease, LeaseState, ServerKey
from jupyterhub_gpuspawner.scheduler.policy import DAY, HOUR
from jupyterhub_gpuspawner.service.page_data import Viewer
from jupyterhub_gpuspawner.service.usage_report import Report, Row, Span, as_csv

ADMIN = Viewer(name="root", admin=True)


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()


NOON = at("2026-03-31T12:00")


def had(user: str, hours: float | None, gpus: int = 1, since: float = NOON, **more: Any) -> Lease:
    """A lease; ``hours`` None = it lives."""
    end = None if hours is None else since + hours * HOUR
    return Lease(
        id=f"{user}-{since}",
        key=ServerKey(hub="hub", user=user),
        request=GPURequest(count=gpus),
        node="n1",
        claims=tuple(Claim(device=f"g{n}", atom=0, lease_id="x") for n in range(gpus)),
        granted_at=since,
        released_at=end,
        state=LeaseState.RUNNING if end is None else LeaseState.RELEASED,
        **more,
    )


def report(*leases: Lease, viewer: Viewer = ADMIN, now: float = NOON + DAY, **span: Any) -> Any:
    known = {"starts_at": at("2026-03-31"), "ends_at": at("2026-04-02")}
    made = Report(span=Span(**{**known, **span}), viewer=viewer, now=now)
    for lease in leases:
        made.add(lease)
    return made.rows()


def brief(rows: list[Row]) -> list[tuple[str, float]]:
    return [(row.who, round(row.reserved_hours, 6)) for row in rows]


def test_hours_are_gpus_times_hours_and_who_had_most_is_first() -> None:
    rows = report(had("ann", 2), had("bob", 3, gpus=2), had("cy", 5, gpus=0), had("ann", 1))
    assert brief(rows) == [("bob", 6), ("ann", 3)]
    assert [row.servers for row in rows] == [1, 2]


def test_what_a_lost_machine_still_holds_is_nobodys_use() -> None:
    assert brief(report(had("ann", 2), had(f"{LOST}ann", None))) == [("ann", 2.0)]


def test_a_server_counts_in_each_period_with_its_part() -> None:
    rows = report(had("ann", 24), each="month")
    assert brief(rows) == [("ann", 12), ("ann", 12)]
    assert [row.starts_at for row in rows] == [at("2026-03-31"), at("2026-04-01")]
    assert rows[0].ends_at == at("2026-04-01")


def test_a_server_from_before_that_lives_counts_until_now() -> None:
    rows = report(had("ann", None, since=NOON - DAY), now=at("2026-03-31T06:00"))
    assert brief(rows) == [("ann", 6)]


@pytest.mark.parametrize(
    ("each", "starts"),
    [
        ("day", ["2026-03-30T12:00", "2026-03-31", "2026-04-01"]),
        ("week", ["2026-03-30T12:00"]),
        ("month", ["2026-03-30T12:00", "2026-04-01"]),
        ("all", ["2026-03-30T12:00"]),
    ],
)
def test_periods_begin_at_midnight_on_mondays_and_on_the_first(
    each: str, starts: list[str]
) -> None:
    span = Span(starts_at=at("2026-03-30T12:00"), ends_at=at("2026-04-02"), each=each)
    found = list(span.periods())
    assert [begin for begin, _ in found] == [at(text) for text in starts]
    assert [end for _, end in found] == [*(at(text) for text in starts[1:]), span.ends_at]


def test_a_leap_day_and_the_turn_of_a_year_are_ordinary() -> None:
    span = Span(starts_at=at("2027-12-15"), ends_at=at("2028-03-02"), each="month")
    begins = [begin for begin, _ in span.periods()]
    wanted = ["2027-12-15", "2028-01-01", "2028-02-01", "2028-03-01"]
    assert begins == [at(text) for text in wanted]


def test_what_was_seen_to_compute_is_used_and_what_nobody_saw_is_unknown() -> None:
    lease = had("ann", 4, gpus=2, watched=6 * HOUR, computed=2 * HOUR)
    (row,) = report(lease)
    assert (row.reserved_hours, row.used_hours, row.wasted_hours, row.unknown_hours) == (8, 2, 4, 2)
    late = at("2026-03-31T14:00")
    (half,) = report(lease, starts_at=late)
    assert (half.used_hours, half.wasted_hours, half.unknown_hours) == (1, 2, 1)


def test_a_user_of_two_groups_counts_in_both_and_one_of_none_in_none() -> None:
    rows = report(had("ann", 2, groups=("lab", "all")), had("bob", 1), by="group")
    assert brief(rows) == [("all", 2), ("lab", 2), ("", 1)]
    assert brief(report(had("ann", 2, groups=("lab", "all")), had("bob", 1), by="all")) == [("", 3)]


def test_a_user_sees_the_own_hours_and_a_leader_those_of_the_group() -> None:
    leases = had("ann", 1, groups=("lab", "x")), had("bob", 2, groups=("lab",)), had("cy", 4)
    assert brief(report(*leases, viewer=Viewer(name="ann"))) == [("ann", 1)]
    leader = Viewer(name="lea", groups=frozenset({"lab"}))
    assert brief(report(*leases, viewer=leader)) == [("bob", 2), ("ann", 1)]
    assert brief(report(*leases, viewer=leader, by="group")) == [("lab", 3)]


@pytest.mark.parametrize(("starts", "ends"), [(5.0, 5.0), (6.0, 5.0), (0.0, 401 * DAY)])
def test_no_report_is_made_of_a_wrong_span(starts: float, ends: float) -> None:
    with pytest.raises(RequestError, match="from, to"):
        Span(starts_at=starts, ends_at=ends).check()


def test_a_table_has_times_as_text_and_no_formulas() -> None:
    text = as_csv(report(had("=1+1", 2, watched=HOUR), had("a,b", 1)))
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["who"] for row in rows] == ["'=1+1", "a,b"]
    assert rows[0]["reserved_hours"] == "2.000"
    assert rows[0]["wasted_hours"] == "1.000"
    assert rows[0]["starts_at"] == "2026-03-31T00:00:00Z"
