"""The two that are compared: a real Hub with DockerSpawner, and one with GPUDockerSpawner.

Both have the same engine, image, memory limit, time limits and two GPUs. DockerSpawner gets what a
careful admin writes: a hook that looks which GPUs running containers hold, and takes a free one.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import docker.errors

from benchmarks.lib.hubs import Place, StockHub
from deploy.quickstart.person import Person, PersonError
from deploy.quickstart.trial import TrialHub
from jupyterhub_gpuspawner.dockerspawner import GPUDockerSpawner
from jupyterhub_gpuspawner.engine import labels, volumes
from tests.stock.wire import Wire

#: seconds in which what ought to happen does; for both the same
PATIENCE = 12.0

#: for both: short times, and what a user's name makes of their server
COMMON = """
c.Spawner.poll_interval = 1
c.Spawner.start_timeout = 60
c.Spawner.http_timeout = 8
c.JupyterHub.default_url = "/hub/home"
c.JupyterHub.tornado_settings = {"slow_spawn_timeout": 1, "slow_stop_timeout": 1}

def by_name(spawner):
    if spawner.user.name.startswith("dies"):
        spawner.environment = {"STUB_DIE": "3"}
    if spawner.user.name.startswith("late"):
        spawner.start_timeout = 3
"""

#: how DockerSpawner gets GPUs; the page of the comparison shows it
RECIPE = '''\
def give_a_gpu(spawner):
    """Take a GPU that no running container holds."""
    client = docker.from_env()
    used = set()
    for container in client.containers.list():
        for request in container.attrs["HostConfig"]["DeviceRequests"] or []:
            used.update(request["DeviceIDs"] or [])
    client.close()
    free = [gpu for gpu in GPUS if gpu not in used]
    if not free:
        raise HTTPError(409, "No GPU is free")
    request = docker.types.DeviceRequest(driver="cdi", device_ids=free[:1])
    spawner.extra_host_config = {"device_requests": [request]}
'''

STOCK = """
import docker
from concurrent.futures import ThreadPoolExecutor
from dockerspawner import DockerSpawner
from tornado.web import HTTPError

GPUS = {gpus!r}
{recipe}
def hook(spawner):
    by_name(spawner)
    if spawner.user.name.startswith("kept"):
        spawner.remove = False
    if spawner.user.name.startswith("threads"):
        DockerSpawner._executor = ThreadPoolExecutor(8)
    give_a_gpu(spawner)

