"""A real Swarm on this machine: one manager and two GPU workers, each an engine of its own.

Each node is an :class:`~.engine.Engine` with a network namespace too, plugged into one bridge:
unplugged, its daemon and containers live on and nobody hears of them (a partition).

``python -m tests.testbed swarm-up|swarm-down`` does the same from a shell.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import docker
from docker.errors import APIError, NotFound

from jupyterhub_gpuspawner.images import present
from tests.testbed import config, host, rootfs
from tests.testbed.engine import Engine, EngineError
from tests.testbed.images import copy, ensure_stub, stub_tag
from tests.testbed.processes import Process

#: Seconds for a node to join, or to be seen again.
JOIN_SECONDS = 60.0
#: Nanoseconds between two signs of life of a node; after three without one it is down. Docker's
#: own are 5 s: what a partition means is the same, and each test of one waits for it.
HEARTBEAT = 3 * 10**9
#: Networks that the engine makes itself.
_OWN_NETWORKS = ("bridge", "host", "none", "ingress", "docker_gwbridge")


class SwarmNode(Engine):
    """One machine of the Swarm. ``number`` counts from 1, which is the manager."""

    namespaces = ("--mount", "--uts", "--net")

    def __init__(self, swarm: Swarm, number: int, devices: int) -> None:
        # A point, which the family of an engine (``<name>-<word>``) does not have.
        super().__init__(f"{swarm.name}.swarm{number}", node=f"node{number}", devices=devices)
        self._swarm = swarm
        self._number = number
        #: the machine's end of the cable
        self.cable = f"{swarm.bridge}{number}"

    @property
    def address(self) -> str:
        """The node's address."""
        return self._swarm.address(10 + self._number)

    def _connect(self, holder: Process) -> str:
        host.unplug(self.cable)
        host.plug_in(
            self._swarm.bridge, self.cable, holder.pid, inside="eth0", address=f"{self.address}/24"
        )
        return self.address

    def _disconnect(self) -> None:
        host.unplug(self.cable)

    def _settings(self) -> dict[str, Any]:
        return config.swarm_config(self.tag, self.device_ids)

    def _make_folders(self) -> None:
        # What an earlier Swarm left would make the node look for its dead manager.
        for part in ("swarm", "network"):
            shutil.rmtree(self.folder / "data" / part, ignore_errors=True)
        super()._make_folders()

    def write_cdi(self, devices: int) -> None:
        if self.devices:
            super().write_cdi(devices)

    def _removable_networks(self, client: docker.DockerClient) -> list[Any]:
        return []  # they are the Swarm's

    def unplug(self) -> None:
        """Partition: the link is down, everything on the node goes on."""
        host.ip("link", "set", self.cable, "down")

    def plug(self) -> None:
        """End :meth:`unplug`."""
        host.ip("link", "set", self.cable, "up")


