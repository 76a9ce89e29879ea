"""``doctor`` on a real engine, with misconfigurations that are really there."""

from __future__ import annotations

import json
import socket
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import docker
import docker.errors
import pytest

from jupyterhub_gpuspawner.cli.main import main
from jupyterhub_gpuspawner.doctor import image_facts
from jupyterhub_gpuspawner.doctor.gather_engine import reach
from jupyterhub_gpuspawner.engine import owner
from jupyterhub_gpuspawner.store import Ledger
from tests.testbed.engine import Engine
from tests.testbed.images import ensure_base
from tests.unit.test_doctor_facts import pair

Said = pytest.CaptureFixture[str]
Look = Callable[..., dict[str, dict[str, Any]]]

#: a site with much that is wrong, as a beginner or an old configuration has it
BAD = """\
from jupyterhub_gpuspawner.hub import setup
c = get_config()
c.JupyterHub.db_url = "sqlite:///{folder}/hub.sqlite"
c.JupyterHub.cookie_secret_file = "{folder}/cookie_secret"
c.JupyterHub.bind_url = "https://0.0.0.0:8000"
c.JupyterHub.ssl_cert = "{folder}/old.crt"
c.JupyterHub.ssl_key = "{folder}/other.key"
c.JupyterHub.hub_ip = "{gateway}"
c.JupyterHub.hub_port = {port}
c.JupyterHub.cleanup_servers = True
c.JupyterHub.concurrent_spawn_limit = 10
c.JupyterHub.authenticator_class = "dummy"
c.JupyterHub.spawner_class = "gpu-docker"
c.Spawner.consecutive_failure_limit = 5
c.Spawner.http_timeout = 10
c.GPUDockerSpawner.image = "{image}"
c.GPUDockerSpawner.allowed_images = ["lab/gone", "{image}"]
c.GPUDockerSpawner.pull_policy = "never"
c.GPUDockerSpawner.home_driver = "rclone"
c.GPUDockerSpawner.volumes = {{"/srv/gone": "/data"}}
c.GPUDockerSpawner.environment = {{"https_proxy": "http://proxy.example:3128"}}
c.GPUDockerSpawner.network_pool = ["10.213.7.0/28"]
c.GPUScheduler.state_dir = "{folder}/gpus"
setup(c)
"""
FOUND = {
    "hub.certificate", "hub.cleanup", "hub.spawn-limit", "hub.login", "hub.failure-limit",
    "hub.time-limits", "hub.private-files", "hub.reach", "image", "image.there", "image.tag",
    "volume.driver", "volume.folder", "proxy.servers", "proxy.hub", "network.pool",
    "database.hub", "engine.owner",
}  # fmt: skip


@pytest.fixture
def look(capsys: Said, engine: Engine) -> Look:
    """Run the command; what it finds, by check (one of each)."""

    def look(*words: str, base_url: str = "") -> dict[str, dict[str, Any]]:
        code = main(["doctor", "--engine", base_url or engine.base_url, "--json", *words])
        said = json.loads(capsys.readouterr().out)
        assert said["exit_code"] == code
        return {one["check"]: one for one in said["findings"]}

    return look


@pytest.fixture
def barred() -> Iterator[int]:
    """A port that is open on this machine, and where no packet of a container arrives."""
    import subprocess

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    rule = ["-i", "gtb+", "-p", "tcp", "--dport", str(port), "-j", "REJECT"]
    subprocess.run(["iptables", "-w", "-I", "INPUT", *rule], check=True)
    yield port
    subprocess.run(["iptables", "-w", "-D", "INPUT", *rule], check=True)


