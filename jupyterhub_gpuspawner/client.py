"""The spawner's view of the scheduler service: ask and wait, bind, report.

Every call says what it knows. A service that does not answer is never taken for a no:
:meth:`SchedulerClient.request` retries for as long as the user waits, the others raise
:class:`~jupyterhub_gpuspawner.errors.SchedulerUnavailable`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import aiohttp

from .errors import RefusedError, SchedulerUnavailable
from .scheduler.models import Device, GPURequest, Injection

log = logging.getLogger(__name__)

#: Identity of this Hub process. Entries of another boot belong to a Hub that is gone.
BOOT_ID = uuid.uuid4().hex

#: Seconds without a line after which a stream is taken for dead (the service sends one every 10).
SILENCE = 30.0

#: Seconds to connect.
CONNECT = 5.0

#: Seconds between attempts while the service does not answer: first, and at most. Short, because
#: after a restart of the service whoever is back first could be granted first.
RETRY_FIRST, RETRY_MOST = 0.2, 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """What one spawn asks the scheduler for."""

    user: str
    server: str
    groups: tuple[str, ...]
    profile: str
    request: GPURequest
    #: the user is an admin of the Hub
    admin: bool = False

    def body(self) -> dict[str, Any]:
        """The JSON body of the request."""
        request = self.request
        return {
            "user": self.user,
            "server": self.server,
            "groups": list(self.groups),
            "profile": self.profile,
            "boot_id": BOOT_ID,
            "admin": self.admin,
            "request": {
                "count": request.count,
                "model": request.model,
                "min_memory": request.min_memory,
                "sharing": request.sharing.value,
                "cap": request.cap,
                "length": request.length,
                "cpu": request.cpu,
                "memory": request.memory,
                "min_capability": request.min_capability,
                "node": request.node,
                "pool": request.pool,
                "not_node": request.not_node,
                "devices": list(request.devices),
                "image": request.image,
            },
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Queued:
    """The request waits."""

    entry: str
    #: 1 = next; 0 = not known (the service does not answer)
    position: int
    reason: str
    #: one sentence for the user
    message: str

    @property
    def line(self) -> str:
        """What the pending page shows."""
        if self.position == 0:
            return self.message
        return f"Waiting, position {self.position} in the queue: {self.message}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Granted:
    """The request got its lease."""

    lease: str
    node: str
    ledger: str
    devices: tuple[Device, ...]
    injection: Injection

    @property
    def what(self) -> str:
        """The devices in words: ``SIMULATED GPU 0, SIMULATED GPU 1``."""
        return ", ".join(map(_named, self.devices)) or "no GPU asked for"

    @property
    def where(self) -> str:
        """The node, and the devices with their ids, for admins."""
        held = (f"{_named(device)} ({device.id})" for device in self.devices)
        return f"{self.node}: {', '.join(held) or 'no GPU'}"


def _named(device: Device) -> str:
    return f"{'SIMULATED ' if device.simulated else ''}GPU {device.index}"


@dataclass(frozen=True, kw_only=True, slots=True)
class End:
    """What the service says to a reported end."""

    #: its devices are free
    released: bool
    #: why the scheduler or an admin has stopped it, for its user; empty = they have not
    why: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Warned:
    """What is to become of a server, POSIX seconds."""

    #: it will be stopped then; None = it will not
    stop_at: float | None = None
    #: because nobody uses it, so that its user can have it kept
    idle: bool = False
    #: until then it is left alone although nobody uses it; None = it is not
    kept_until: float | None = None

    def body(self) -> dict[str, Any]:
        """As the server is told."""
        return {"stop_at": self.stop_at, "idle": self.idle, "kept_until": self.kept_until}


class SchedulerClient:
    """HTTP client of the scheduler service. One per Hub process; safe to share.

    Parameters
    ----------
    url:
        Base URL of the service, e.g. ``http://127.0.0.1:8750/services/gpus/``.
    token:
        The service token.
    timeout:
        Seconds for each call but :meth:`request`.
    """

    def __init__(self, url: str, token: str, timeout: float = 20.0) -> None:
        self._base = url.rstrip("/") + "/api/"
        self._headers = {"Authorization": f"token {token}"}
        self._timeout = timeout
        self._session: aiohttp.ClientSession | None = None
        #: what was wrong with the service last; empty = nothing
        self._trouble = ""

    async def close(self) -> None:
        """Close all connections. May be repeated."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def request(self, ask: Ask) -> AsyncGenerator[Queued | Granted, None]:
        """Put ``ask`` in line; yield what changes until it is granted.

        Closing the generator closes the connection: it leaves the line without a word (see
        ``detach_grace``). Raises ``RefusedError`` where waiting would not help, and where the
        user asks too often.
        """
        delay = RETRY_FIRST
        in_line = False
        while True:
            try:
                async with aclosing(self._stream(ask)) as events:
                    async for event in events:
                        delay = RETRY_FIRST
                        in_line = True
                        yield event
                        if isinstance(event, Granted):
                            return
            except SchedulerUnavailable as error:
                self._log_trouble(error)
                yield Queued(
                    entry="",
                    position=0,
                    reason="scheduler_unavailable",
                    message="The scheduler does not answer right now. Your place is kept.",
                )
            except RefusedError as error:
                if not in_line or error.retry_after is None:
                    raise
                # who waits already only comes back too often: the place is there still
                delay = error.retry_after
            await asyncio.sleep(delay)
            delay = min(delay * 2, RETRY_MOST)

    def _log_trouble(self, error: SchedulerUnavailable) -> None:
        """Say once, not for each who waits, what is wrong with the service."""
        text = error.log_message
        if text != self._trouble:
            self._trouble = text
            log.warning("requests wait: %s", text)

    async def _stream(self, ask: Ask) -> AsyncGenerator[Queued | Granted, None]:
        """One connection: yields events until the service ends it. Raises on a cut."""
        limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT, sock_read=SILENCE)
        try:
            # leaving this block closes the connection, which is how the service learns of it
            async with self._http().post(
                f"{self._base}internal/requests",
                json=ask.body(),
                headers=self._headers,
                timeout=limits,
            ) as response:
                if response.status != 200:
                    raise _http_error(response, await response.read())
                self._trouble = ""
                async for line in response.content:
                    if line.strip():
                        yield _event(line)
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            raise SchedulerUnavailable(f"the scheduler's stream broke: {error!r}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise SchedulerUnavailable(f"the scheduler's stream is odd: {error!r}") from error
        raise SchedulerUnavailable("the scheduler ended the stream without a decision")

    def _http(self) -> aiohttp.ClientSession:
        """The session, made in the event loop that uses it."""
        if self._session is None or self._session.closed:
            # a connection for each waiting user, as many as there are
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        return self._session

    async def cancel(self, entry: str) -> None:
        """Leave the line for good. May be repeated."""
        await self._call("POST", f"internal/requests/{quote(entry, safe='')}/cancel", {})

    async def taken(self, lease: str) -> None:
        """Report that the grant was heard of. May be repeated.

        A lease of which this is never said is taken back: its spawn was cancelled while the
        answer was on its way.
        """
        await self._call("POST", _lease(lease, "taken"), {})

    async def bind(self, lease: str, container_id: str) -> None:
        """Record the container that is about to start.

        Raises ``RefusedError`` where the lease is over: the caller removes its container.
        """
        await self._call("POST", _lease(lease, "bind"), {"container_id": container_id})

    async def running(self, lease: str) -> None:
        """Report that the container runs. May be repeated."""
        await self._call("POST", _lease(lease, "running"), {})

    async def activity(self, lease: str, idle_for: float | None, groups: tuple[str, ...]) -> None:
        """Report for how many seconds nobody has used a server; None = not known."""
        body = {"idle_for": idle_for, "groups": list(groups)}
        await self._call("POST", _lease(lease, "activity"), body)

    async def warned(self) -> dict[str, Warned]:
        """Lease -> what is to become of its server, of those that are warned or kept."""
        answer = await self._call("GET", "internal/warned", None)
        try:
            return {str(lease): _warned(row) for lease, row in answer["warned"].items()}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise SchedulerUnavailable(f"GET internal/warned: an odd answer: {error!r}") from error

    async def keep(self, lease: str) -> None:
        """Have a server left alone for a while although nobody uses it. May be repeated."""
        await self._call("POST", f"leases/{quote(lease, safe='')}/keep", {})

    async def stopping(self, lease: str, reason: str) -> None:
        """Store that the server shall go, before it is stopped. May be repeated."""
        await self._call("POST", _lease(lease, "stopping"), {"reason": reason})

    async def ended(
        self, lease: str, *, reason: str, note: str, exit_code: int | None, oom: bool
    ) -> End:
        """Report an end. The service looks for itself."""
        body = {"reason": reason, "note": note, "exit_code": exit_code, "oom": oom}
        answer = await self._call("POST", _lease(lease, "ended"), body)
        return End(released=bool(answer.get("released")), why=str(answer.get("why") or ""))

    async def hello(self) -> None:
        """Say that this Hub process is the one that lives now."""
        await self._call("POST", "internal/hub", {"boot_id": BOOT_ID})

    async def summary(self) -> dict[str, Any]:
        """Devices, nodes and queue length as the service sees them now."""
        return await self._call("GET", "internal/summary", None)

    async def _call(self, method: str, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        limits = aiohttp.ClientTimeout(total=self._timeout, sock_connect=CONNECT)
        try:
            async with self._http().request(
                method, self._base + path, json=body, headers=self._headers, timeout=limits
            ) as response:
                data = await response.read()
            if response.status != 200:
                raise _http_error(response, data)
            answer = json.loads(data)
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError, ValueError) as error:
            raise SchedulerUnavailable(f"{method} {path}: {error!r}") from error
        if not isinstance(answer, dict):
            raise SchedulerUnavailable(f"{method} {path}: answered {type(answer).__name__}")
        return answer


def _lease(lease: str, verb: str) -> str:
    return f"internal/leases/{quote(lease, safe='')}/{verb}"


def _event(line: bytes) -> Queued | Granted:
    data = json.loads(line)
    kind = data["event"]
    if kind == "granted":
        lease = data["lease"]
        return Granted(
            lease=lease["id"],
            node=lease["node"],
            ledger=lease["ledger"],
            devices=tuple(_device(device, lease["node"]) for device in lease["devices"]),
            injection=Injection(lease["injection"]),
        )
    if kind == "refused":
        raise RefusedError(
            f"refused: {data['reason']}: {data['message']}",
            data["message"],
            reason=data["reason"],
        )
    return Queued(
        entry=data["entry"],
        position=int(data["position"]),
        reason=data["reason"],
        message=data["message"],
    )


def _warned(row: Any) -> Warned:
    stop_at, kept_until = row["stop_at"], row["kept_until"]
    return Warned(
        stop_at=None if stop_at is None else float(stop_at),
        idle=bool(row["idle"]),
        kept_until=None if kept_until is None else float(kept_until),
    )


def _device(data: dict[str, Any], node: str) -> Device:
    return Device(
        id=data["id"],
        node=node,
        index=int(data.get("index", 0)),
        model=data.get("model", ""),
        memory=int(data.get("memory", 0)),
        simulated=bool(data.get("simulated", False)),
        cap=int(data.get("cap", 0)),
        mps=data.get("mps", ""),
    )


def _http_error(
    response: aiohttp.ClientResponse, body: bytes
) -> RefusedError | SchedulerUnavailable:
    """4xx with a reason is an answer; anything else means that nothing is known."""
    status = response.status
    try:
        data = json.loads(body)
        reason, message = str(data["reason"]), str(data["message"])
    except (ValueError, KeyError, TypeError):
        return SchedulerUnavailable(f"the scheduler answered {status}: {body[:200]!r}")
    if status in (400, 404, 409, 429):
        text = f"the scheduler refused: {reason}: {message}"
        after = _seconds(response.headers.get("Retry-After")) if status == 429 else None
        return RefusedError(text, message, reason=reason, retry_after=after)
    return SchedulerUnavailable(f"the scheduler answered {status}: {reason}: {message}")


def _seconds(header: str | None) -> int:
    """Whole seconds of a ``Retry-After``, 1 to 3600."""
    return min(max(int(header), 1), 3600) if header and header.isdecimal() else 1