class Swarm:
    """Three nodes: a manager without GPU, two workers with ``devices`` simulated GPUs each."""

    def __init__(self, name: str = "main", *, workers: int = 2, devices: int = 2) -> None:
        self.name = name
        digest = hashlib.sha256(f"{rootfs.home()}/{name}".encode()).hexdigest()
        #: name of the bridge on the machine
        self.bridge = f"gts{digest[:8]}"
        self._seed = int(digest[8:12], 16)
        self.manager = SwarmNode(self, 1, 0)
        self.workers = tuple(SwarmNode(self, 2 + k, devices) for k in range(workers))

    @classmethod
    def from_environment(cls) -> Swarm:
        """The Swarm of the tests. ``GPUS_TESTBED_NAME`` gives you your own."""
        return cls(os.environ.get("GPUS_TESTBED_NAME") or "main")

    @property
    def nodes(self) -> tuple[SwarmNode, ...]:
        """All nodes, the manager first."""
        return (self.manager, *self.workers)

    def address(self, last: int) -> str:
        """An address in the nodes' network, such as 10.77.3.11."""
        gateway = host.address_of(self.bridge)
        if gateway is None:
            raise EngineError(f"the Swarm {self.name} is not started")
        return f"{gateway.rpartition('.')[0]}.{last}"

    def start(self) -> bool:
        """Bring it up, empty but for its images. False when it was up already."""
        with rootfs.locked(f"swarm-{self.name}"):
            if self.answers():
                self._load_images()
                return False
            self._stop()
            host.make_bridge(self.bridge, self._seed, host.SWARM_RANGE)
            host.let_through(self.bridge, True)
            for node in self.nodes:
                node.start()
            self._join()
            self._load_images()
            return True

    def stop(self) -> None:
        """Take everything away but the images. May be repeated."""
        with rootfs.locked(f"swarm-{self.name}"):
            self._stop()

    def answers(self) -> bool:
        """Whether all nodes are there and ready."""
        if not all(node.answers() for node in self.nodes):
            return False
        try:
            return [state for _, state in self.states()] == ["ready"] * len(self.nodes)
        except (APIError, OSError):
            return False

    def states(self) -> list[tuple[str, str]]:
        """(name, state) of the nodes, as the manager sees them."""
        with self.client() as client:
            listed = client.api.nodes()
        return sorted((n["Description"]["Hostname"], n["Status"]["State"]) for n in listed)

    def await_state(self, node: SwarmNode, state: str, seconds: float = JOIN_SECONDS) -> None:
        """Wait until the manager gives a node this state."""
        wait_until(lambda: dict(self.states()).get(node.node) == state, seconds, node.node)

    @contextmanager
    def client(self, node: SwarmNode | None = None) -> Iterator[docker.DockerClient]:
        """A client of the manager's engine, or of another node's."""
        client = (node or self.manager).client()
        try:
            yield client
        finally:
            client.close()

    def wipe(self) -> None:
        """Remove all services, containers, volumes and networks."""
        for node in self.nodes:
            node.plug()
            if not node.answers():
                node.restart()
        with self.client() as client:
            for service in client.services.list():
                with suppress(NotFound):
                    service.remove()
            for node in self.nodes:
                wait_until(lambda node=node: self._is_empty(node), 30, f"{node.node} empty")
            for network in client.networks.list():
                if network.name not in _OWN_NETWORKS:
                    network.remove()

    def _is_empty(self, node: SwarmNode) -> bool:
        node.wipe()
        with self.client(node) as client:
            return not client.containers.list(all=True, ignore_removed=True)

    def _stop(self) -> None:
        for node in self.nodes:
            node.stop()
        host.let_through(self.bridge, False)
        host.remove_bridge(self.bridge)

    def _join(self) -> None:
        manager = f"{self.manager.address}:2377"
        with self.client() as client:
            client.swarm.init(
                advertise_addr=self.manager.address,
                listen_addr="0.0.0.0:2377",
                dispatcher_heartbeat_period=HEARTBEAT,
            )
            client.swarm.reload()
            token = client.swarm.attrs["JoinTokens"]["Worker"]
        for node in self.workers:
            with self.client(node) as client:
                client.swarm.join([manager], token, advertise_addr=node.address)
        wait_until(self.answers, JOIN_SECONDS, "all nodes ready")

    def _load_images(self) -> None:
        """Have the stub image on each node: there is no registry to pull from.

        Built on the testbed's engine, as the nodes reach nothing but each other.
        """
        missing = [node for node in self.nodes if not self._has_stub(node)]
        if not missing:
            return
        builder = Engine.from_environment()
        started = builder.start()
        source = builder.client(timeout=600)
        try:
            tag = ensure_stub(source)
            for node in missing:
                with self.client(node) as client:
                    copy(source, client, tag)
        finally:
            source.close()
            if started:
                builder.stop()

    def _has_stub(self, node: SwarmNode) -> bool:
        with self.client(node) as client:
            return present(client, stub_tag())

    def facts(self) -> str:
        """One line of JSON for a shell."""
        nodes = [
            {"name": n.node, "socket": str(n.socket), "address": n.address, "devices": n.device_ids}
            for n in self.nodes
        ]
        return json.dumps({"nodes": nodes})


def wait_until(check: Callable[[], object], seconds: float, what: str) -> None:
    """Poll until ``check()`` is true; EngineError after ``seconds``."""
    end = time.monotonic() + seconds
    while not check():
        if time.monotonic() > end:
            raise EngineError(f"{what}: not so after {seconds:g} s")
        time.sleep(0.05)
