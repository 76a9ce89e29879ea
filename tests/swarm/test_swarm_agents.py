"""Node agents on a real Swarm: a global service that reports on simulated GPUs."""

from __future__ import annotations

import io
import secrets
import tarfile
from pathlib import Path

import pytest

import jupyterhub_gpuspawner
from deploy.quickstart.trial import wait_for
from tests import hubs
from tests.hub.conftest import is_ready, line_up, start
from tests.swarm.hubs import SwarmHub
from tests.testbed.images import stub_tag

IMAGE, SECRET = "gpuspawner-test/agent:latest", "gpus-agent-key"
AFTER = """
c.GPUScheduler.agent_key_file = {key!r}
c.GPUScheduler.agent_silence = 5
"""


def build(client):
    """The package on the stub's Python, which has the standard library only."""
    package = Path(jupyterhub_gpuspawner.__file__).parent
    text = f"FROM {stub_tag()}\nCOPY jupyterhub_gpuspawner /agent/jupyterhub_gpuspawner\n"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.add(package, "jupyterhub_gpuspawner")
        info = tarfile.TarInfo("Dockerfile")
        info.size = len(text)
        archive.addfile(info, io.BytesIO(text.encode()))
    packed.seek(0)
    client.images.build(fileobj=packed, custom_context=True, tag=IMAGE, rm=True)


@pytest.fixture(scope="module")
def hub(swarm, manager, tmp_path_factory):
    """A Hub whose scheduler wants to hear from an agent on each node with GPUs."""
    key = tmp_path_factory.mktemp("key") / "agent-key"
    key.write_text(secrets.token_hex(32))
    swarm.wipe()
    for node in swarm.nodes:
        with swarm.client(node) as client:
            build(client)
    hub = SwarmHub(swarm, AFTER.format(key=str(key)))
    secret = manager.secrets.create(name=SECRET, data=key.read_bytes())
    try:
        with hubs.run_hub(hub):
            yield hub
    finally:
        secret.remove()


@pytest.fixture(scope="module")
def agents(hub, manager):
    """The agents, as the how-to starts them but for the image and the simulated GPUs."""
    (secret,) = manager.api.secrets(filters={"name": SECRET})
    file = {"Name": SECRET, "UID": "0", "GID": "0", "Mode": 0o444}
    container = {
        "Image": IMAGE,
        "Command": ["python3", "-m", "jupyterhub_gpuspawner.agent"],
        "Dir": "/agent",
        "Env": [
            f"GPUS_SCHEDULER_URL={hub.service}",
            "GPUS_NODE_ID={{.Node.ID}}",
            "GPUS_NODE_NAME={{.Node.Hostname}}",
            "GPUS_AGENT_INTERVAL=1",
            "GPUS_HOST_PROC=/host/proc",
            "GPUS_SIMULATE=2",
        ],
        "Mounts": [{"Type": "bind", "Source": "/proc", "Target": "/host/proc", "ReadOnly": True}],
        "ReadOnly": True,
        "Init": True,
        "Secrets": [{"SecretID": secret["ID"], "SecretName": SECRET, "File": file}],
    }
    task = {"ContainerSpec": container, "Networks": [{"Target": "host"}]}
    service = manager.api.create_service(task, name="gpus-agent", mode={"Global": {}})["ID"]
    yield
    manager.api.remove_service(service)


def agent_on(client):
    (found,) = client.containers.list(filters={"ancestor": IMAGE})
    return found


def test_a_node_gives_out_nothing_before_its_agent_has_reported(hub, request):
    assert hub.leases() == {}
    request.getfixturevalue("agents")
    wait_for("both workers", 90, lambda: len(hub.leases()) == 4)
    assert {device["state"] for device in hub.leases().values()} == {"free"}


def test_a_silent_agents_node_gives_no_gpu_and_frees_none(hub, agents, somebody, swarm, auditor):
    alice, bob = somebody("alice"), somebody("bob")
    start(alice, "gpu")
    node, held = hub.node_of(alice), set(hub.facts(alice)["gpus"])
    auditor.protect(alice.name)
    other = next(one for one in swarm.workers if one is not node)
    with swarm.client(node) as here, swarm.client(other) as there:
        paused = [agent_on(here), agent_on(there)]
        for one in paused:
            one.pause()
        try:
            wait_for("silence", 60, lambda: states(hub) == {"silent"})
            line, events = line_up(bob, "gpu")
            assert held <= hub.busy()
            assert set(hub.facts(alice)["gpus"]) == held
        finally:
            for one in paused:
                one.unpause()
    assert is_ready(events), line
    wait_for("both nodes", 60, lambda: states(hub) == {"up"})
    assert set(hub.facts(alice)["gpus"]) == held
    assert held.isdisjoint(hub.facts(bob)["gpus"])
    auditor.release(alice.name)


def states(hub):
    names = {node.node for node in hub.swarm.workers}
    return {node["state"] for name, node in hub.nodes().items() if name in names}
