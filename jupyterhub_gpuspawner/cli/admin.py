"""Commands of those who answer for the machines: bookings, reports, the audit log."""

from __future__ import annotations

import argparse
import time
import uuid
from datetime import datetime, timezone
from typing import Any

from ..units import format_duration, parse_duration
from .command import OK, Argument, Command, CommandError, Progress, answer, say
from .listing import Columns, Row, listing, show
from .remote import WHERE, Remote

#: ways to write a time, by UTC
_TIMES = ("%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%SZ")
_WHEN = "YYYY-MM-DD or YYYY-MM-DDTHH:MM, by UTC"


def moment(text: str) -> float:
    """POSIX seconds of what somebody wrote; ``now`` too. CommandError."""
    if text == "now":
        return time.time()
    for form in _TIMES:
        try:
            return datetime.strptime(text, form).replace(tzinfo=timezone.utc).timestamp()
        except ValueError:
            continue
    raise CommandError(f"{text!r} is not a time; want {_WHEN}, or now")


def _shown(at: float) -> str:
    return datetime.fromtimestamp(at, timezone.utc).strftime("%Y-%m-%d %H:%M")


# -- bookings ------------------------------------------------------------------------------------

_BOOKINGS: Columns = {
    "booking": lambda row: str(row["id"]),
    "for": lambda row: ", ".join([*row["groups"], *row["users"]]) or "-",
    "GPUs": lambda row: str(len(row["devices"])),
    "from (UTC)": lambda row: _shown(row["starts_at"]),
    "to (UTC)": lambda row: _shown(row["ends_at"]),
    "name": lambda row: str(row["name"]),
}


def _reserve(arguments: argparse.Namespace) -> int:
    starts_at = moment(arguments.since)
    try:
        ends_at = starts_at + parse_duration(arguments.length) if arguments.length else None
    except ValueError as error:
        raise CommandError(f"--for: {error}") from None
    if (ends_at is None) is (arguments.to is None):
        raise CommandError("say when it ends, by --to or by --for")
    body = {
        "id": uuid.uuid4().hex,
        "name": arguments.name or "",
        "devices": arguments.devices,
        "nodes": arguments.node,
        "groups": arguments.group,
        "users": arguments.user,
        "starts_at": starts_at,
        "ends_at": moment(arguments.to) if ends_at is None else ends_at,
    }
    made = Remote.of(arguments).post("bookings", **body)["id"]
    span = f"from {_shown(body['starts_at'])} to {_shown(body['ends_at'])} UTC"
    return answer(arguments, {"booking": made}, f"{made}: booked {span}")


def _unreserve(arguments: argparse.Namespace) -> int:
    Remote.of(arguments).post("bookings", arguments.booking, "cancel")
    removed = {"booking": arguments.booking, "removed": True}
    return answer(arguments, removed, f"{arguments.booking}: its GPUs are for everybody again")


# -- groups, usage, audit ------------------------------------------------------------------------


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:g}"


def _budget(row: Row) -> str:
    if row["budget_hours"] is None:
        return "-"
    period = format_duration(row["budget_period"])
    return f"{row['spent_hours']:.1f} of {row['budget_hours']:g} h in {period}"


_GROUPS: Columns = {
    "group": lambda row: str(row["name"]),
    "held": lambda row: str(row["held"]),
    "limit": lambda row: _number(row["limit"]),
    "quota": lambda row: _number(row["quota"]),
    "borrow": lambda row: (
        "any" if row["quota"] is not None is row["borrow"] else _number(row["borrow"])
    ),
    "waiting": lambda row: str(row["waiting"]),
    "budget": _budget,
}
_USAGE: Columns = {
    "from (UTC)": lambda row: _shown(row["starts_at"]),
    "who": lambda row: str(row["who"]) or "-",
    "servers": lambda row: str(row["servers"]),
    "GPU hours": lambda row: f"{row['reserved_hours']:.2f}",
    "used": lambda row: f"{row['used_hours']:.2f}",
    "wasted": lambda row: f"{row['wasted_hours']:.2f}",
    "unknown": lambda row: f"{row['unknown_hours']:.2f}",
}
_AUDIT: Columns = {
    "when (UTC)": lambda row: _shown(row["time"]),
    "what": lambda row: str(row["subject"] or row["kind"]),
    "how": lambda row: str(row["text"]),
}


