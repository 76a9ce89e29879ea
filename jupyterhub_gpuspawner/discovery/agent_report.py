"""What a node's agent sends to the scheduler: a report, numbered and signed. Pure.

The body is JSON in UTF-8::

    {"node": <the Swarm's id of the node>, "seq": <int>, "sent_at": <POSIX seconds>,
     "age": <seconds since the look began>, "error": <text>, "report": <Report> | null,
     "toolkit": <Toolkit> | null}

``error`` says why the GPUs could not be read, and then there is no report. Without ``toolkit``
nobody has looked at NVIDIA's. The signature is
HMAC-SHA256 of the body's bytes with the agents' key, as hex digits in :data:`HEADER`. Numbers
rise for each node, also over restarts of its agent, so that no message counts twice; and one
that was sent long ago does not count at all.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..errors import RequestError
from ..scheduler.models import Device, DeviceStatus, Health, Mode, Node
from .base import Process, Report, Usage
from .toolkit import Toolkit

#: header of the signature
HEADER = "X-Gpus-Signature"
#: the shortest key, in characters
SHORTEST_KEY = 32
#: seconds that a message may have been sent before or after the scheduler's own clock
FRESH = 120.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One message of an agent."""

    #: the Swarm's id of the node
    node: str
    #: rises with each message of the node
    seq: int
    #: POSIX seconds, by the node's clock
    sent_at: float
    #: seconds between the beginning of the look and the sending
    age: float
    #: None = the GPUs could not be read
    report: Report | None = None
    #: why not
    error: str = ""
    #: NVIDIA's container toolkit of the node; None = not looked at
    toolkit: Toolkit | None = None


def encode(message: Message) -> bytes:
    """The body of a message."""
    return json.dumps(asdict(message), separators=(",", ":"), allow_nan=False).encode()


def sign(body: bytes, key: str) -> str:
    """The signature of a body."""
    return hmac.new(key.encode(), body, hashlib.sha256).hexdigest()


def genuine(body: bytes, signature: str, key: str) -> bool:
    """Whether the signature is the key's, in constant time."""
    return hmac.compare_digest(sign(body, key).encode(), signature.encode("utf-8", "replace"))


