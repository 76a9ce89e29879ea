"""A PostgreSQL server of the tests' own: in a temporary folder, on a free port of loopback."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from contextlib import suppress
from pathlib import Path

import psycopg

_PASSWORD = "p%40ss%3Aword%2F"  # as it stands in a URL
_PLAIN = "p@ss:word/"
#: quick, and the tests kill processes, not the machine
_SETTINGS = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
fsync = off
shared_buffers = 16MB
max_connections = 30
"""


def binaries() -> Path | None:
    """Folder of the server's programs: the newest that Debian has installed."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3])
    )
    return found[-1].parent if found else None


class Cluster:
    """One server, with a role ``gpus`` that may log in with a password and nothing else."""

    def __init__(self) -> None:
        programs = binaries()
        assert programs is not None
        self._programs = programs
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self._home = Path(tempfile.mkdtemp(prefix="gpus-postgres-", dir=memory))
        self._data = self._home / "data"
        # the server refuses to run as root
        self._user = "postgres" if os.geteuid() == 0 else None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]

    def create(self) -> None:
        """Make its files and start it."""
        if self._user is not None:
            shutil.chown(self._home, self._user)
        password = self._home / "password"
        password.write_text(_PLAIN)
        password.chmod(0o644)
        self._run(
            "initdb",
            *("-D", str(self._data), "-U", "admin", "--pwfile", str(password)),
            *("--auth", "scram-sha-256", "--no-sync", "--encoding", "UTF8", "--locale", "C"),
        )
        with (self._data / "postgresql.conf").open("a") as file:
            file.write(f"{_SETTINGS}port = {self.port}\n")
        self.start()
        self.admin(f"CREATE ROLE gpus LOGIN PASSWORD '{_PLAIN}'")

    def start(self) -> None:
        """Have it run, and answer."""
        if self._run("pg_ctl", "status", "-D", str(self._data), check=False):
            return
        log = str(self._home / "log")
        self._run("pg_ctl", "start", "-w", "-t", "60", "-D", str(self._data), "-l", log)

    def stop(self) -> None:
        """Stop it as its administrator does: open connections end."""
        self._run("pg_ctl", "stop", "-m", "fast", "-t", "60", "-D", str(self._data))

    def kill(self) -> None:
        """Kill -9 of the server and its processes, as the kernel does where memory ends."""
        postmaster = int((self._data / "postmaster.pid").read_text().split()[0])
        os.kill(postmaster, signal.SIGSTOP)  # it makes no more
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        pids = [postmaster, *map(int, children)]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        until = time.monotonic() + 30
        while any(_lives(pid) for pid in pids):
            assert time.monotonic() < until, "the server can't be killed"
            time.sleep(0.02)
        # a dead process that nobody has waited for yet would be taken for a running server
        (self._data / "postmaster.pid").unlink()

    def destroy(self) -> None:
        """Stop it, and remove its files."""
        self._run("pg_ctl", "stop", "-m", "immediate", "-D", str(self._data), check=False)
        shutil.rmtree(self._home)

    @property
    def log(self) -> str:
        """What it wrote, and its tools."""
        files = [self._home / name for name in ("output", "log")]
        return "\n".join(file.read_text(errors="replace") for file in files if file.exists())

    def folder(self, name: str) -> Path:
        """Make a folder that the server may write."""
        folder = self._home / name
        folder.mkdir(parents=True, exist_ok=True)
        if self._user is not None:
            shutil.chown(folder, self._user, self._user)
        return folder

    def database(self, name: str | None = None, *, template: str = "template0") -> str:
        """Make a database of the role ``gpus``; its name."""
        name = name or new_name()
        self.admin(f"CREATE DATABASE {name} OWNER gpus TEMPLATE {template}")
        return name

    def url(self, database: str, *, user: str = "gpus", password: str = _PASSWORD) -> str:
        """The SQLAlchemy URL of a database."""
        return f"postgresql+psycopg://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def admin(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run a statement as the server's administrator."""
        with psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user="admin",
            password=_PLAIN,
            dbname=database,
            autocommit=True,
        ) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def end_sessions(self, database: str) -> int:
        """Cut every connection to a database; how many."""
        found = self.admin(
            f"SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
            f"WHERE datname = '{database}' AND usename = 'gpus'"
        )
        return len(found)

    def _run(self, program: str, *arguments: str, check: bool = True) -> bool:
        with (self._home / "output").open("ab") as output:
            done = subprocess.run(
                [str(self._programs / program), *arguments],
                user=self._user,
                group=self._user,
                extra_groups=[] if self._user else None,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                check=False,
            )
        assert done.returncode == 0 or not check, self.log[-2000:]
        return done.returncode == 0


def new_name() -> str:
    """A name for a database."""
    return f"t{uuid.uuid4().hex[:12]}"


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
