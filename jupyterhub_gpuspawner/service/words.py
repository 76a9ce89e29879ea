"""What people read: a sentence for each reason, and a log line for each decision. Pure."""

from __future__ import annotations

import time
from collections.abc import Iterator

from .. import units
from ..scheduler.decisions import Decision, DeviceStored, EntryStored, LeaseStored, Noted
from ..scheduler.models import EntryState, Lease, LeaseState, Reason, ServerKey
from ..scheduler.state import SchedulerState

#: one sentence for the user
REASONS: dict[Reason, str] = {
    Reason.DEVICE_BUSY: "It is in use.",
    Reason.DEVICE_FOREIGN: "A program that JupyterHub did not start uses the GPU.",
    Reason.DEVICE_UNHEALTHY: "The GPU does not work properly at the moment.",
    Reason.DEVICE_CORDONED: "An administrator keeps the GPU free.",
    Reason.DEVICE_QUARANTINED: "The GPU hangs and needs an administrator.",
    Reason.DEVICE_MODEL: "It is another model.",
    Reason.DEVICE_MEMORY: "It has less memory than asked for.",
    Reason.DEVICE_SHARING: "It is divided in another way than asked for.",
    Reason.DEVICE_RESERVED: "The GPU is reserved.",
    Reason.DEVICE_UNCAPPED: "Nothing caps how much of its memory a server has, or not so low.",
    Reason.DEVICE_CAPABILITY: "Its compute capability is below the one asked for, or not known.",
    Reason.DEVICE_OTHER: "It is not the GPU that was asked for by name.",
    Reason.NODE_NOT_READY: "The machine does not answer, or is being checked.",
    Reason.NODE_CORDONED: "An administrator keeps the machine free.",
    Reason.NODE_MEMORY: "The machine has not enough free memory.",
    Reason.NODE_CPU: "The machine has not enough free processors.",
    Reason.NODE_OTHER: "It is not a machine that was asked for.",
    Reason.WAITING_FOR_DEVICES: "All suitable GPUs are in use.",
    Reason.BEHIND_OTHERS: "Others come first for the same GPUs.",
    Reason.USER_LIMIT: "You hold as many GPUs as you may; stop another server first.",
    Reason.GROUP_LIMIT: "Your group holds as many GPUs as it may.",
    Reason.USER_BUDGET: (
        "Your GPU hours for this period are used up: wait for the next one, or stop a server "
        "to get back what it does not use."
    ),
    Reason.GROUP_BUDGET: "Your group's GPU hours for this period are used up.",
    Reason.PREVIOUS_SERVER: "Your previous server is still stopping.",
    Reason.NOT_ATTACHED: "Nobody waits for it at the moment.",
    Reason.LEDGER_UNAVAILABLE: (
        "The scheduler can't store its decisions at the moment, so it grants nothing. "
        "Your place is kept."
    ),
    Reason.SCHEDULER_STARTING: "The scheduler is starting. Your place is kept.",
    Reason.ENGINE_UNAVAILABLE: "Docker does not answer at the moment. Your place is kept.",
    Reason.ENGINE_NOT_OURS: (
        "This machine's Docker belongs to another JupyterHub. Please tell an administrator."
    ),
    Reason.IMPOSSIBLE: "This can never be granted here.",
    Reason.RECLAIMED: "The server was past its length, and others waited for its GPUs.",
    Reason.IDLE: "Nobody used the server and its GPUs, so they were given to others.",
    Reason.EVICTED: "An administrator stopped the server.",
    Reason.NODE_LOST: "The machine of the server is gone for good.",
    Reason.TOO_LONG: "It may be extended by its own length from now, no more.",
    Reason.OTHERS_WAIT: "Somebody waits for the GPUs, so it is not extended.",
    Reason.BOOKING_REFUSED: "This can't be booked.",
    Reason.ADMIN_ONLY: "Only an administrator may ask for GPUs by name.",
    Reason.TOO_MANY_REQUESTS: "You ask too often. Wait a little, then start the server again.",
    Reason.CANCELLED: "The request was cancelled.",
    Reason.STOPPED: "The server was stopped.",
    Reason.START_TIMEOUT: "The server did not start in time.",
    Reason.EXITED: "The server ended by itself.",
    Reason.OUT_OF_MEMORY: "The server used more memory than its limit and was killed.",
    Reason.VANISHED: "The server's container was removed from outside.",
}


def why_stopped(lease: Lease) -> str:
    """What the user of a stopped server reads, where it was not the user's wish; else empty."""
    if lease.reason is Reason.EVICTED:
        said = f": {lease.note}" if lease.note else ""
        return f"stopped by an administrator{said}"
    if lease.reason is Reason.RECLAIMED:
        return "stopped: it was past its length, and others waited for its GPUs"
    if lease.reason is Reason.NODE_LOST:
        return "its machine is gone for good, and files that were only there with it"
    if lease.reason is Reason.IDLE:
        return "stopped: nobody used it and its GPUs for a long time; your files are kept"
    return ""


