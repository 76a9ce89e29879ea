"""A Docker socket that fails on request: a proxy before a real engine.

Every call is written down by a name without ids, such as ``POST /containers/{id}/start``. A fault
is armed for a name and happens at its n-th call from then on; all else goes through to the engine
and back as it is. One call for each connection: who calls is told to close, so that no call can
hide behind another.
"""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

_HEAD_END = b"\r\n\r\n"
_CHUNK = 65536
_CONTAINER = re.compile(r"^/containers/(?!json$|create$|prune$)([^/]+)")

#: what happens to a call; see :meth:`FaultSocket._fail`
FAULTS = (
    "refused",
    "404",
    "409",
    "500",
    "503",
    "slow",
    "cut",
    "broken",
    "silent before",
    "silent after",
)
#: only for calls that name a container: it is removed in the moment before
GONE = "gone"


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One request, as far as a fault needs to know it."""

    method: str
    target: str
    raw: bytes

    @property
    def path(self) -> str:
        """Without the API version and the query."""
        return re.sub(r"^/v1\.\d+", "", urlsplit(self.target).path)

    @property
    def name(self) -> str:
        """Method and path, with ``{id}`` for what differs from call to call."""
        path = _CONTAINER.sub("/containers/{id}", self.path)
        path = re.sub(r"^/images/(?!create$|json$).+?(/json|/history)?$", r"/images/{name}\1", path)
        path = re.sub(r"^/volumes/(?!create$)[^/]+$", "/volumes/{name}", path)
        path = re.sub(r"^/networks/(?!create$)[^/]+", "/networks/{id}", path)
        if path == "/containers/json":
            # two lists with different readers: ours, and everybody's
            path += "?filters" if "filters" in parse_qs(urlsplit(self.target).query) else ""
        return f"{self.method} {path}"

    @property
    def container(self) -> str | None:
        """Id or name of the container in the path."""
        found = _CONTAINER.match(self.path)
        return found.group(1) if found else None


@dataclass(kw_only=True, eq=False)
class Rule:
    """One armed fault."""

    call: str
    fault: str
    #: how many calls of that name pass before
    skip: int = 0
    #: how many calls it happens to; 0 = all that follow
    times: int = 1
    #: seconds of "slow"
    delay: float = 1.0
    #: only calls about this container; "" = any
    container: str = ""
    fired: threading.Event = field(default_factory=threading.Event)
    #: how many calls it happened to
    count: int = 0

    def takes(self, call: Call) -> bool:
        """Whether it happens to this call; counts it. The socket's lock is held."""
        if call.name != self.call or (self.times and self.count >= self.times):
            return False
        if self.container and not (call.container or "").startswith(self.container):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.count += 1
        return True


