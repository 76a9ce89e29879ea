"""The engine of a case: the fake one, or the testbed's. Same calls, other socket."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import docker
import docker.errors

from tests.fake_engine import FakeEngine

PREFIX = "jupyterhub-gpuspawner."


class CaseEngine(Protocol):
    """What scenarios and worlds ask of an engine."""

    base_url: str
    socket: str
    image: str
    devices: int

    def reset(self) -> None: ...
    def scheduler_options(self) -> dict[str, Any]: ...
    def hub_options(self) -> dict[str, Any]: ...
    def container_of(self, user: str) -> str: ...
    def die(self, user: str) -> None: ...
    def remove(self, user: str) -> None: ...
    def stray(self, ledger: str) -> None: ...
    def has(self, user: str) -> bool: ...
    def slow_create(self) -> None: ...
    def creates(self) -> int: ...
    def close(self) -> None: ...


class _Common:
    """What both do by the SDK."""

    def __init__(self, base_url: str, image: str) -> None:
        self.base_url = base_url
        self.image = image
        self.api = docker.APIClient(base_url=base_url, version="1.45", timeout=30)

    def container_of(self, user: str) -> str:
        """The id of a user's container."""
        selectors = {"label": [f"{PREFIX}user={user}"]}
        (row,) = self.api.containers(all=True, filters=selectors)
        return str(row["Id"])

    def has(self, user: str) -> bool:
        """Whether a container of this user is there."""
        return bool(self.api.containers(all=True, filters={"label": [f"{PREFIX}user={user}"]}))

    def remove(self, user: str) -> None:
        """Behind everybody's back."""
        self.api.remove_container(self.container_of(user), force=True)

    def stray(self, ledger: str) -> None:
        """A container of ours that was created for a lease that is over."""
        labels = {
            PREFIX + "ledger": ledger,
            PREFIX + "kind": "server",
            PREFIX + "lease": "long-over",
            PREFIX + "user": "ghost",
            PREFIX + "name": "ghost",
        }
        self.api.create_container(self.image, name="gpus-ghost", labels=labels)

    def close(self) -> None:
        """Close connections."""
        self.api.close()


class FakeCaseEngine(_Common):
    """A fake engine of its own."""

    def __init__(self, folder: Path) -> None:
        self.fake = FakeEngine(folder / "engine.sock")
        self.fake.start()
        self.socket = self.fake.socket
        self.devices = 2
        super().__init__(self.fake.base_url, "stub")

    def reset(self) -> None:
        self.fake.reset()

    def scheduler_options(self) -> dict[str, Any]:
        return {"simulate": self.devices, "node_name": "n"}

    def hub_options(self) -> dict[str, Any]:
        return {}

    def die(self, user: str) -> None:
        self.fake.die(self.container_of(user), 1)

    def slow_create(self) -> None:
        self.fake.fault("POST /containers/create", "slow", seconds=0.4)

    def creates(self) -> int:
        """How many creates were begun so far."""
        return self.fake.calls().count("POST /containers/create")

    def close(self) -> None:
        super().close()
        self.fake.stop()


class RealCaseEngine(_Common):
    """The testbed's engine. Two of its devices are used, so that a queue is possible."""

    def __init__(self, base_url: str, socket: str, image: str, cdi: str, node: str) -> None:
        super().__init__(base_url, image)
        self._node = node
        self.socket = socket
        self.devices = 2
        self._cdi = cdi

    def reset(self) -> None:
        for row in self.api.containers(all=True, filters={"label": f"{PREFIX}kind"}):
            with suppress(docker.errors.NotFound):
                self.api.remove_container(row["Id"], force=True, v=True)
        for network in self.api.networks(filters={"label": f"{PREFIX}ledger"}):
            with suppress(docker.errors.NotFound):
                self.api.remove_network(network["Id"])
        for volume in self.api.volumes(filters={"label": f"{PREFIX}kind"})["Volumes"] or ():
            self._remove_volume(str(volume["Name"]))

    def _remove_volume(self, name: str) -> None:
        for _ in range(50):
            with suppress(docker.errors.NotFound):
                try:
                    self.api.remove_volume(name)
                except docker.errors.APIError as error:
                    if error.status_code != 409:
                        raise
                    time.sleep(0.1)
                    continue
            return

    def scheduler_options(self) -> dict[str, Any]:
        return {"simulate": self.devices, "node_name": self._node, "cdi_dir": self._cdi}

    def hub_options(self) -> dict[str, Any]:
        return {}

    def die(self, user: str) -> None:
        self.api.kill(self.container_of(user))

    def slow_create(self) -> None:
        """It is slow enough by itself."""

    def creates(self) -> int:
        """How many containers there are."""
        return len(self.api.containers(all=True))
