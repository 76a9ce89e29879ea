"""The controller's side: engine, zygote, and one world for each case."""

from __future__ import annotations

import json
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import uuid
from pathlib import Path
from typing import Any

from tests.crash.channel import Child, Dead, Listener
from tests.crash.engines import CaseEngine

REPOSITORY = Path(__file__).parents[2]
TOKEN = "crash-matrix-token"


def shm() -> Path:
    """A folder in memory: an fsync there costs nothing, and survives a kill -9 as well."""
    base = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="gpus-crash-", dir=base if base.is_dir() else None))


class Zygote:
    """The process that forks Hubs and schedulers."""

    def __init__(self, folder: Path) -> None:
        listener = Listener(folder / "zygote.sock")
        with open(folder / "zygote.log", "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.crash.zygote", listener.path],
                cwd=REPOSITORY,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        listener._socket.settimeout(120)
        try:
            self._connection, _ = listener._socket.accept()
        except TimeoutError:
            self._process.kill()
            raise RuntimeError(f"no zygote: {(folder / 'zygote.log').read_text()}") from None
        finally:
            listener._socket.close()
        self._lines = self._connection.makefile("rb")
        self._lock = threading.Lock()
        #: module -> number of points in it
        hello = json.loads(self._lines.readline())
        self.found: dict[str, int] = hello["found"]
        #: modules of the package that it has imported
        self.loaded: set[str] = set(hello["loaded"])

    def fork(self, **order: Any) -> int:
        """The process id of a new child."""
        with self._lock:
            self._connection.sendall(json.dumps(order).encode() + b"\n")
            answer = self._lines.readline()
        if not answer:
            raise Dead("the zygote is gone")
        return int(json.loads(answer)["pid"])

    def close(self) -> None:
        """End it; its children end with it."""
        self._lines.close()
        self._connection.close()
        self._process.kill()
        self._process.wait()


class Lab:
    """What all cases of one thread of work share."""

    def __init__(self, zygote: Zygote, engine: CaseEngine, folder: Path) -> None:
        self.zygote = zygote
        self.engine = engine
        self.folder = folder
        self._port = Port()
        self.port = self._port.number
        self.template = folder / "template.sqlite"
        if not self.template.exists():
            _make_template(self.template)

    def close(self) -> None:
        """Give its port back."""
        self._port.close()


def _make_template(path: Path) -> None:
    """A migrated, empty ledger, by a process of its own: nothing of the product runs in here."""
    code = "import sys; from jupyterhub_gpuspawner.store import Ledger; Ledger.open(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, f"sqlite:///{path}"], cwd=REPOSITORY, check=True)


class Port:
    """A port of 127.0.0.1 that is ours until it is closed, also while nothing listens there.

    It is below those that the kernel gives out by itself; the labs of other processes see by an
    abstract socket, which ends with this process, that it is taken.
    """

    def __init__(self) -> None:
        for number in random.SystemRandom().sample(range(20000, 30000), 200):
            mark = socket.socket(socket.AF_UNIX)
            if _bound(mark, f"\0gpus-crash-{number}") and _bindable(number):
                self.number, self._mark = number, mark
                return
            mark.close()
        raise RuntimeError("no free port")

    def close(self) -> None:
        """Give it back."""
        self._mark.close()


def _bindable(number: int) -> bool:
    with socket.socket() as probe:
        return _bound(probe, ("127.0.0.1", number))


def _bound(one: socket.socket, address: str | tuple[str, int]) -> bool:
    try:
        one.bind(address)
    except OSError:
        return False
    return True


class World:
    """Hub, scheduler, ledger and engine of one case; a context manager."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.engine = lab.engine
        self.folder = Path(tempfile.mkdtemp(prefix="case-", dir=lab.folder))
        self.hub: Child | None = None
        self.scheduler: Child | None = None
        self.url = f"http://127.0.0.1:{lab.port}"
        self.struck = self.folder / "struck"
        self.record = self.folder / "points"
        self.ledger = self.folder / "state" / "ledger.sqlite"
        #: what a process that is started gets, by role; for faults during a start-up
        self.birth_plans: dict[str, dict[str, Any]] = {}
        self.boot_id = uuid.uuid4().hex
        self._number = 0

    def __enter__(self) -> World:
        return self.open()

    def open(self) -> World:
        """Make its files, and empty its engine."""
        state = self.folder / "state"
        state.mkdir(mode=0o700)
        token = state / "service-token"
        token.touch(mode=0o600)
        token.write_text(TOKEN)
        shutil.copyfile(self.lab.template, self.ledger)
        self.ledger.chmod(0o600)
        self.engine.reset()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End its processes, and remove its files."""
        self.kill_all()
        shutil.rmtree(self.folder, ignore_errors=True)

    # -- processes -------------------------------------------------------------------------

    def start_scheduler(self) -> Child:
        """A new scheduler process; it may not serve yet."""
        options = {
            "state_dir": str(self.folder / "state"),
            "url": self.url,
            "docker_host": self.engine.base_url,
            "discovery": "simulated",
            "stop_grace": 1,
            "created_grace": 0.5,
            "exited_grace": 0.3,
            "bind_deadline": 3,
            "start_deadline": 3,
            "detach_grace": 1.5,
            "requeue_grace": 1.5,
            "reconcile_interval": 0.5,
            **self.engine.scheduler_options(),
        }
        self.scheduler = self._start("scheduler", options)
        return self.scheduler

    def start_hub(self, *, new_boot: bool = True) -> Child:
        """A new Hub process, with a boot id of its own."""
        if new_boot:
            self.boot_id = uuid.uuid4().hex
        options = {
            "image": self.engine.image,
            "gpus": 1,
            "mem_limit": "64M",
            "scheduler_url": f"{self.url}/services/gpus/",
            "token_file": str(self.folder / "state" / "service-token"),
            "client_kwargs": {"base_url": self.engine.base_url},
            "stop_grace": 1,
            "engine_timeout": 5.0,
            **self.engine.hub_options(),
        }
        self.hub = self._start("hub", options)
        return self.hub

    def _start(self, role: str, options: dict[str, Any]) -> Child:
        self._number += 1
        listener = Listener(self.folder / f"{role}{self._number}.sock")
        pid = self.lab.zygote.fork(
            role=role,
            folder=str(self.folder),
            path=listener.path,
            log=str(self.folder / "log"),
            boot_id=self.boot_id,
            options=options,
            plan=self.birth_plans.pop(role, None),
        )
        return listener.accept(pid)

    def kill_all(self) -> None:
        """kill -9 of both."""
        for child in (self.hub, self.scheduler):
            if child is not None:
                child.kill()

    def log_tail(self, lines: int = 25) -> str:
        """The end of what both said."""
        try:
            text = (self.folder / "log").read_text(errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join(text.splitlines()[-lines:])