@pytest.fixture
def site(
    tmp_path: Path,
    docker_client: docker.DockerClient,
    monkeypatch: pytest.MonkeyPatch,
    engine: Engine,
) -> Iterator[Path]:
    """The folder of the bad site: what its configuration names is in it."""
    (tmp_path / "cookie_secret").write_text("0" * 64)
    (tmp_path / "cookie_secret").chmod(0o644)
    with sqlite3.connect(tmp_path / "hub.sqlite") as database:
        database.execute("create table alembic_version (version_num text)")
        database.execute("insert into alembic_version values ('99a28a4418e1')")
    database.close()
    pair(tmp_path, "old", -3)
    pair(tmp_path, "other", 30)
    (tmp_path / "gpus").mkdir(mode=0o700)
    Ledger.open(f"sqlite:///{tmp_path}/gpus/ledger.sqlite").close()
    monkeypatch.setattr(owner, "OWNER_VOLUME", f"gpus-owner-{uuid.uuid4().hex[:8]}")
    owner.claim_engine(docker_client, uuid.uuid4().hex)
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    ipam = docker.types.IPAMConfig(pool_configs=[docker.types.IPAMPool(subnet="10.213.7.0/28")])
    network = docker_client.networks.create("taken", ipam=ipam)
    yield tmp_path
    network.remove()
    docker_client.api.remove_volume(owner.OWNER_VOLUME)


def test_what_is_wrong_with_a_site_is_found_at_once(
    site: Path, engine: Engine, docker_client: docker.DockerClient, look: Look, barred: int
) -> None:
    config = site / "jupyterhub_config.py"
    image = ensure_base(docker_client)
    values = {"folder": site, "gateway": engine.gateway, "image": image, "port": barred}
    config.write_text(BAD.format(**values))
    found = look("--hub-config", str(config))
    assert set(found) >= FOUND
    assert (
        found["volume.driver"]["what"]
        == "homes want the volume driver rclone, the engine has local"
    )
    assert "Connection refused" in found["hub.reach"]["what"]
    assert "lab/gone" in found["image.there"]["what"]
    assert all(one["fix"] for one in found.values())


def test_a_hub_that_containers_reach_is_not_complained_about(
    engine: Engine, docker_client: docker.DockerClient, stub_image: str
) -> None:
    with socket.socket() as hub:
        hub.bind((engine.gateway, 0))
        hub.listen()
        port = hub.getsockname()[1]
        assert reach(docker_client, stub_image, engine.gateway, port) == ""
    # and where the Hub does not run something listens in its place
    assert reach(docker_client, stub_image, engine.gateway, port) == ""
    assert docker_client.api.containers(all=True, filters={"label": image_facts.LABEL}) == []


@pytest.fixture
def bad_engine(engine: Engine) -> Iterator[Engine]:
    """An engine of its own with a daemon.json that is wrong in many ways."""
    made = Engine(
        f"{engine.name}-doctor",
        node="doctor",
        settings={
            "features": {"cdi": False},
            "runtimes": {"nvidia": {"path": "runc"}},
            "default-runtime": "nvidia",
            "log-driver": "none",
            "seccomp-profile": "unconfined",
            "storage-driver": "vfs",
            "default-address-pools": [{"base": "10.79.0.0/22", "size": 24}],
            "proxies": {"https-proxy": "http://proxy.example:3128"},
        },
    )
    made.start()
    yield made
    with suppress(docker.errors.DockerException):
        made.wipe()
    made.stop()


def test_what_is_wrong_with_an_engine_is_found(
    bad_engine: Engine, look: Look, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    client = bad_engine.client()
    made = []
    try:
        # until Docker itself says that its pools are exhausted
        with pytest.raises(docker.errors.APIError, match="address pool"):
            for number in range(8):
                made.append(client.networks.create(f"net{number}"))
        found = look(base_url=bad_engine.base_url)
    finally:
        for network in made:
            network.remove()
        client.close()
    assert set(found) >= {
        "engine.default-runtime",
        "engine.log-driver",
        "engine.safety",
        "engine.storage-driver",
        "engine.proxy",
        "engine.live-restore",
        "cdi.off",
        "network.default-pools",
        "unknown.config",
    }
    assert "there is no jupyterhub_config.py here" in found["unknown.config"]["what"]
