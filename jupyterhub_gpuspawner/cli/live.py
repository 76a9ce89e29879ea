"""Commands that ask the scheduler that runs: who holds what, who waits, and what to keep free."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable

from ..units import format_duration, format_memory
from .command import OK, Argument, Command, Progress, answer, say, say_json
from .listing import Columns, listing
from .remote import WHERE, Remote

_DEVICES: Columns = {
    "device": lambda row: str(row["id"]),
    "machine": lambda row: f"{row['node']}:{row['index']}",
    "model": lambda row: str(row["model"]) + (" SIMULATED" if row["simulated"] else ""),
    "memory": lambda row: format_memory(row["memory"]),
    "state": lambda row: str(row["state"]),
    "used by": lambda row: str(row["used_by"]),
    "why": lambda row: str(row["note"] or (row["explanation"] if row["state"] != "busy" else "")),
}
_NODES: Columns = {
    "machine": lambda row: str(row["name"]),
    "state": lambda row: str(row["state"]),
    "memory granted": lambda row: format_memory(row["memory_granted"]),
    "of": lambda row: format_memory(row["memory_budget"]),
    "why": lambda row: str(row["explanation"]),
    "pulls": lambda row: ", ".join(f"{one['image']}: {one['state']}" for one in row["pulls"]),
}
_LEASES: Columns = {
    "lease": lambda row: str(row["id"]),
    "server": lambda row: str(row["server"]),
    "machine": lambda row: str(row["node"]),
    "GPUs": lambda row: ",".join(str(index) for index in row["indexes"]) or "-",
    "profile": lambda row: str(row["profile"]),
    "state": lambda row: str(row["state"]),
    "for": lambda row: _since(row["granted_at"]),
    "left": lambda row: "-" if row["ends_at"] is None else _until(row["ends_at"]),
}
_QUEUE: Columns = {
    "place": lambda row: str(row["position"]),
    "request": lambda row: str(row["id"]) or "-",
    "server": lambda row: str(row["server"]) or "somebody",
    "GPUs": lambda row: str(row["gpus"]),
    "waits": lambda row: _since(row["since"]),
    "starts in": lambda row: "-" if row["expected_at"] is None else _soon(row["expected_at"]),
    "why": lambda row: str(row["message"]),
}


def _since(then: float) -> str:
    return format_duration(max(0.0, time.time() - then))


def _until(then: float) -> str:
    left = then - time.time()
    return format_duration(left) if left > 0 else "over"


def _soon(then: float) -> str:
    left = then - time.time()
    return f"about {format_duration(left)}" if left > 0 else "soon"


def _status(arguments: argparse.Namespace) -> int:
    remote, progress = Remote.of(arguments), Progress()
    health = remote.health()
    devices = remote.list("devices", progress)
    nodes = remote.list("nodes", progress)
    waiting = remote.list("queue", progress)
    states = Counter(str(row["state"]) for row in devices)
    free = Counter(str(row["model"]) for row in devices if row["state"] == "free")
    found = {
        "phase": health["phase"],
        "message": health["message"],
        "version": health["version"],
        "machines": len(nodes),
        "devices": dict(states),
        "free": dict(free),
        "waiting": len(waiting),
        "simulated": any(row["simulated"] for row in devices),
    }
    if arguments.json:
        say_json(found)
        return OK
    say(f"scheduler {health['version']}: {health['phase']}. {health['message']}".rstrip(". ") + ".")
    kind = "SIMULATED GPUs" if found["simulated"] else "GPUs"
    counts = ", ".join(f"{states[state]} {state}" for state in sorted(states)) or "none"
    say(f"{kind} on {len(nodes)} machines: {counts}")
    if free:
        say("free: " + ", ".join(f"{count} {model}" for model, count in sorted(free.items())))
    say(f"waiting: {len(waiting)}")
    return OK


def _setting(admin: str, done: str) -> Callable[[argparse.Namespace], int]:
    """A command's work: keep free, or open."""

    def run(arguments: argparse.Namespace) -> int:
        kind = "nodes" if arguments.node else "devices"
        name = arguments.name
        Remote.of(arguments).post(kind, name, "admin", admin=admin, note=arguments.note or "")
        return answer(arguments, {"name": name, "admin": admin}, f"{name}: {done}")

    return run


