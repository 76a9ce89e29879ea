"""The node agent: looks at one machine's GPUs and tells the scheduler of the Swarm.

It runs on each node, as a global service of the Swarm, and only reads. The code that looks is the
one that the scheduler uses on a single machine. It needs nothing but Python's standard library:
``python3 -m jupyterhub_gpuspawner.agent`` and ``jupyterhub-gpuspawner agent`` are the same.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .discovery.agent_report import HEADER, SHORTEST_KEY, Message, encode, sign
from .discovery.base import Source
from .discovery.nvml import NvmlSource
from .discovery.simulated import SimulatedSource
from .discovery.toolkit import Looker, Toolkit
from .errors import ConfigError, DiscoveryError, GPUSpawnerError

log = logging.getLogger("gpus.agent")

#: seconds between two reports, and for one to be sent
INTERVAL, SEND_LIMIT = 5.0, 10.0
#: where the Swarm puts the secret
KEY_FILE = "/run/secrets/gpus-agent-key"


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What an agent is told."""

    #: base URL of the scheduler, such as ``http://hub:8750/services/gpus``
    scheduler: str
    #: the Swarm's id of the node, ``{{.Node.ID}}``
    node_id: str
    #: its host name, ``{{.Node.Hostname}}``
    node_name: str
    #: file with the agents' key
    key_file: str = KEY_FILE
    #: seconds between two reports
    interval: float = INTERVAL
    #: simulated GPUs instead of real ones; 0 = real ones
    simulate: int = 0
    #: where the machine's ``etc`` and ``usr/bin`` are mounted; empty = NVIDIA's toolkit is not
    #: looked at
    host_root: str = ""


def options_from(environment: Mapping[str, str]) -> Options:
    """Read the options. ConfigError for what is missing or wrong."""
    wanted = {
        "scheduler": "GPUS_SCHEDULER_URL",
        "node_id": "GPUS_NODE_ID",
        "node_name": "GPUS_NODE_NAME",
    }
    values = {name: environment.get(variable, "") for name, variable in wanted.items()}
    missing = [wanted[name] for name, value in values.items() if not value]
    if missing:
        raise ConfigError(f"agent: {', '.join(missing)} is not set")
    try:
        return Options(
            **values,
            key_file=environment.get("GPUS_AGENT_KEY_FILE", KEY_FILE),
            interval=max(float(environment.get("GPUS_AGENT_INTERVAL") or INTERVAL), 0.1),
            simulate=int(environment.get("GPUS_SIMULATE") or 0),
            host_root=environment.get("GPUS_HOST_ROOT", ""),
        )
    except ValueError as error:
        raise ConfigError(f"agent: not a number: {error}") from None


def read_key(path: str) -> str:
    """The agents' key. ConfigError where it can't be read or is too short."""
    try:
        key = Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"agents' key {path}: {error}") from error
    if len(key) < SHORTEST_KEY:
        raise ConfigError(f"agents' key {path}: want at least {SHORTEST_KEY} characters")
    return key


class Agent:
    """Looks and tells.

    Parameters
    ----------
    source:
        Knows the machine's GPUs.
    send:
        Delivers a body with its signature. OSError where it does not arrive.
    node_id:
        The Swarm's id of the node.
    key:
        The agents' key.
    """

    def __init__(
        self,
        source: Source,
        send: Callable[[bytes, str], None],
        *,
        node_id: str,
        key: str,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source, self._send = source, send
        self._node_id, self._key = node_id, key
        #: looks at NVIDIA's toolkit; None = not looked at
        self.toolkit: Callable[[], Toolkit | None] = lambda: None
        self._clock, self._monotonic = clock, monotonic
        self._seq = 0
        self._said = ""

    def step(self) -> bool:
        """One look and one message; whether it arrived."""
        began, report, error = self._monotonic(), None, ""
        try:
            report = self._source.discover()
        except DiscoveryError as failed:
            error = str(failed)
        now = self._clock()
        # by the clock, so that it rises over restarts as well
        self._seq = max(self._seq + 1, int(now * 1000))
        body = encode(
            Message(
                node=self._node_id,
                seq=self._seq,
                sent_at=now,
                age=self._monotonic() - began,
                report=report,
                error=error,
                toolkit=self.toolkit(),
            )
        )
        trouble = ""
        try:
            self._send(body, sign(body, self._key))
        except OSError as failed:
            trouble = f"the scheduler does not hear: {failed}"
        self._say(trouble or error)
        return not trouble

    def _say(self, trouble: str) -> None:
        """Say once what is wrong, and once that it is well."""
        if trouble != self._said:
            self._said = trouble
            log.warning("%s", trouble or "the scheduler hears; the GPUs can be read")


def sender(url: str) -> Callable[[bytes, str], None]:
    """Delivers bodies to the scheduler at ``url``, past any proxy of the environment."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    address = f"{url.rstrip('/')}/api/agents/report"

    def send(body: bytes, signature: str) -> None:
        request = urllib.request.Request(
            address, data=body, headers={HEADER: signature, "Content-Type": "application/json"}
        )
        try:
            opener.open(request, timeout=SEND_LIMIT).close()
        except urllib.error.HTTPError as error:
            with error:
                said = error.read(500).decode("utf-8", "replace")
            raise OSError(f"it answers {error.code}: {said}") from None

    return send


def source_of(options: Options) -> Source:
    """What knows the machine's GPUs."""
    if options.simulate:
        return SimulatedSource(options.simulate, options.node_name)
    # which containers are ours, the scheduler knows
    return NvmlSource(options.node_name, frozenset)


def toolkit_of(options: Options) -> Callable[[], Toolkit | None]:
    """What looks at NVIDIA's toolkit. A machine with simulated GPUs alone may be without one."""
    if not options.host_root:
        return lambda: None
    looker = Looker(Path(options.host_root))

    def look() -> Toolkit | None:
        found = looker.look()
        return None if options.simulate and found == Toolkit() else found

    return look


def run(options: Options) -> int:
    """Report until a signal comes; the exit code."""
    stop = threading.Event()
    for sig in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sig, lambda *_: stop.set())
    agent = Agent(
        source_of(options),
        sender(options.scheduler),
        node_id=options.node_id,
        key=read_key(options.key_file),
    )
    agent.toolkit = toolkit_of(options)
    log.warning("reports on %s to %s", options.node_name, options.scheduler)
    while True:
        agent.step()
        if stop.wait(options.interval):
            return 0


def main() -> int:
    """``python3 -m jupyterhub_gpuspawner.agent``, with options from the environment."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    try:
        return run(options_from(os.environ))
    except GPUSpawnerError as error:
        log.error("%s", error)
        return 1


if __name__ == "__main__":
    sys.exit(main())
