"""A small HTTP server that answers as Docker does when things go wrong.

It speaks real HTTP over a real Unix socket, so that the SDK, requests and urllib3 meet what they
would meet. It has no state and knows no container: each test says what is answered.
"""

from __future__ import annotations

import json
import shutil
import socket
import socketserver
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What the engine sends back."""

    status: int = 200
    #: bytes as they are, anything else as JSON
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    #: the connection ends after this many bytes of the body
    cut: int | None = None
    #: the connection ends before the first byte
    reset: bool = False
    #: nothing is sent until the server closes
    silent: bool = False
    #: lines sent one by one as chunks; then the connection stays open until the server closes
    stream: tuple[Any, ...] = ()
    #: with ``stream``: end the stream well after the last line
    ends: bool = False


OK = Answer(body={})


class ReplayEngine(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Answers from a table ``{"GET /containers/json": answer or [answers, the last repeats]}``."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, table: Mapping[str, Answer | list[Answer]] | None = None) -> None:
        self.table: dict[str, list[Answer]] = {}
        for key, answers in (table or {}).items():
            self.table[key] = list(answers) if isinstance(answers, list) else [answers]
        #: "GET /containers/json" and so on, without version and query, in order
        self.requests: list[str] = []
        #: bodies and queries of the same requests
        self.details: list[tuple[str, bytes]] = []
        #: released once for each request
        self.arrived = threading.Semaphore(0)
        self.closing = threading.Event()
        self.folder = Path(tempfile.mkdtemp(prefix="replay-"))
        super().__init__(str(self.folder / "s"), _Handler)
        self._thread = threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        )

    @property
    def url(self) -> str:
        return f"unix://{self.folder}/s"

    def __enter__(self) -> ReplayEngine:
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        self.closing.set()
        self.shutdown()
        self._thread.join()
        self.server_close()
        shutil.rmtree(self.folder)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is what several tests are about."""

    def answer(self, key: str) -> Answer:
        if key in ("GET /version", "GET /_ping") and key not in self.table:
            return Answer(body={"ApiVersion": "1.41"})
        answers = self.table.get(key)
        if answers is None:
            return Answer(status=404, body={"message": f"page not found: {key}"})
        return answers.pop(0) if len(answers) > 1 else answers[0]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ReplayEngine

    def setup(self) -> None:
        self.client_address = ("unix", 0)
        super().setup()

    def log_message(self, *args: object) -> None:
        pass

    def _any(self) -> None:
        path, _, query = self.path.partition("?")
        if path.startswith("/v1."):
            path = path[path.index("/", 1) :]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        key = f"{self.command} {path}"
        self.server.requests.append(key)
        self.server.details.append((query, body))
        self.server.arrived.release()
        self._send(self.server.answer(key))

    do_GET = do_POST = do_DELETE = do_HEAD = do_PUT = _any

    def _send(self, answer: Answer) -> None:
        if answer.silent:
            self.server.closing.wait()
        if answer.silent or answer.reset:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.send_response(answer.status)
        self.send_header("Content-Type", "application/json")
        if self.close_connection:
            # As Docker says it. Without, the client sends its next request on a connection that
            # is about to be closed.
            self.send_header("Connection", "close")
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.stream:
            self._send_stream(answer)
            return
        data = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        if answer.status in (204, 304):
            data = b""
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: answer.cut])
        if answer.cut is not None:
            self.close_connection = True

    def _send_stream(self, answer: Answer) -> None:
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for line in answer.stream:
            data = (line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n"
            self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.close_connection = True
        if answer.cut is not None:
            return
        if answer.ends:
            self.wfile.write(b"0\r\n\r\n")
            return
        self.server.closing.wait()