def why_warned(idle: bool) -> str:
    """Why a server will be stopped, as a beginning of a sentence."""
    return "nobody uses it and its GPUs" if idle else "past its length, and others wait"


def waiting(reason: Reason, ahead: int, simulated: bool = False) -> str:
    """What a waiting user reads. ``simulated``: the GPUs here only stand for real ones."""
    text = REASONS.get(reason, reason.value)
    if simulated:
        text = text.replace("GPU", "SIMULATED GPU", 1)
    if ahead <= 0:
        return text
    people = "1 request is" if ahead == 1 else f"{ahead} requests are"
    return f"{text} {people} ahead of yours."


def clock_time(at: float) -> str:
    """``14:05 UTC``."""
    return time.strftime("%H:%M UTC", time.gmtime(at))


def gpus(count: int) -> str:
    """``no GPU``, ``1 GPU``, ``2 GPUs``."""
    return "no GPU" if count == 0 else "1 GPU" if count == 1 else f"{count} GPUs"


def safe(text: object) -> str:
    """Text for one line of a log: a user name may hold a line end."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


class Announcer:
    """Log lines from decisions, one for each event; remembers what it has said."""

    def __init__(self) -> None:
        self._asked: dict[str, float] = {}
        #: live leases, as they were last heard of
        self.leases: dict[str, LeaseState] = {}
        #: lease -> when it will be stopped, as was said
        self._stops: dict[str, float | None] = {}

    def prime(self, state: SchedulerState) -> None:
        """What a restored state holds was said before."""
        entries = state.tables.entries.values()
        self._asked = {entry.id: entry.submitted_at for entry in entries}
        self.leases = {lease.id: lease.state for lease in state.tables.leases.values()}
        self._stops = {lease.id: lease.stop_at for lease in state.tables.leases.values()}

    def lines(self, decisions: list[Decision]) -> Iterator[str]:
        """One line for each thing that happened."""
        for decision in decisions:
            if isinstance(decision, EntryStored):
                yield from self._entry(decision)
            elif isinstance(decision, LeaseStored):
                yield from self._lease(decision)
            elif isinstance(decision, DeviceStored):
                note = decision.status.note
                if note:
                    yield f"{safe(decision.device.id)}: {safe(note)}"
            elif isinstance(decision, Noted):
                yield f"{safe(decision.subject or decision.kind)}: {safe(decision.text)}"

    def _warning(self, lease: Lease) -> Iterator[str]:
        """What a user should know before the server is stopped."""
        known, self._stops[lease.id] = self._stops.get(lease.id), lease.stop_at
        if not lease.live:
            del self._stops[lease.id]
        elif lease.stop_at is not None and known is None:
            end = clock_time(lease.stop_at)
            yield f"{_who(lease.key)}: {why_warned(lease.idle)}: will be stopped at {end}"
        elif lease.stop_at is None and known is not None:
            yield f"{_who(lease.key)}: the warning is withdrawn"

    def _entry(self, stored: EntryStored) -> Iterator[str]:
        entry = stored.entry
        if entry.state is EntryState.QUEUED:
            if entry.id not in self._asked:
                self._asked[entry.id] = entry.submitted_at
                yield f"{_who(entry.key)}: asks for {gpus(entry.request.count)}"
            return
        if entry.state is EntryState.CANCELLED and entry.lease_id is None:
            yield f"{_who(entry.key)}: request cancelled"
        if entry.state is not EntryState.GRANTED:
            self._asked.pop(entry.id, None)

    def _lease(self, stored: LeaseStored) -> Iterator[str]:
        lease = stored.lease
        before = self.leases.get(lease.id)
        yield from self._warning(lease)
        if before is lease.state:
            return
        self.leases[lease.id] = lease.state
        who = _who(lease.key)
        what = gpus(len(lease.devices))
        why = f" ({lease.reason})" if lease.reason else ""
        if lease.state is LeaseState.RESERVED:
            waited = lease.granted_at - self._asked.get(lease.id, lease.granted_at)
            after = units.format_duration(waited)
            yield f"{who}: granted {what} on {safe(lease.node)} after {after}"
        elif lease.state is LeaseState.RUNNING:
            yield f"{who}: runs with {what} on {safe(lease.node)}"
        elif lease.state is LeaseState.STOPPING and lease.container_id:
            yield f"{who}: stops{why}"
        elif lease.state is LeaseState.RELEASED:
            del self.leases[lease.id]
            held = units.format_duration((lease.released_at or lease.granted_at) - lease.granted_at)
            yield f"{who}: gave back {what} on {safe(lease.node)} after {held}{why}"


def _who(key: ServerKey) -> str:
    return safe(key)
