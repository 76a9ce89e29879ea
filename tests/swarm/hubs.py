"""A real Hub on the Swarm's overlay network, and looks from outside at what it does.

The Hub runs in the network namespace of a container of the manager that is attached to the
overlay, as a Hub in a container of its own would; a cable of the testbed leads in from here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import docker
import docker.types
from docker.errors import APIError, NotFound

from deploy.quickstart.person import PersonError
from deploy.quickstart.trial import Site, TrialHub, wait_for
from jupyterhub_gpuspawner.engine import labels
from tests import hubs
from tests.testbed import host
from tests.testbed.images import stub_tag
from tests.testbed.swarm import Swarm, SwarmNode

NETWORK = "gpus"
#: of the overlay network; the Hub keeps its address there
SUBNET, HUB_ADDRESS = "10.99.0.0/24", "10.99.0.250"

#: an image that a test has on one node only, and the folder of a group
LOPSIDED, FOLDER = "gpuspawner-test/lopsided:latest", "/data/only-here"

CONFIG = """
c.JupyterHub.spawner_class = "jupyterhub_gpuspawner.swarmspawner.GPUSwarmSpawner"
c.GPUScheduler.url = "http://{address}:" + os.environ["GPUS_SERVICE_PORT"]
del c.GPUScheduler.discovery, c.GPUScheduler.simulate
c.GPUSwarmSpawner.local_volumes = "each"
def by_name(spawner):
    if spawner.user.name.startswith("tied"):
        spawner.local_volumes = "tie"
    if spawner.user.name.startswith("mounts"):
        spawner.secrets = {{"gpus-test-secret": "key"}}
        spawner.configs = {{"gpus-test-config": "/etc/greeting"}}
    if spawner.user.name.startswith("volume"):
        bind = {{"Name": "local", "Options": {{"type": "none", "o": "bind", "device": {folder!r}}}}}
        data = {{"type": "volume", "source": "data-{{username}}", "target": "/only"}}
        spawner.mounts = [{{**data, "driver_config": bind}}]
c.Spawner.pre_spawn_hook = by_name
c.GPUDockerSpawner.mem_limit = "64M"
c.GPUDockerSpawner.cpu_limit = 0.25
c.GPUDockerSpawner.stop_grace = 2
c.JupyterHub.log_level = "INFO"
c.GPUScheduler.detach_grace = 3
c.GPUScheduler.exited_grace = 10
c.GPUScheduler.reconcile_interval = 5
fast = {{"Name": "local", "Options": {{"type": "tmpfs", "device": "x", "o": "size=8m"}}}}
def profile(slug, **override):
    return {{"display_name": slug, "slug": slug, "spawner_override": override}}