def _lost(arguments: argparse.Namespace) -> int:
    name, empty = arguments.node, arguments.empty
    Remote.of(arguments).post("nodes", name, "lost", empty=empty, note=arguments.note or "")
    done = "its GPUs are nobody's" if empty else "gone for good; its servers are over"
    return answer(arguments, {"name": name, "empty": empty}, f"{name}: {done}")


def _explain(arguments: argparse.Namespace) -> int:
    found = Remote.of(arguments).explain(arguments.id)
    return answer(arguments, found, "\n".join(found["words"]))


def _cancel(arguments: argparse.Namespace) -> int:
    request = arguments.request
    Remote.of(arguments).post("queue", request, "cancel")
    return answer(arguments, {"request": request, "cancelled": True}, f"{request}: cancelled")


def _evict(arguments: argparse.Namespace) -> int:
    lease = arguments.lease
    Remote.of(arguments).post("leases", lease, "evict", message=arguments.message or "")
    found = {"lease": lease, "evicted": True}
    return answer(arguments, found, f"{lease}: its server is being stopped")


def _keeping(name: str, admin: str, done: str, help: str) -> Command:
    return Command(
        name=name,
        help=help,
        arguments=(
            Argument(name="NAME", help="UUID of the device, as `devices` shows it"),
            Argument(name="--node", help="NAME is a machine, as `nodes` shows it"),
            Argument(name="--note TEXT", help="why; shown to admins and kept in the journal"),
            *WHERE,
        ),
        run=_setting(admin, done),
    )


def _list(name: str, columns: Columns, help: str) -> Command:
    return Command(name=name, help=help, arguments=WHERE, run=listing(name, columns))


COMMANDS = (
    Command(
        name="status",
        help="Say how the scheduler is, what is free, and how many wait.",
        arguments=WHERE,
        run=_status,
    ),
    _list("devices", _DEVICES, "List all GPUs, and who holds them."),
    _list("nodes", _NODES, "List all machines."),
    _list("leases", _LEASES, "List what servers hold."),
    _list("queue", _QUEUE, "List who waits, the next one first."),
    Command(
        name="explain",
        help="Say why a request waits, or why a server got its GPUs.\n\nAlso of a lease that is "
        "over: it is read from the journal.",
        arguments=(
            Argument(name="ID", help="of a request or a lease, as `queue` and `leases` show it"),
            *WHERE,
        ),
        run=_explain,
    ),
    _keeping(
        "cordon",
        "cordoned",
        "nothing new is granted on it",
        "Keep a GPU or a machine free.\n\nWhat runs on it goes on.",
    ),
    _keeping(
        "drain",
        "draining",
        "nothing new is granted on it; what runs there goes on to its end",
        "Keep a GPU or a machine free, and mark it as to be emptied.\n\nWhat runs on it goes on.",
    ),
    _keeping("uncordon", "open", "open again", "Give a GPU or a machine out again."),
    Command(
        name="lost",
        help="Declare a machine that does not answer gone for good.\n\n"
        "Its servers are over: their users can start them elsewhere, and nothing of them counts "
        "against a limit. Should the machine come back, what still runs there is removed before "
        "its GPUs are given out. Refused while the machine answers.",
        arguments=(
            Argument(name="NODE", help="name of the machine, as `nodes` shows it"),
            Argument(
                name="--empty",
                help="you have made sure that nothing of it runs any more (it was booted or "
                "scrapped), and its GPUs may be given out should it come back. Needed only "
                "where that can't be proven: `leases` shows what is left of it as lost/USER",
            ),
            Argument(name="--note TEXT", help="why; kept in the journal"),
            *WHERE,
        ),
        run=_lost,
    ),
    Command(
        name="evict",
        help="Stop a server.\n\nIts user reads the message on the spawn page.",
        arguments=(
            Argument(name="LEASE", help="as `leases` shows it"),
            Argument(name="--message TEXT", help="what its user reads, in one line"),
            *WHERE,
        ),
        run=_evict,
    ),
    Command(
        name="cancel",
        help="Cancel a request that waits.",
        arguments=(Argument(name="REQUEST", help="its id, as `queue` shows it"), *WHERE),
        run=_cancel,
    ),
)
