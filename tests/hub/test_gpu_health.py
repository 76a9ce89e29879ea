"""GPUs that fail, or work, while servers hold them, by a driver library that the test changes.

The library is the compiled fake of ``tests/fakenvml``, found the way the real one is found. What
it says is read anew at each look of the service's.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jupyterhub
import pytest
import requests

from deploy.quickstart.trial import TrialHub, wait_for
from tests.compiled import fake_nvml
from tests.hubs import run_hub
from tests.testbed.config import cdi_spec
from tests.testbed.processes import boot_id

from .conftest import container_of, facts, make_hub, plain, server_of, start

pytestmark = pytest.mark.skipif(
    jupyterhub.version_info[0] < 6,
    reason="a GPU's health knows nothing of the Hub's version; runs once, on the newer line",
)

GPUS = ("GPU-0fake", "GPU-1fake")
CONFIG = """
c.GPUScheduler.reconcile_interval = 1
c.GPUScheduler.hung_stop = 3
c.GPUScheduler.alarm_hold = 5
c.GPUScheduler.stop_grace = 1
c.GPUDockerSpawner.stop_grace = 1
c.JupyterHub.load_groups = {"idlers": {"users": []}, "staff": {"users": []}}
c.GPUScheduler.group_idle_timeouts = {"idlers": 4, "staff": None}
c.GPUScheduler.idle_min_runtime = 1
c.GPUScheduler.idle_warning = 600
c.GPUDockerSpawner.activity_interval = 1
"""
#: starts the Hub where another boot id is seen: the one that stands in a file
WRAPPER = """#!/bin/sh
exec unshare --mount --propagation private sh -c '
mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"' {boot} {python} "$@"
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """A machine with two GPUs whose driver and boot id the test writes."""

    folder: Path

    def says(self, *lines: str, **extra: str) -> None:
        """From now on the driver says this; ``gpu0="recovery=2"`` adds to a GPU's line."""
        gpus = [
            f"gpu|uuid={name}|name=Tesla T4|total={16 << 30}|{extra.get(f'gpu{k}', '')}"
            for k, name in enumerate(GPUS)
        ]
        text = "".join(f"{line}\n" for line in (*gpus, *lines))
        draft = self.folder / "draft"
        draft.write_text(text)
        draft.rename(self.folder / "scenario")

    def boots(self) -> None:
        """The machine has another boot id."""
        # in place: the file is bound over the kernel's
        (self.folder / "boot").write_text("b007b007-0000-4000-8000-000000000000\n")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    folder = tmp_path_factory.mktemp("nvml")
    fake_nvml(folder, f'-DSCENARIO="{folder}/scenario"')
    (folder / "boot").write_text(boot_id() + "\n")
    wrapper = folder / "python"
    wrapper.write_text(WRAPPER.format(boot=folder / "boot", python=sys.executable))
    wrapper.chmod(0o755)
    machine = Machine(folder=folder)
    machine.says()
    return machine


@pytest.fixture(scope="module")
def hub(machine: Machine, engine: Any, docker_client: Any, stub_image: str) -> Iterator[TrialHub]:
    """A Hub whose scheduler reads the fake driver; the engine injects the GPUs by CDI."""
    spec = engine.folder / "cdi" / "fake-nvml.json"
    spec.write_text(json.dumps(cdi_spec(GPUS)))
    hub = make_hub(
        engine,
        stub_image,
        CONFIG,
        simulate=0,
        env={"LD_LIBRARY_PATH": str(machine.folder), "GPUS_DISCOVERY": "nvml"},
        python=str(machine.folder / "python"),
    )
    try:
        with run_hub(hub, docker_client):
            yield hub
    finally:
        spec.unlink()


def state(hub: TrialHub, device: str) -> tuple[str, str | None]:
    """A device's state and the reason for it."""
    row = next(one for one in hub.summary()["devices"] if one["id"] == device)
    return row["state"], row["reason"]


def gpu_of(hub: TrialHub, person: Any, client: Any) -> tuple[str, int]:
    """The one GPU that a server sees, and its index."""
    (name,) = facts(hub, person, client)["gpus"]
    return name, GPUS.index(name)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("lost", "the GPU has fallen off the bus; reboot the machine"),
        ("reset", "the driver asks for a GPU reset"),
    ],
)
def test_a_gpu_that_fails_is_withheld_and_its_server_lives(
    hub, somebody, machine, docker_client, what, words
):
    alice, bob = somebody("alice"), somebody("bob")
    start(alice)
    container = container_of(docker_client, alice)
    name, index = gpu_of(hub, alice, docker_client)
    if what == "lost":
        machine.says(f"fail|call=nvmlDeviceGetMemoryInfo_v2|gpu={index}|code=15")
    else:
        # after a fatal XID, with a driver that says so
        machine.says(**{f"gpu{index}": "recovery=1"})
    try:
        # its user is told what happened, and the server goes on
        wait_for("the page", 60, lambda: words in plain(alice.page("/services/gpus/")))
        assert "The GPU does not work properly" in plain(alice.page("/services/gpus/"))
        container.reload()
        assert container.status == "running"
        assert server_of(alice)["ready"]
        # given back, it is given to nobody
        alice.stop()
        wait_for("the GPU", 60, lambda: state(hub, name) == ("unavailable", "device_unhealthy"))
        start(bob)
        assert gpu_of(hub, bob, docker_client)[0] != name
        alice.api("POST", f"/users/{alice.name}/server", json={"profile": "gpu"})
        wait_for("the queue", 60, lambda: hub.summary()["queue"] == 1)
    finally:
        machine.says()
    # repaired and looked at with nobody on it, it is given out again
    wait_for("alice's server", 60, lambda: (server_of(alice) or {}).get("ready"))
    assert gpu_of(hub, alice, docker_client)[0] == name