def decode(body: bytes) -> Message:
    """Read a body whose signature is right. RequestError for one that is broken."""
    try:
        data = json.loads(body)
        # agents of an older version say nothing of the toolkit
        report, toolkit = data["report"], data.get("toolkit")
        message = Message(
            node=_text(data["node"]),
            seq=int(data["seq"]),
            sent_at=_number(data["sent_at"]),
            age=_number(data["age"]),
            report=None if report is None else _report(report),
            error=_text(data["error"]),
            toolkit=None if toolkit is None else _toolkit(toolkit),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise RequestError(f"the agent's report is broken: {type(error).__name__}") from error
    if message.age < 0:
        raise RequestError("the agent's report is broken: a negative age")
    return message


def _report(data: dict[str, Any]) -> Report:
    return Report(
        node=Node(
            name=_text(data["node"]["name"]),
            memory=int(data["node"]["memory"]),
            cpus=_number(data["node"]["cpus"]),
            boot_id=_text(data["node"]["boot_id"]),
        ),
        devices=tuple((_device(device), _status(status)) for device, status in data["devices"]),
        usage={_text(name): _usage(usage) for name, usage in data["usage"].items()},
        notes=tuple(_text(note) for note in data["notes"]),
    )


def _device(data: dict[str, Any]) -> Device:
    capability = data["capability"]
    # Without a cap: a service does not reach its node's MPS daemon, so nothing would enforce it.
    return Device(
        id=_text(data["id"]),
        node=_text(data["node"]),
        index=int(data["index"]),
        model=_text(data["model"]),
        memory=int(data["memory"]),
        mode=Mode(data["mode"]),
        atoms=int(data["atoms"]),
        parent=None if data["parent"] is None else _text(data["parent"]),
        capability=None if capability is None else (int(capability[0]), int(capability[1])),
        simulated=data["simulated"] is True,
        bonds=tuple((_text(name), int(worth)) for name, worth in data["bonds"]),
    )


def _status(data: dict[str, Any]) -> DeviceStatus:
    # what an admin decided, and quarantines, are no measurements: an agent has no say in them
    return DeviceStatus(
        health=Health(data["health"]), foreign=data["foreign"] is True, note=_text(data["note"])
    )


def _usage(data: dict[str, Any]) -> Usage:
    processes, used, share = data["processes"], data["memory_used"], data["utilisation"]
    return Usage(
        memory_used=None if used is None else int(used),
        utilisation=None if share is None else _number(share),
        processes=None if processes is None else tuple(_process(one) for one in processes),
    )


def _process(data: dict[str, Any]) -> Process:
    memory, container = data["memory"], data["container"]
    return Process(
        pid=int(data["pid"]),
        memory=None if memory is None else int(memory),
        container=None if container is None else _text(container),
        foreign=data["foreign"] is True,
    )


def _toolkit(data: dict[str, Any]) -> Toolkit:
    return Toolkit(
        version=_text(data["version"]),
        mounts=data["mounts"] is True,
        variables=data["variables"] is True,
        resources=tuple(_text(name) for name in data["resources"]),
        error=_text(data["error"]),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError("text")
    return value


def _number(value: Any) -> float:
    found = float(value)
    if not math.isfinite(found):
        raise ValueError("number")
    return found


#: what :func:`~.nvml_report.make_report` says of processes that are in no container of ours,
#: which an agent can't know
_JUDGED = "in use by "


def combined(listed: Report, told: Report, ours: frozenset[str]) -> Report:
    """What the manager lists about a node, with what its agent measured there.

    Parameters
    ----------
    listed:
        What may be given out: the node's resources.
    told:
        The agent's report.
    ours:
        Ids of the containers of our servers on the node: whose processes are not foreign.
    """
    measured = {device.id: (device, status) for device, status in told.devices}
    devices, usage = [], {}
    for device, status in listed.devices:
        if device.id not in measured:
            note = "; ".join(filter(None, (status.note, "the node's agent does not see it")))
            devices.append((device, replace(status, health=Health.SUSPECT, note=note)))
            continue
        better, found = measured[device.id]
        seen = told.usage.get(device.id)
        if seen is not None:
            seen = usage[device.id] = _judged(seen, ours)
        devices.append((replace(better, node=device.node), _status_of(status, found, seen)))
    unlisted = sorted(set(measured) - {device.id for device, _ in listed.devices})
    notes = [f"{name} is there, but not in node-generic-resources" for name in unlisted]
    return Report(
        node=replace(listed.node, boot_id=told.node.boot_id),
        devices=tuple(devices),
        usage=usage,
        notes=(*told.notes, *notes),
    )


def doubted(listed: Report, why: str) -> Report:
    """What the manager lists, where the agent can't read the GPUs: none of them is fine."""
    return replace(
        listed,
        devices=tuple(
            (
                device,
                replace(status, health=Health.SUSPECT, note=f"its source can't be read: {why}"),
            )
            for device, status in listed.devices
        ),
        usage={},
    )


def _judged(usage: Usage, ours: frozenset[str]) -> Usage:
    if not usage.processes:
        return usage
    found = tuple(replace(one, foreign=one.container not in ours) for one in usage.processes)
    return replace(usage, processes=found)


def _status_of(listed: DeviceStatus, found: DeviceStatus, usage: Usage | None) -> DeviceStatus:
    order = (Health.OK, Health.SUSPECT, Health.BAD)
    processes = (usage.processes if usage is not None else None) or ()
    foreign = [process for process in processes if process.foreign]
    notes = [listed.note, *(n for n in found.note.split("; ") if not n.startswith(_JUDGED))]
    if foreign:
        pids = ", ".join(str(process.pid) for process in foreign[:5])
        notes.append(f"in use by {len(foreign)} foreign process(es), PID {pids}")
    return DeviceStatus(
        health=max(listed.health, found.health, key=order.index),
        foreign=bool(foreign),
        note="; ".join(filter(None, notes)),
    )
