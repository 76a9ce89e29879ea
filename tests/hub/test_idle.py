"""Servers that nobody uses, through a real Hub: warned, kept, stopped, and told why."""

from __future__ import annotations

import os
import subprocess

import pytest

from deploy.quickstart.trial import wait_for
from tests import howto
from tests.hub.conftest import make_hub, server_of, start
from tests.hubs import people, run_hub

#: times of seconds; the profile "rstudio" is a server that can't be asked
AFTER = """
c.GPUScheduler.idle_timeout = 4
c.GPUScheduler.idle_warning = 4
c.GPUScheduler.idle_min_runtime = 1
c.GPUScheduler.reconcile_interval = 1
c.GPUDockerSpawner.activity_interval = 1
c.GPUScheduler.cpu_idle_timeout = 4
c.GPUDockerSpawner.profile_list += [
    profile("rstudio", gpus=1, environment={"STUB_NO_JUPYTER": "1"}),
]
"""


@pytest.fixture(scope="module")
def idle_hub(engine, docker_client, stub_image):
    with run_hub(make_hub(engine, stub_image, AFTER, simulate=3), docker_client) as hub:
        yield hub


@pytest.fixture
def somebody(idle_hub):
    with people(idle_hub) as make:
        yield make


def lease_of(hub, person):
    token = (hub.state / "gpus" / "service-token").read_text().strip()
    found = run(PAGE_COMMANDS[0], hub, token)
    import json

    return next((row for row in json.loads(found)["items"] if row["server"] == person.name), None)


def run(command, hub, token, **env):
    done = subprocess.run(
        ["bash", "-euc", command],
        env={**os.environ, "TOKEN": token, "HUB": hub.base, "no_proxy": "*", **env},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


PAGE_COMMANDS = howto.blocks("idle", __file__)


def test_unused_gpus_are_taken_back_and_busy_or_unknown_servers_stay(idle_hub, somebody):
    hub = idle_hub
    idle, busy, unknown = somebody("idle"), somebody("busy"), somebody("unknown")
    start(busy)
    busy.visit("kernel?busy")
    start(unknown, "rstudio")
    start(idle)
    wait_for("the warning", 60, lambda: (lease_of(hub, idle) or {}).get("idle"))
    assert "Nobody uses it" in idle.page("/services/gpus/")
    wait_for("the stop", 60, lambda: not server_of(idle))
    wait_for("a free GPU", 60, lambda: len(hub.busy()) == 2)
    assert "nobody used it and its GPUs" in idle.form()
    for person in (busy, unknown):
        assert server_of(person)["ready"]
        assert not lease_of(hub, person)["idle"]


def test_a_server_is_kept_by_the_command_of_the_how_to(idle_hub, somebody):
    hub, alice = idle_hub, somebody("alice")
    start(alice)
    wait_for("the warning", 60, lambda: (lease_of(hub, alice) or {}).get("idle"))
    token = alice.api("POST", f"/users/{alice.name}/tokens", json={}).json()["token"]
    run(PAGE_COMMANDS[1], hub, token, LEASE=lease_of(hub, alice)["id"])
    lease = lease_of(hub, alice)
    assert not lease["idle"] and lease["kept_until"] > lease["granted_at"] + 3600
    assert server_of(alice)["ready"]


def test_the_stock_culler_stops_an_idle_server_without_gpus(idle_hub, somebody):
    alice = somebody("alice")
    start(alice, "cpu")
    wait_for("the stop by the culler", 60, lambda: not server_of(alice))
    assert "Culling server" in idle_hub.log()