c.DockerSpawner.pre_spawn_hook = hook
c.DockerSpawner.image = {image!r}
c.DockerSpawner.mem_limit = "64M"
c.DockerSpawner.extra_create_kwargs = {{"stop_timeout": 1}}
c.DockerSpawner.volumes = {{}}
"""

OURS = """
c.GPUDockerSpawner.pre_spawn_hook = by_name
c.GPUDockerSpawner.profile_list = [
    {"display_name": "gpu", "slug": "gpu", "spawner_override": {"gpus": 1}},
]
c.GPUDockerSpawner.mem_limit = "64M"
c.GPUDockerSpawner.stop_grace = 1
c.GPUScheduler.detach_grace = 3
c.GPUScheduler.exited_grace = 5
c.GPUScheduler.reconcile_interval = 2
c.GPUScheduler.node_name = "compared"
"""


class Side(ABC):
    """One Hub, its socket to the engine, and what an observer sees beside it."""

    #: name of the class that is compared
    title: str
    hub: TrialHub

    def __init__(self, engine: Any, client: Any, folder: Path) -> None:
        self.client = client
        self.wire = Wire(folder / "docker.sock", str(engine.socket))
        self.place = Place(
            url=self.wire.url, gateway=engine.gateway, cdi_dir=str(engine.folder / "cdi")
        )

    def close(self) -> None:
        """Stop the Hub, and leave nothing of it on the engine."""
        self.hub.stop()
        for found in self.client.containers.list(all=True, ignore_removed=True):
            if self.is_mine(found):
                with suppress(docker.errors.APIError):
                    found.remove(force=True, v=True)
        self.wire.close()
        self.hub.discard()

    # -- what differs ----------------------------------------------------------------------

    @abstractmethod
    def options(self) -> dict[str, Any]:
        """What the form sends."""

    @abstractmethod
    def container_name(self, user: str) -> str:
        """What the spawner calls the container of a user who has had one, or will."""

    @abstractmethod
    def is_mine(self, container: Any) -> bool:
        """Whether this side made the container."""

    # -- what people do --------------------------------------------------------------------

    def person(self, name: str) -> Person:
        """Somebody who is logged in."""
        return self.hub.person(name)

    def ask(self, person: Person, options: Any = None) -> Any:
        """Press start; the Hub's first answer, after a second at most."""
        body = self.options() if options is None else options
        return person.api("POST", f"/users/{person.name}/server", json=body)

    def start(self, person: Person) -> str:
        """Press start and wait; "" = it is ready, else what the user is told."""
        answer = self.ask(person)
        if answer.status_code >= 400:
            return str(answer.json().get("message", answer.text))
        if answer.status_code == 201:
            return ""
        try:
            person.wait(limit=60)
        except PersonError as error:
            return str(error)
        return ""

    def stop(self, person: Person) -> int:
        """Press stop, and again until the Hub says that it is done; the last answer."""
        until = time.monotonic() + PATIENCE
        while True:
            code = int(person.cancel().status_code)
            if code not in (202, 500) or time.monotonic() > until:
                return code
            time.sleep(0.2)

    # -- what an observer sees -------------------------------------------------------------

    def shown(self, person: Person) -> bool:
        """Whether the Hub shows a server of this person."""
        model = person.api("GET", f"/users/{person.name}").json()
        return "" in model.get("servers", {})

    def containers(self, user: str) -> list[Any]:
        """The user's containers, read from the engine."""
        name = self.container_name(user)
        found = self.client.containers.list(all=True, ignore_removed=True)
        return [container for container in found if container.name == name]

    def running(self, user: str) -> bool:
        """Whether a container of this user runs."""
        return any(container.status == "running" for container in self.containers(user))

    def gpus(self, user: str) -> set[str]:
        """The GPUs in the user's running container, as the engine injected them."""
        return {
            gpu
            for container in self.containers(user)
            if container.status == "running"
            for request in container.attrs["HostConfig"]["DeviceRequests"] or []
            for gpu in request["DeviceIDs"] or []
        }


class Stock(Side):
    """JupyterHub with DockerSpawner as it is."""

    title = "DockerSpawner"

    def __init__(self, engine: Any, client: Any, folder: Path, image: str) -> None:
        super().__init__(engine, client, folder)
        self.hub = StockHub(self.place, {"stub": image, "same": image})
        gpus = [f"nvidia.com/gpu={name}" for name in engine.device_ids[:2]]
        more = STOCK.format(gpus=gpus, image=image, recipe=RECIPE)
        self.hub.config.write_text(self.hub.config.read_text() + COMMON + more)

    def options(self) -> dict[str, Any]:
        return {"image": "stub"}

    def container_name(self, user: str) -> str:
        return f"{self.place.token}-{user}"

    def is_mine(self, container: Any) -> bool:
        return str(container.name).startswith(self.place.token)


class Ours(Side):
    """JupyterHub with GPUDockerSpawner and its scheduler."""

    title = "GPUDockerSpawner"

    def __init__(self, engine: Any, client: Any, folder: Path, image: str) -> None:
        super().__init__(engine, client, folder)
        self.hub = TrialHub(
            image=image,
            simulate=2,
            after=COMMON + OURS + f"c.GPUScheduler.cdi_dir = {self.place.cdi_dir!r}\n",
            env=self.place.environment(),
        )

    def options(self) -> dict[str, Any]:
        return {"profile": "gpu"}

    def container_name(self, user: str) -> str:
        return volumes.container_name(user, "", str(GPUDockerSpawner.hub_name.default_value))

    def is_mine(self, container: Any) -> bool:
        return labels.LEDGER in container.labels

    def close(self) -> None:
        super().close()
        for volume in self.client.volumes.list(filters={"label": labels.LEDGER}):
            with suppress(docker.errors.APIError):
                volume.remove(force=True)
        for spec in Path(self.place.cdi_dir).glob("*-compared.json"):
            spec.unlink()


def settles(check: Callable[[], bool], seconds: float = PATIENCE) -> bool:
    """Whether ``check`` comes true in time; an observer's question, so no error if not."""
    until = time.monotonic() + seconds
    while not check():
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True