class FaultSocket:
    """A unix socket at ``path`` that speaks for the engine at ``upstream``."""

    def __init__(self, upstream: Path, path: Path) -> None:
        self._upstream = str(upstream)
        self._path = path
        self._lock = threading.Lock()
        self._rules: list[Rule] = []
        self._healed = threading.Event()
        #: names of all calls so far, in order
        self.calls: list[str] = []
        #: answers that are being handed on: name of the call, connection to the engine
        self._passing: list[tuple[str, socket.socket]] = []
        self._listener: socket.socket | None = None
        self._listen()

    @property
    def base_url(self) -> str:
        """What a client of Docker is given."""
        return f"unix://{self._path}"

    def arm(self, call: str, fault: str, **options: Any) -> Rule:
        """Have ``fault`` happen to a call of this name; see :class:`Rule`."""
        rule = Rule(call=call, fault=fault, **options)
        with self._lock:
            self._healed = threading.Event()
            self._rules.append(rule)
        return rule

    def heal(self) -> None:
        """End all faults: what is held is let go unanswered, and calls go through again."""
        with self._lock:
            self._rules.clear()
            self._healed.set()
        if self._listener is None:
            self._listen()

    def hang_up(self, call: str) -> None:
        """Break off the answers to a call that are on their way, such as a stream of events."""
        with self._lock:
            streams = [engine for name, engine in self._passing if name == call]
        for engine in streams:
            with suppress(OSError):
                engine.shutdown(socket.SHUT_RDWR)

    def refuse(self) -> None:
        """Nobody listens any more (connection refused), until :meth:`heal`."""
        with self._lock:
            listener, self._listener = self._listener, None
        if listener is not None:
            # close alone would not wake the thread in accept
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    def close(self) -> None:
        """End it."""
        self._healed.set()
        self.refuse()
        self._path.unlink(missing_ok=True)

    # -- the work --------------------------------------------------------------------------

    def _listen(self) -> None:
        self._path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self._path))
        listener.listen(128)
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            call = _read_call(client)
            if call is None:
                return
            with self._lock:
                self.calls.append(call.name)
                rule = next((rule for rule in self._rules if rule.takes(call)), None)
                healed = self._healed
            if rule is None:
                self._pass(call, client)
                return
            self._fail(rule, call, client, healed)

    def _fail(self, rule: Rule, call: Call, client: socket.socket, healed: threading.Event) -> None:
        if rule.fault == "refused":
            self.refuse()
        rule.fired.set()
        if rule.fault in _ANSWERS:
            client.sendall(_ANSWERS[rule.fault](call))
        elif rule.fault == "slow":
            healed.wait(rule.delay)
            self._pass(call, client)
        elif rule.fault == "cut":
            head, end, body = self._ask(call).partition(_HEAD_END)
            client.sendall(head + end + body[: len(body) // 2])
        elif rule.fault == "broken":
            head, _, body = self._ask(call).partition(_HEAD_END)
            client.sendall(_broken(head, body))
        elif rule.fault == "silent before":
            _until_hung_up(client, healed)
        elif rule.fault == "silent after":
            self._ask(call)
            _until_hung_up(client, healed)
        elif rule.fault == GONE:
            self._ask(_removal(call))
            self._pass(call, client)

    def _connect(self, call: Call) -> socket.socket:
        engine = socket.socket(socket.AF_UNIX)
        engine.connect(self._upstream)
        engine.sendall(call.raw)
        return engine

    def _ask(self, call: Call) -> bytes:
        """The engine's whole answer; its effect has happened."""
        parts = []
        with self._connect(call) as engine:
            if "/events" in call.path:
                engine.settimeout(0.5)  # it never ends
            with suppress(TimeoutError):
                while part := engine.recv(_CHUNK):
                    parts.append(part)
        return b"".join(parts)

    def _pass(self, call: Call, client: socket.socket) -> None:
        """Hand the answer on as it comes, until one side hangs up."""
        with self._connect(call) as engine:
            entry = (call.name, engine)
            with self._lock:
                self._passing.append(entry)
            # who listens to events hangs up without a word: the engine must hear of it
            watch = threading.Thread(target=_hang_up_with, args=(client, engine), daemon=True)
            watch.start()
            with suppress(OSError):
                while part := engine.recv(_CHUNK):
                    client.sendall(part)
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
            watch.join()
            with self._lock:
                self._passing.remove(entry)


def _read_call(client: socket.socket) -> Call | None:
    data = b""
    while _HEAD_END not in data:
        part = client.recv(_CHUNK)
        if not part:
            return None
        data += part
    head, _, body = data.partition(_HEAD_END)
    lines = head.decode("latin-1").split("\r\n")
    method, target, _ = lines[0].split(" ", 2)
    headers = [line for line in lines[1:] if not line.lower().startswith("connection:")]
    length = next((int(h.split(":")[1]) for h in headers if h.lower().startswith("content-len")), 0)
    while len(body) < length:
        part = client.recv(_CHUNK)
        if not part:
            return None
        body += part
    text = "\r\n".join([lines[0], *headers, "Connection: close"])
    return Call(method=method, target=target, raw=text.encode("latin-1") + _HEAD_END + body)


def _hang_up_with(client: socket.socket, engine: socket.socket) -> None:
    with suppress(OSError):
        while client.recv(_CHUNK):
            pass
    with suppress(OSError):
        engine.shutdown(socket.SHUT_RDWR)


def _until_hung_up(client: socket.socket, healed: threading.Event) -> None:
    """Say nothing until the caller goes away, or all is healed."""
    client.settimeout(0.05)
    while not healed.is_set():
        try:
            if not client.recv(_CHUNK):
                return
        except TimeoutError:
            time.sleep(0)


def _answer(status: str, body: bytes, kind: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"Connection: close" + _HEAD_END + body


def _conflict(call: Call) -> bytes:
    """Docker's own words where a 409 can come from it."""
    words = f"conflict: {call.path} can't be done now"
    if call.path == "/containers/create":
        name = parse_qs(urlsplit(call.target).query).get("name", ["?"])[0]
        words = (
            f'Conflict. The container name "/{name}" is already in use by container "{"ab" * 32}".'
        )
    elif call.method == "DELETE" and call.container:
        words = f"removal of container {call.container} is already in progress"
    return _answer("409 Conflict", json.dumps({"message": words}).encode())


def _broken(head: bytes, body: bytes) -> bytes:
    """The answer with its JSON torn in the middle, and a length that fits."""
    kept = [
        line
        for line in head.split(b"\r\n")
        if not line.lower().startswith((b"content-length:", b"transfer-encoding:"))
    ]
    torn = b'{"Id": "12", "broken": [1, '
    kept.append(b"Content-Length: %d" % len(torn))
    return b"\r\n".join(kept) + _HEAD_END + torn


def _removal(call: Call) -> Call:
    target = f"/containers/{call.container}?force=1&v=1"
    head = f"DELETE {target} HTTP/1.1\r\nHost: docker\r\nConnection: close"
    return Call(method="DELETE", target=target, raw=head.encode() + _HEAD_END)


_ANSWERS: dict[str, Callable[[Call], bytes]] = {
    # what a router says: a proxy in between, or an API version that the engine does not have
    "404": lambda call: _answer("404 Not Found", b'{"message":"page not found"}'),
    "409": _conflict,
    "500": lambda call: _answer(
        "500 Internal Server Error",
        b'{"message":"driver failed: open /var/lib/docker/x: input/output error"}',
    ),
    "503": lambda call: _answer(
        "503 Service Unavailable",
        b"<html><body><h1>503 Service Unavailable</h1></body></html>",
        "text/html",
    ),
}