def leases(hub: TrialHub) -> dict[str, Any]:
    """Whose server -> its lease, of those that are warned because nobody uses them."""
    token = (hub.state / "gpus" / "service-token").read_text().strip()
    with requests.Session() as web:
        web.trust_env = False  # no proxy of this machine's
        web.headers["Authorization"] = f"token {token}"
        rows = web.get(f"{hub.service}/api/leases", timeout=20).json()["items"]
    return {row["server"]: row for row in rows if row["idle"]}


def test_a_gpu_that_computes_keeps_a_silent_server_and_a_group_may_be_exempt(
    hub, somebody, machine, docker_client
):
    admin = hub.person("admin", admin=True)
    worker, idler, exempt = somebody("worker"), somebody("idler"), somebody("exempt")
    names = [one.name for one in (worker, idler, exempt)]
    admin.api("POST", "/groups/idlers/users", json={"users": names})
    admin.api("POST", "/groups/staff/users", json={"users": [exempt.name]})
    machine.says(gpu0="util=80", gpu1="util=80")
    try:
        start(worker)
        start(idler)
        working = {f"gpu{gpu_of(hub, worker, docker_client)[1]}": "util=80"}
        # nobody touches a kernel of either: only one of the GPUs still computes
        machine.says(**working)
        wait_for("the warning of the other", 60, lambda: idler.name in leases(hub))
        assert worker.name not in leases(hub)
        idler.stop()
        start(exempt)
        machine.says()
        wait_for("the warning of who computed", 60, lambda: worker.name in leases(hub))
        assert exempt.name not in leases(hub)
        # and nothing but the group kept it from that
        admin.api("DELETE", "/groups/staff/users", json={"users": [exempt.name]})
        wait_for("the warning of who was exempt", 60, lambda: exempt.name in leases(hub))
        # work withdraws it again
        machine.says(**working)
        wait_for("no warning", 60, lambda: worker.name not in leases(hub))
    finally:
        machine.says()


def test_an_error_that_is_only_reported_is_heard_and_passes(hub, somebody, machine, docker_client):
    alice = somebody("alice")
    start(alice)
    container = container_of(docker_client, alice)
    name, index = gpu_of(hub, alice, docker_client)
    numbers = itertools.count(1)

    def told() -> bool:
        # again and again: what happens before the listener is up is told to nobody
        machine.says(f"event|n={next(numbers)}|gpu={index}|type=8|data=62")
        return "the driver reports XID 62" in plain(alice.page("/services/gpus/"))

    try:
        wait_for("the page", 60, told)
        container.reload()
        assert container.status == "running"
    finally:
        machine.says()
    alice.stop()
    # nothing can be measured that is wrong, and nobody is on it
    wait_for("the GPU", 60, lambda: state(hub, name) == ("free", None))


def freezer(container: Any) -> Path:
    """A control group that keeps a container's process from dying, as a hanging driver does.

    One below the container's own, which the engine would thaw before it kills.
    """
    found = list(Path("/sys/fs/cgroup/freezer").glob(f"*/{container.id}/freezer.state"))
    if not found:
        pytest.skip("needs the freezer of control groups version 1: what is frozen can't be killed")
    group = found[0].parent / "hangs"
    group.mkdir()
    container.reload()
    (group / "cgroup.procs").write_text(str(container.attrs["State"]["Pid"]))
    return group / "freezer.state"


def test_a_stop_that_hangs_quarantines_the_gpu_until_the_next_boot(
    hub, somebody, machine, docker_client
):
    alice, bob = somebody("alice"), somebody("bob")
    start(alice)
    container = container_of(docker_client, alice)
    name, _ = gpu_of(hub, alice, docker_client)
    frozen = freezer(container)
    # as a process that hangs in the driver: SIGKILL is sent, and nothing ends
    frozen.write_text("FROZEN")
    # a signal that comes before would still kill it
    wait_for("the freezer", 60, lambda: frozen.read_text().strip() == "FROZEN")
    try:
        alice.cancel()
        # while it is not known what still runs on it, nobody gets it
        wait_for("the quarantine", 120, lambda: state(hub, name)[1] == "device_quarantined")
        assert name in plain(hub.log())
        start(bob)
        assert gpu_of(hub, bob, docker_client)[0] != name
        container.reload()
        assert container.status == "running"
    finally:
        with suppress(FileNotFoundError):
            frozen.write_text("THAWED")
    # the process ended after all, and the GPU still is not trusted: only a boot clears it
    wait_for(
        "no container",
        60,
        lambda: (
            not docker_client.containers.list(
                all=True, filters={"id": container.id}, ignore_removed=True
            )
        ),
    )
    wait_for("the lease's end", 60, lambda: f"{alice.name}: gave back" in hub.log())
    assert state(hub, name) == ("unavailable", "device_quarantined")
    machine.boots()
    wait_for("the GPU", 60, lambda: state(hub, name) == ("free", None))