def _report(arguments: argparse.Namespace) -> int:
    query = {
        "by": arguments.by,
        "period": arguments.period,
        "from": int(moment(arguments.since)) if arguments.since else 0,
        "to": int(moment(arguments.to)) if arguments.to else 0,
    }
    if arguments.csv and arguments.json:
        raise CommandError("--csv or --json, not both")
    remote = Remote.of(arguments)
    if arguments.csv:
        say(remote.text("usage.csv", query).replace("\r\n", "\n").rstrip("\n"))
        return OK
    return show(arguments, remote.list("usage", Progress(), query), _USAGE)


def _audit(arguments: argparse.Namespace) -> int:
    try:
        limit = int(arguments.last or 50)
    except ValueError:
        raise CommandError(f"--last {arguments.last}: want a number") from None
    return show(arguments, Remote.of(arguments).newest("audit", limit), _AUDIT)


def _priority(arguments: argparse.Namespace) -> int:
    try:
        priority = int(arguments.number)
    except ValueError:
        raise CommandError(f"{arguments.number!r} is not a whole number") from None
    Remote.of(arguments).post("queue", arguments.request, "priority", priority=priority)
    found = {"request": arguments.request, "priority": priority}
    return answer(arguments, found, f"{arguments.request}: priority {priority}")


def _many(name: str, help: str) -> Argument:
    return Argument(name=name, help=f"{help}; may be given again", more=_APPEND)


_APPEND: dict[str, Any] = {"action": "append", "default": []}
_SINCE = {"dest": "since"}

COMMANDS = (
    Command(
        name="groups",
        help="List groups with what they hold, their limits, shares and budgets.",
        arguments=WHERE,
        run=listing("groups", _GROUPS),
    ),
    Command(
        name="priority",
        help="Serve a request before the others, or after them.\n\nHigher is first; 0 is like the "
        "others. A negative number goes behind `--`.",
        arguments=(
            Argument(name="REQUEST", help="its id, as `queue` shows it"),
            Argument(name="NUMBER", help="from -1000 to 1000"),
            *WHERE,
        ),
        run=_priority,
    ),
    Command(
        name="reserve list",
        help="List the GPUs that are kept for some users in a window of time.",
        arguments=WHERE,
        run=listing("bookings", _BOOKINGS),
    ),
    Command(
        name="reserve add",
        help="Keep GPUs for users or groups in a window of time.\n\nOthers get them before only "
        "with a length that ends by then. What runs at the beginning is not stopped.",
        arguments=(
            Argument(
                name="DEVICES", help="UUIDs of GPUs, as `devices` shows them", more={"nargs": "*"}
            ),
            _many("--node NAME", "a machine, with all of its GPUs"),
            _many("--group NAME", "a group that it is for"),
            _many("--user NAME", "a user that it is for"),
            Argument(
                name="--from TIME", help=f"{_WHEN}; or now", more={**_SINCE, "default": "now"}
            ),
            Argument(name="--to TIME", help=f"when it ends: {_WHEN}"),
            Argument(
                name="--for LENGTH", help="or how long it is, such as 4h", more={"dest": "length"}
            ),
            Argument(name="--name TEXT", help="what it is for; everybody may read it"),
            *WHERE,
        ),
        run=_reserve,
    ),
    Command(
        name="reserve remove",
        help="Keep them no longer.",
        arguments=(Argument(name="BOOKING", help="its id, as `reserve list` shows it"), *WHERE),
        run=_unreserve,
    ),
    Command(
        name="report",
        help="Say who had how many GPU hours: reserved, used, wasted.\n\nReserved is what servers "
        "held. Used are those hours in which a GPU was seen to compute, wasted those in which it "
        "was seen not to, unknown the rest. A user of several groups counts in each of them.",
        arguments=(
            Argument(
                name="--by WHO",
                help="user (the default), group, or all",
                more={"choices": ("user", "group", "all"), "default": "user"},
            ),
            Argument(
                name="--period PERIOD",
                help="in parts: day, week or month, by UTC; all (the default) is one",
                more={"choices": ("all", "day", "week", "month"), "default": "all"},
            ),
            Argument(
                name="--from TIME", help=f"{_WHEN}; default: 30 days before the end", more=_SINCE
            ),
            Argument(name="--to TIME", help=f"{_WHEN}; default: now"),
            Argument(name="--csv", help="print a table for a spreadsheet"),
            *WHERE,
        ),
        run=_report,
    ),
    Command(
        name="audit",
        help="List what admins did and what happened, the newest first.",
        arguments=(Argument(name="--last NUMBER", help="how many; default 50"), *WHERE),
        run=_audit,
    ),
)
