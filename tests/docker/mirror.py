"""A mirror of conda and PyPI behind a proxy and a private CA, as a site without internet has it.

The proxy answers for every host itself, whatever it is called: it stands for the channel's own
address as well.
"""

from __future__ import annotations

import ssl
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from jupyterhub_gpuspawner.environments import spec

#: hosts that the certificate is for
HOSTS = ("mirror.example.org", str(urlsplit(spec.channel_url("conda-forge", {})).hostname))


@dataclass(kw_only=True)
class Mirror:
    """Where it is, and what it was asked for."""

    #: such as ``http://127.0.0.1:4711``
    proxy: str
    #: certificate of the authority
    ca: Path
    #: host and path of each answered request
    answered: list[tuple[str, str]] = field(default_factory=list)


@contextmanager
def serve(folder: Path, channels: Mapping[str, Path], wheels: Path) -> Iterator[Mirror]:
    """``https://HOST/CHANNEL/…`` for each channel, and ``https://HOST/pypi/simple/``."""
    ca, chain, key = _certificates(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    mirror = Mirror(proxy="", ca=ca)

    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            """Nothing: what was asked is in ``answered``."""

        def do_CONNECT(self) -> None:
            self.send_response(200)
            self.end_headers()
            try:
                self.connection = context.wrap_socket(self.connection, server_side=True)
            except OSError:  # it does not trust us
                self.close_connection = True
                return
            self.rfile, self.wfile = self.connection.makefile("rb"), _Writer(self.connection)
            self.close_connection = False
            with self.connection:  # the server closes only the one below it
                while not self.close_connection:
                    self.handle_one_request()

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            body = _content(path, channels, wheels)
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(len(body or b"")))
            if path.startswith("/pypi/simple/"):
                self.send_header("Content-Type", "text/html")
            self.end_headers()
            if body is not None:
                mirror.answered.append((self.headers["Host"].partition(":")[0], path))
                if self.command == "GET":
                    self.wfile.write(body)

        do_HEAD = do_GET

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    server.daemon_threads = True
    mirror.proxy = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield mirror
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Sends(Protocol):
    def sendall(self, data: bytes) -> None: ...


class _Writer:
    """What a handler writes to."""

    closed = False

    def __init__(self, connection: _Sends) -> None:
        self._connection = connection

    def write(self, data: bytes) -> int:
        self._connection.sendall(data)
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """The handler's connection is closed by its server."""


def _content(path: str, channels: Mapping[str, Path], wheels: Path) -> bytes | None:
    first, _, rest = path.lstrip("/").partition("/")
    if first == "pypi":
        kind, _, name = rest.partition("/")
        if kind == "simple":
            return _index(wheels, name.strip("/"))
        file = wheels / Path(name).name
    elif first in channels and ".." not in rest:
        file = channels[first] / rest
    else:
        return None
    return file.read_bytes() if file.is_file() else None


def _index(wheels: Path, name: str) -> bytes | None:
    """The page of a package, as pip reads it; without hashes, as a plain folder has it."""
    found = [
        file
        for file in sorted(wheels.glob("*.whl"))
        if file.name.partition("-")[0].lower().replace("_", "-") == name
    ]
    lines = [f'<a href="/pypi/files/{one.name}">{one.name}</a>' for one in found]
    return "\n".join(lines).encode() if found else None


def _certificates(folder: Path) -> tuple[Path, Path, Path]:
    """A new authority, and a certificate of it with its key."""
    names = ",".join(f"DNS:{host}" for host in HOSTS)
    (folder / "names").write_text(f"subjectAltName={names}\n")
    fresh = "-newkey rsa:2048 -nodes"
    for arguments in (
        f"req -x509 -days 2 -subj /CN=lab {fresh} -keyout ca.key -out lab.pem",
        f"req -subj /CN=mirror {fresh} -keyout site.key -out site.csr",
        "x509 -req -days 2 -CA lab.pem -CAkey ca.key -CAcreateserial -in site.csr"
        " -extfile names -out site.pem",
    ):
        subprocess.run(["openssl", *arguments.split()], cwd=folder, check=True, capture_output=True)
    return folder / "lab.pem", folder / "site.pem", folder / "site.key"