c.GPUDockerSpawner.profile_list = [
    profile("gpu", gpus=1),
    profile("gpu2", gpus=2),
    profile("cpu", gpus=0),
    profile("dies", gpus=1, environment={{"STUB_DIE": "3"}}),
    profile("slow", gpus=1, environment={{"STUB_SLOW": "10"}}),
    profile("brief", gpus=1, environment={{"STUB_EXIT_AFTER": "2", "STUB_EXIT_CODE": "7"}}),
    profile("mounts", gpus=0, shm_size="3M", volumes={{"tools-{{username}}": "/tools"}}, mounts=[
        {{"type": "tmpfs", "target": "/scratch", "tmpfs_size": "4M"}},
        {{"source": "fast-{{username}}", "target": "/fast", "driver_config": fast}},
    ]),
    profile("noimage", gpus=1, image="gpuspawner-test/not-there:latest"),
    profile("lopsided", gpus=1, image={lopsided!r}),
]
# a folder that no node has but the one where a test makes it
c.GPUSwarmSpawner.group_volumes = {{"folder": {{{folder!r}: {{"bind": "/only", "mode": "ro"}}}}}}
"""


class SwarmHub(TrialHub):
    """A Hub whose servers are services of the testbed's Swarm."""

    #: seconds for it to answer: it has three engines beside it
    limit = 180.0

    def __init__(self, swarm: Swarm, after: str = "") -> None:
        self.swarm = swarm
        self._client = swarm.manager.client()
        self._cable = f"{swarm.bridge}h"
        self._address = address = swarm.address(100)
        clear(self._client)
        pool = docker.types.IPAMPool(subnet=SUBNET)
        self._client.networks.create(
            NETWORK,
            driver="overlay",
            attachable=True,
            ipam=docker.types.IPAMConfig(pool_configs=[pool]),
        )
        #: where it runs
        self.site = self._make_site()
        super().__init__(
            image=stub_tag(),
            simulate=0,
            after="import os\n"
            + CONFIG.format(address=address, lopsided=LOPSIDED, folder=FOLDER)
            + after,
            env={"DOCKER_HOST": swarm.manager.base_url, "GPUS_BRIDGE_IP": HUB_ADDRESS},
            site=self.site,
        )

    def move(self) -> None:
        """Have a new place, as the last one has ended with its engine. For the next start."""
        with suppress(NotFound):
            self._place.remove(force=True)
        self.site = self._make_site()
        self._enter = tuple(self.site.enter)

    def _make_site(self) -> Site:
        """A container on the overlay with a cable."""
        endpoint = docker.types.EndpointConfig("1.41", ipv4_address=HUB_ADDRESS)
        self._place = self._client.containers.run(
            stub_tag(),
            ["sleep", "infinity"],
            network=NETWORK,
            networking_config={NETWORK: endpoint},
            init=True,
            detach=True,
        )
        self._place.reload()
        pid = self._place.attrs["State"]["Pid"]
        host.unplug(self._cable)
        host.plug_in(
            self.swarm.bridge, self._cable, pid, inside="outside", address=f"{self._address}/24"
        )
        enter = ("nsenter", f"--net=/proc/{pid}/ns/net")
        return Site(address=self._address, enter=enter)

    def discard(self) -> None:
        """Remove everything of the Hub's."""
        host.unplug(self._cable)
        clear(self._client)
        self._client.close()
        super().discard()

    # -- what is seen from outside ---------------------------------------------------------

    def service_of(self, person: Any, server: str = "") -> dict[str, Any] | None:
        """The one service of a server; None = there is none."""
        chosen = [f"{labels.USER}={person.name}", f"{labels.SERVER}={server}"]
        found = self._client.api.services(filters={"label": chosen})
        assert len(found) <= 1
        return found[0] if found else None

    def task_of(self, person: Any, server: str = "") -> dict[str, Any] | None:
        """The one task of a server that is not over; None = there is none."""
        service = self.service_of(person, server)
        if service is None:
            return None
        found = [t for t in self._client.api.tasks() if t["ServiceID"] == service["ID"]]
        return found[0] if found else None

    def node_of(self, person: Any, server: str = "") -> SwarmNode:
        """The node that runs a server."""
        task = self.task_of(person, server)
        assert task is not None
        name = self._client.api.inspect_node(task["NodeID"])["Description"]["Hostname"]
        return next(node for node in self.swarm.nodes if node.node == name)

    def container_of(self, person: Any, server: str = "") -> Any:
        """A server's container, asked of its own node's engine."""
        found = [
            (node, container)
            for node in self.swarm.nodes
            for container in self.containers_on(node, person)
            if container.labels[labels.SERVER] == server and container.status == "running"
        ]
        ((_, container),) = found
        return container

    def containers_on(self, node: SwarmNode, person: Any) -> list[Any]:
        """Containers of a person, running or not, as one node's own engine lists them."""
        with self.swarm.client(node) as client:
            chosen = {"label": [f"{labels.USER}={person.name}"]}
            found: list[Any] = client.containers.list(all=True, filters=chosen, ignore_removed=True)
        return found

    def facts(self, person: Any, server: str = "") -> dict[str, Any]:
        """What the stub sees from inside its container."""
        answer = person.visit("facts", server)
        assert answer.status_code == 200, answer.text
        result: dict[str, Any] = json.loads(answer.text)
        return result

    def leases(self) -> dict[str, dict[str, Any]]:
        """Devices by id, as the scheduler's summary has them."""
        return {device["id"]: device for device in self.summary()["devices"]}

    def nodes(self) -> dict[str, dict[str, Any]]:
        """Nodes by name, as the scheduler's summary has them."""
        return {node["name"]: node for node in self.summary()["nodes"]}


def run_hub(swarm: Swarm, after: str = "") -> Iterator[SwarmHub]:
    """Start a Hub on the Swarm; afterwards nothing of it is left."""
    swarm.wipe()
    devices = {id for node in swarm.nodes for id in node.device_ids}
    with hubs.run_hub(SwarmHub(swarm, after)) as hub:
        wait_for("all nodes", 20, lambda: hub.leases().keys() == devices)
        yield hub


def clear(client: Any) -> None:
    """Remove the services, configs and volumes of ours, and the network."""
    for service in client.services.list():
        with suppress(NotFound):
            service.remove()
    wait_for("the end of all tasks", 60, lambda: not client.api.tasks())
    for config in client.configs.list():
        config.remove()
    for network in client.networks.list(names=[NETWORK]):
        for container in client.containers.list(all=True, filters={"network": NETWORK}):
            with suppress(APIError):  # its removal may be in progress
                container.remove(force=True)
        with suppress(NotFound):
            wait_for("a network without users", 20, lambda network=network: _removed(network))


def _removed(network: Any) -> bool:
    try:
        network.remove()
    except NotFound:
        return True
    except APIError:
        return False  # Swarm hears a moment late that nobody uses it any more
    return True


def assert_quiet(auditor: Any, running: set[str]) -> None:
    """Exactly these servers run, and nothing else is left once the nodes have cleaned up."""
    wait_for("quiet", 60, lambda: auditor.judge(running=running).ok)


def logs_in(person: Any) -> bool:
    """Whether the login leads to a page; it leads to a server that may be about to start."""
    try:
        person.login()
    except PersonError:
        return False
    return True
