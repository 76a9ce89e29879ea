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
from tests.crash.engines import CaseEngine, FakeCaseEngine

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
        self._log = folder / "zygote.log"
        with open(self._log, "ab") as log:
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
            raise RuntimeError(f"no zygote: {self._log.read_text()}") from None
        finally:
            listener._socket.close()
        self._lines = self._connection.makefile("rb")
        self._lock = threading.Lock()
        #: an empty ledger
        self.template = folder / "template.sqlite"
        #: module -> number of points in it
        self.found: dict[str, int] = {}
        #: modules of the package that it has imported
        self.loaded: set[str] = set()
        try:
            self._rehearse(folder)
        except BaseException:
            self.close()
            raise

    def _rehearse(self, folder: Path) -> None:
        """Have it play a whole life once, on an engine of its own."""
        place = folder / "rehearsal"
        place.mkdir()
        engine = FakeCaseEngine(place)
        try:
            lab = Lab(self, engine, place)
            with World(lab) as world:
                orders = {"hub": world.hub_order(), "scheduler": world.scheduler_order()}
                hello = self._ask(orders)
            lab.close()
        finally:
            engine.close()
        self.found, self.loaded = hello["found"], set(hello["loaded"])

    def fork(self, **order: Any) -> int:
        """The process id of a new child."""
        return int(self._ask(order)["pid"])

    def _ask(self, order: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            self._connection.sendall(json.dumps(order).encode() + b"\n")
            line = self._lines.readline()
        if not line:
            self._process.wait()
            raise Dead(f"the zygote is gone: {self._log.read_text()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

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

    def close(self) -> None:
        """Give its port back."""
        self._port.close()


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
        shutil.copyfile(self.lab.zygote.template, self.ledger)
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

    def scheduler_order(self) -> dict[str, Any]:
        """What a scheduler process is told."""
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
        return self._order("scheduler", options)

    def start_scheduler(self) -> Child:
        """A new scheduler process; it may not serve yet."""
        self.scheduler = self._start(self.scheduler_order())
        return self.scheduler

    def hub_order(self) -> dict[str, Any]:
        """What a Hub process is told."""
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
        return self._order("hub", options)

    def start_hub(self, *, new_boot: bool = True) -> Child:
        """A new Hub process, with a boot id of its own."""
        if new_boot:
            self.boot_id = uuid.uuid4().hex
        self.hub = self._start(self.hub_order())
        return self.hub

    def _order(self, role: str, options: dict[str, Any]) -> dict[str, Any]:
        self._number += 1
        return {
            "role": role,
            "folder": str(self.folder),
            "path": str(self.folder / f"{role}{self._number}.sock"),
            "log": str(self.folder / "log"),
            "boot_id": self.boot_id,
            "options": options,
        }

    def _start(self, order: dict[str, Any]) -> Child:
        listener = Listener(Path(order["path"]))
        plan = self.birth_plans.pop(order["role"], None)
        return listener.accept(self.lab.zygote.fork(plan=plan, **order))

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
