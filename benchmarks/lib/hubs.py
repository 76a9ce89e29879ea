"""The two Hubs that are compared: one process each, same machine, same engine, same settings."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import requests

from deploy.quickstart.smoke import tidy
from deploy.quickstart.trial import TrialError, TrialHub
from jupyterhub_gpuspawner.engine import labels

#: name of the node that the GPUs are simulated on, so that no other's are touched
NODE = "bench"
#: the same limits on both sides; small, because 20 servers of each Hub must fit in memory
MEMORY, CPUS = "512M", 1.0

#: a Hub without anything of ours, up to its spawner
BASE = """\
import os
c = get_config()
state = os.environ["GPUS_STATE_DIR"]
c.JupyterHub.bind_url = "http://127.0.0.1:" + os.environ["GPUS_PORT"]
c.JupyterHub.db_url = "sqlite:///" + state + "/jupyterhub.sqlite"
c.JupyterHub.cookie_secret_file = state + "/cookie_secret"
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:" + os.environ["GPUS_PROXY_API_PORT"]
c.ConfigurableHTTPProxy.pid_file = state + "/proxy.pid"
c.JupyterHub.hub_ip = os.environ["GPUS_BRIDGE_IP"]
c.JupyterHub.hub_port = int(os.environ["GPUS_HUB_PORT"])
c.JupyterHub.authenticator_class = "shared-password"
c.SharedPasswordAuthenticator.user_password = os.environ["GPUS_PASSWORD"]
c.SharedPasswordAuthenticator.allow_all = True
"""

_STOCK = """\
# from here on: DockerSpawner as its README sets it up
c.JupyterHub.spawner_class = "docker"
c.DockerSpawner.use_internal_ip = True
c.DockerSpawner.remove = True
c.DockerSpawner.allowed_images = {images!r}
c.DockerSpawner.prefix = {prefix!r}
c.DockerSpawner.volumes = {{"{prefix}-home-{{username}}": "/home/jovyan"}}
c.DockerSpawner.mem_limit = {memory!r}
c.DockerSpawner.cpu_limit = {cpus!r}
"""

_GPUS = """\
c.GPUDockerSpawner.mem_limit = {memory!r}
c.GPUDockerSpawner.cpu_limit = {cpus!r}
c.GPUDockerSpawner.profile_list = [
    {{"display_name": name, "slug": name, "spawner_override": {{"gpus": 1, "image": image}}}}
    for name, image in {images!r}.items()
]
c.GPUScheduler.discovery = "simulated"
c.GPUScheduler.node_name = {node!r}
# the engine may have an owner already, who gives out other GPUs
c.GPUScheduler.claim_engine = False
c.GPUScheduler.cdi_dir = {cdi_dir!r}
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """The engine, as a Hub needs to know it."""

    #: such as ``unix:///var/run/docker.sock``
    url: str
    #: where containers reach the Hub
    gateway: str
    #: folder of the engine's CDI specifications; empty = it has none that we may write
    cdi_dir: str = ""
    #: unique part of the names of what the stock Hub makes
    token: str = field(default_factory=lambda: "gpusbench" + secrets.token_hex(3))

    def client(self) -> docker.DockerClient:
        """A new client; the caller closes it."""
        return docker.DockerClient(base_url=self.url, timeout=120)

    def environment(self) -> dict[str, str]:
        """Variables for a Hub's process."""
        return {"DOCKER_HOST": self.url, "GPUS_BRIDGE_IP": self.gateway}


class BareHub(TrialHub):
    """A Hub without our spawner: no service, no scheduler."""

    def serves(self) -> bool:
        """Whether it answers."""
        if self._process is not None and self._process.poll() is not None:
            raise TrialError(f"the stock Hub ended; {self.last_words()}")
        try:
            return self._web.get(f"{self.base}/hub/login", timeout=5).status_code == 200
        except requests.RequestException:
            return False


class StockHub(BareHub):
    """JupyterHub with DockerSpawner.

    Parameters
    ----------
    place:
        The engine.
    images:
        Names for the form -> images.
    """

    def __init__(self, place: Place, images: Mapping[str, str]) -> None:
        super().__init__(image="", simulate=0, env=place.environment())
        self.config.write_text(
            BASE + _STOCK.format(images=dict(images), prefix=place.token, memory=MEMORY, cpus=CPUS)
        )

    def options(self, image: str) -> dict[str, str]:
        """What the form sends for an image."""
        return {"image": image}


class GPUHub(TrialHub):
    """JupyterHub with GPUDockerSpawner and its scheduler. Each server gets a simulated GPU."""

    def __init__(self, place: Place, images: Mapping[str, str], gpus: int) -> None:
        lines = _GPUS.format(
            images=dict(images), memory=MEMORY, cpus=CPUS, node=NODE, cdi_dir=place.cdi_dir
        )
        image = next(iter(images.values()))
        super().__init__(image=image, simulate=gpus, after=lines, env=place.environment())

    def options(self, image: str) -> dict[str, str]:
        """What the form sends for an image."""
        return {"profile": image}


def clean(place: Place, ledger: str) -> None:
    """Remove the containers and volumes of both Hubs, found by ledger id and unique prefix."""
    client = place.client()
    try:
        for container in client.containers.list(all=True, filters={"name": place.token}):
            client.api.remove_container(container.id, force=True, v=True)
        for volume in client.volumes.list(filters={"name": place.token}):
            volume.remove()
        if ledger:
            tidy(client, ledger)
    finally:
        client.close()
    if place.cdi_dir:
        for spec in Path(place.cdi_dir).glob(f"jupyterhub-gpuspawner-simulated-{NODE}.json"):
            spec.unlink()


def containers_of(place: Place, client: docker.DockerClient, ledger: str) -> list[Any]:
    """All servers' containers of both Hubs."""
    found = client.containers.list(all=True, filters={"name": place.token}, ignore_removed=True)
    if ledger:
        chosen = {"label": f"{labels.LEDGER}={ledger}"}
        found += client.containers.list(all=True, filters=chosen, ignore_removed=True)
    return list(found)
