"""Images from a private registry of one's own: Debian's docker-registry, with a password."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys

import pytest
import requests

from deploy.quickstart.trial import free_ports, wait_for
from jupyterhub_gpuspawner.engine import pulls, service_spec, services
from jupyterhub_gpuspawner.engine.service_spec import ServiceSpec
from tests.testbed.images import stub_tag

#: user and password of the registry; and the same as ``htpasswd -B`` writes it
LOGIN = ("team", "sesame")
HTPASSWD = "team:$2b$04$BAz2LCkST6OMkpdydK7s0eoJ27cE5AlvNy7rEyb9hd4/UbKO0TbtW\n"
CONFIG = """
version: 0.1
storage: {{filesystem: {{rootdirectory: "{folder}/data"}}}}
http: {{addr: "{address}"}}
auth: {{htpasswd: {{realm: test, path: "{folder}/htpasswd"}}}}
"""


@pytest.fixture(scope="module")
def registry(swarm, tmp_path_factory):
    """Its address; it has ``team/stub:1``, which no node has."""
    if shutil.which("docker-registry") is None:
        pytest.skip("docker-registry is not on this machine")
    folder = tmp_path_factory.mktemp("registry")
    address = f"{swarm.address(1)}:{free_ports(1)[0]}"
    (folder / "htpasswd").write_text(HTPASSWD)
    (folder / "config.yml").write_text(CONFIG.format(folder=folder, address=address))
    command = ["docker-registry", "serve", str(folder / "config.yml")]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_for("the registry", 30, lambda: answers(address))
        with swarm.client() as client:
            name = f"{address}/team/stub"
            client.images.get(stub_tag()).tag(name, "1")
            auth = dict(zip(("username", "password"), LOGIN, strict=True))
            pushed = client.images.push(name, tag="1", auth_config=auth)
            assert '"error"' not in pushed, pushed
            client.images.remove(f"{name}:1")
        yield address
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def credentials(registry, tmp_path, monkeypatch):
    """What ``docker login`` leaves behind."""
    auth = base64.b64encode(":".join(LOGIN).encode()).decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {registry: {"auth": auth}}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))


def answers(address):
    try:
        return requests.get(f"http://{address}/v2/", timeout=5).status_code == 401
    except requests.RequestException:
        return False


def outcome(swarm, registry, name):
    """The end of a server's start on the first worker: its state and Swarm's words."""
    with swarm.client() as client:
        node = next(
            one["ID"]
            for one in client.api.nodes()
            if one["Description"]["Hostname"] == swarm.workers[0].node
        )
        container = service_spec.container_spec(
            f"{registry}/team/stub:1", command=["sleep", "1000"], env={}, mounts=(), grace=1
        )
        task = {
            "ContainerSpec": container,
            "RestartPolicy": {"Condition": "none"},
            "Placement": {"Constraints": [service_spec.constraint(node)]},
        }
        service = services.create(client, ServiceSpec(name=name, labels={}, task=task))
        try:
            services.start_new(client, service)
            seen = lambda: services.progress(client, service, "none")  # noqa: E731
            wait_for("an end", 60, lambda: seen().over or seen().state == "running")
            return seen()
        finally:
            services.remove(client, service, 1)


def pull(swarm, image, *options):
    command = [sys.executable, "-m", "jupyterhub_gpuspawner.cli", "swarm", "pull", image, *options]
    return subprocess.run(
        [*command, "--engine", swarm.manager.base_url, "--timeout", "100"],
        capture_output=True,
        text=True,
    )


def test_a_private_registry_refuses_a_node_without_credentials(swarm, registry, monkeypatch):
    monkeypatch.setenv("DOCKER_CONFIG", "/nowhere")
    seen = outcome(swarm, registry, "stranger")
    assert (seen.state, seen.lacks) == ("rejected", "image")


def test_credentials_of_the_hub_go_to_the_node_that_pulls(swarm, registry, credentials):
    assert outcome(swarm, registry, "member").state == "running"


def test_an_image_is_pulled_on_every_node_by_its_digest(swarm, registry, credentials):
    image = f"{registry}/team/stub:1"
    done = pull(swarm, image, "--pin", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {one["node"]: one["state"] for one in found["nodes"]} == dict.fromkeys(
        (node.node for node in swarm.nodes), "there"
    )
    for node in swarm.nodes:
        with swarm.client(node) as client:
            assert found["image"].removeprefix(f"{image}@") in str(
                client.images.get(found["image"]).attrs["RepoDigests"]
            )
    with swarm.client() as client:
        assert not client.services.list()
        # what the scheduler's placement reads
        nodes = frozenset(node.node for node in swarm.nodes)
        assert pulls.remembered(client) == {found["image"]: nodes}


def test_an_image_that_is_nowhere_is_told_for_each_node(swarm, registry, credentials):
    done = pull(swarm, f"{registry}/team/absent:1")
    assert done.returncode == 1
    assert done.stdout.count("failed") == 3
    pinned = pull(swarm, f"{registry}/team/absent:1", "--pin")
    assert pinned.returncode == 1
    assert "its digest can't be had from its registry" in pinned.stderr
