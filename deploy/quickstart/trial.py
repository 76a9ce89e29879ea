"""A Hub of one's own: the shipped configuration on free ports, with temporary state.

The smoke test, the hub tests and the benchmarks start it. It is a real ``jupyterhub --config``
process with its proxy and its scheduler service.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from jupyterhub_gpuspawner.environment import SITE

from .person import Person

ROOT = Path(__file__).resolve().parents[2]
#: seconds for a Hub to answer
HUB_LIMIT = 180.0
#: environment variables of the shipped configuration that take a free port each
PORTS = ("GPUS_PORT", "GPUS_PROXY_API_PORT", "GPUS_HUB_PORT", "GPUS_SERVICE_PORT")

#: settings of a site, which a trial must not take over from the environment that it is started in:
#: its people know one password. Where the engine and the GPUs are stays.
_NOT_OURS = frozenset(SITE) - {"GPUS_BRIDGE_IP", "GPUS_DISCOVERY"}

_CONFIG = """\
c = get_config()
with open({config!r}) as file:
    code = file.read()
setup_call = "setup(c)"
assert code.rstrip().endswith(setup_call)
exec(compile(code.rstrip()[: -len(setup_call)], {config!r}, "exec"), {{"get_config": lambda: c}})
{after}
from jupyterhub_gpuspawner.hub import setup
setup(c)
"""


class TrialError(Exception):
    """The Hub did not do what it must; the text is for people."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    """Where a Hub runs."""

    #: that it listens on
    address: str = "127.0.0.1"
    #: a command before the Hub's that brings it there, e.g. ``nsenter …``
    enter: Sequence[str] = ()
    #: certificate that its proxy shows, with the key beside it as ``.key``; None = no TLS
    certificate: Path | None = None
    #: host name that it is asked by; "" = its address
    host: str = ""


class TrialHub:
    """A Hub with temporary state.

    Parameters
    ----------
    image:
        Image of the servers.
    simulate:
        Number of simulated GPUs.
    after:
        Lines of configuration run after the shipped ones but before ``setup(c)``.
    env:
        More environment variables, e.g. ``DOCKER_HOST`` and ``GPUS_BRIDGE_IP``.
    python:
        The interpreter whose JupyterHub runs.
    site:
        Where it runs and listens.
    """

    #: seconds for it to answer
    limit = HUB_LIMIT

    def __init__(
        self,
        *,
        image: str,
        simulate: int,
        after: str = "",
        env: Mapping[str, str] | None = None,
        python: str = sys.executable,
        site: Site | None = None,
    ) -> None:
        site = site or Site()
        self.state = Path(tempfile.mkdtemp(prefix="gpus-trial-"))
        self.password = secrets.token_urlsafe(16)
        self.admin_password = secrets.token_urlsafe(32)
        ports = free_ports(len(PORTS))
        scheme = "https" if site.certificate else "http"
        self.base = f"{scheme}://{site.address}:{ports[0]}"
        self.service = f"http://{site.address}:{ports[3]}/services/gpus"
        self._python = python
        self._enter = tuple(site.enter)
        self._env = {
            **{name: value for name, value in os.environ.items() if name not in _NOT_OURS},
            **dict(zip(PORTS, map(str, ports), strict=True)),
            "GPUS_BIND": site.address,
            "GPUS_STATE_DIR": str(self.state),
            "GPUS_PASSWORD": self.password,
            "GPUS_ADMIN_PASSWORD": self.admin_password,
            "GPUS_IMAGE": image,
            "GPUS_SIMULATE": str(simulate),
            "PYTHONPATH": str(ROOT),
            **(env or {}),
        }
        if site.certificate:
            self.more(
                GPUS_TLS_CERT=str(site.certificate),
                GPUS_TLS_KEY=str(site.certificate.with_suffix(".key")),
            )
        # the proxy is a command of the virtual environment or of the repository's node_modules
        self._env["PATH"] = os.pathsep.join(
            [
                str(Path(python).parent),
                str(ROOT / "node_modules" / ".bin"),
                self._env.get("PATH", os.defpath),
            ]
        )
        self.config = self.state / "trial_config.py"
        shipped = str(ROOT / "jupyterhub_config.py")
        self.config.write_text(_CONFIG.format(after=after, config=shipped))
        self._process: subprocess.Popen[bytes] | None = None
        self._web = requests.Session()
        # loopback must not go through a proxy of the environment
        self._web.trust_env = False
        if site.certificate:
            self._web.verify = str(site.certificate)
        #: what people type
        self.public = f"{scheme}://{site.host or site.address}:{ports[0]}"
        self._web.headers["Host"] = f"{site.host or site.address}:{ports[0]}"

    def more(self, **variables: str) -> None:
        """More environment variables, for its next start."""
        self._env.update(variables)

    @property
    def pid(self) -> int:
        """Process id of the Hub."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def environment(self) -> dict[str, str]:
        """What its processes are started with."""
        return dict(self._env)

    def start(self) -> None:
        """Start it, and wait until hub and scheduler answer."""
        command = [*self._enter, self._python, "-m", "jupyterhub", "--config", str(self.config)]
        with open(self.state / "hub.log", "ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.state,
                env=self._env,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        wait_for("the Hub", self.limit, self.serves)

    def serves(self) -> bool:
        """Whether hub and scheduler answer. TrialError where the Hub has ended."""
        if self._process is not None and self._process.poll() is not None:
            raise TrialError(f"the Hub ended with {self._process.returncode}; {self.last_words()}")
        try:
            health = self._web.get(f"{self.service}/api/health", timeout=5).json()
            page = self._web.get(f"{self.base}/hub/login", timeout=5)
        except (requests.RequestException, ValueError):
            return False
        return page.status_code == 200 and health.get("phase") == "serving"

    def person(self, name: str, admin: bool = False) -> Person:
        """Somebody who is logged in."""
        someone = Person(self.base, name, self.admin_password if admin else self.password)
        someone.login()
        return someone

    def summary(self) -> dict[str, Any]:
        """What the scheduler says about devices and queue."""
        token = (self.state / "gpus" / "service-token").read_text().strip()
        answer = self._web.get(
            f"{self.service}/api/internal/summary",
            headers={"Authorization": f"token {token}"},
            timeout=20,
        )
        answer.raise_for_status()
        result: dict[str, Any] = answer.json()
        return result

    def busy(self) -> set[str]:
        """Ids of the devices that are not free."""
        return {d["id"] for d in self.summary()["devices"] if d["state"] != "free"}

    def log(self) -> str:
        """Everything that Hub, proxy and scheduler have logged."""
        path = self.state / "hub.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def last_words(self, lines: int = 15) -> str:
        """The end of the log, where it says more than we can."""
        return "its log ends with:\n  " + "\n  ".join(self.log().splitlines()[-lines:])

    def kill(self) -> None:
        """kill -9 the Hub alone, as a crash does. Its proxy and service see to themselves."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)

    def stop(self) -> None:
        """Stop it and what it started."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)
        self._end_group()

    def _end_group(self) -> None:
        """End what a killed Hub leaves behind."""
        assert self._process is not None
        end_group(self._process.pid)
        end_proxy(self.state / "proxy.pid")

    def discard(self) -> None:
        """Remove the temporary state."""
        shutil.rmtree(self.state, ignore_errors=True)


def end_group(leader: int) -> None:
    """kill -9 to what is left of a process group."""
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def end_proxy(pid_file: Path) -> None:
    """kill -9 to the proxy of a killed Hub, which is in a session of its own."""
    with suppress(OSError, ValueError):
        pid = int(pid_file.read_text())
        # the number may be another process's by now
        if b"configurable-http-proxy" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)


def wait_for(what: str, limit: float, check: Callable[[], bool]) -> None:
    """Wait until ``check`` is true; TrialError after ``limit`` seconds."""
    until = time.monotonic() + limit
    while not check():
        if time.monotonic() > until:
            raise TrialError(f"{what}: not there after {limit:g} s")
        time.sleep(0.1)


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody has at this moment."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for item in sockets:
            item.bind(("127.0.0.1", 0))
        return [item.getsockname()[1] for item in sockets]
    finally:
        for item in sockets:
            item.close()
