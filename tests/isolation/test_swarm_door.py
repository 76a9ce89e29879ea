"""The door to the socket of a Swarm's manager: what gets through it, and what does not.

Nobody is behind it: what is let through is answered with 503, all else with 403.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.quickstart.trial import wait_for
from jupyterhub_gpuspawner.engine import service_spec
from jupyterhub_gpuspawner.engine.limits import ResourceLimits
from jupyterhub_gpuspawner.engine.service_spec import Place
from jupyterhub_gpuspawner.scheduler.models import Device
from tests.isolation.surroundings import ROOT

CONFIG = ROOT / "deploy" / "socket-proxy" / "swarm.cfg"
THROUGH, SHUT = 503, 403
NETWORK_ID = "q5y8v9z3k1m2n4p6r7s0t1u2w"

Call = Callable[..., int]


@pytest.fixture(scope="module")
def call(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Call]:
    """Makes a call through the door: method, path, body; the status of the answer."""
    program = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        pytest.skip("haproxy is not installed")
    folder = tmp_path_factory.mktemp("door")
    path = folder / "docker.sock"
    environment = {
        "GPUS_ENGINE": str(folder / "nobody.sock"),
        "GPUS_SOCKET": str(path),
        "GPUS_NETWORK": "gpus",
        "GPUS_NETWORK_ID": NETWORK_ID,
    }
    with subprocess.Popen([program, "-db", "-f", str(CONFIG)], env=environment) as process:
        try:
            wait_for("the door", 20, path.exists)
            yield lambda *words: asked(path, *words)
        finally:
            process.kill()


def asked(path: Path, method: str, target: str, body: Any = None) -> int:
    text = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    head = f"{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(text)}\r\n"
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(str(path))
        connection.sendall(f"{head}Connection: close\r\n\r\n".encode() + text)
        return int(connection.recv(4096).split()[1])


def service(network: str = "gpus", **container: Any) -> dict[str, Any]:
    """What our spawner asks for, with fields of the container as a test wants them."""
    devices = [Device(id="GPU-1", node="node2"), Device(id="SIMULATED-2", node="node2")]
    how = {"type": "nfs", "o": "addr=10.0.0.5,rw,nfsvers=4", "device": ":/homes/ann"}
    mounts = [
        service_spec.shm(ResourceLimits()),
        *service_spec.device_mounts(devices),
        service_spec.volume("home", "/home/jovyan", labels={"a": "b"}, options=how),
        service_spec.bind_or_volume("datasets", "/data", "ro"),
    ]
    spec = service_spec.container_spec(
        "lab/torch:1", command=["sh", "-c", "x"], env={"A": 'b"c'}, mounts=mounts, grace=10
    )
    spec.update(service_spec.isolation())
    spec["Secrets"] = [{"SecretID": "x", "SecretName": "y", "File": {"Name": "key", "Mode": 292}}]
    spec.update(container)
    task = service_spec.task_template(
        spec,
        place=Place(node_id="n2", kinds={"GPU-1": "GPU0", "SIMULATED-2": "GPU1"}),
        devices=devices,
        limits=ResourceLimits(mem_limit=2**30, cpu_limit=1.0, pids_limit=512),
        networks=[network],
    )
    return {
        "Name": "gpus-ann",
        "Labels": {"user": "ann"},
        "TaskTemplate": task,
        "Mode": service_spec.NO_TASK,
        "EndpointSpec": {"Mode": "dnsrr"},
    }


def mount(**more: Any) -> dict[str, Any]:
    return service(Mounts=[{"Type": "bind", "Source": "/dev/null", "Target": "/x", **more}])


def test_what_hub_and_scheduler_ask_for_gets_through(call: Call) -> None:
    for path in ("_ping", "version", "info", "events?filters=%7B%7D", "nodes", "nodes/abc"):
        assert call("GET", f"/{path}" if path == "_ping" else f"/v1.45/{path}") == THROUGH, path
    for path in (
        *("services?filters=%7B%7D", "services/abc", "services/abc/logs?tail=20", "tasks"),
        *("configs/gpus-owner", "configs", "secrets", "networks", "networks/gpus"),
        "distribution/registry.example.org:5000/lab/torch:1/json",
    ):
        assert call("GET", f"/v1.45/{path}") == THROUGH, path
    assert call("POST", "/v1.45/services/create", service()) == THROUGH
    # as Swarm gives it back, for a change
    change = service(NETWORK_ID)
    assert call("POST", "/v1.45/services/abc/update?version=7", change) == THROUGH
    assert call("DELETE", "/v1.45/services/abc") == THROUGH
    assert call("POST", "/v1.45/configs/create", {"Name": "gpus-owner", "Data": "eA=="}) == THROUGH


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1.45/containers/create"),
        ("GET", "/v1.45/containers/json"),
        ("POST", "/v1.45/containers/abc/exec"),
        ("POST", "/v1.45/secrets/create"),
        ("DELETE", "/v1.45/secrets/abc"),
        ("DELETE", "/v1.45/configs/abc"),
        ("POST", "/v1.45/nodes/abc/update"),
        ("DELETE", "/v1.45/nodes/abc"),
        ("GET", "/v1.45/swarm"),
        ("GET", "/v1.45/swarm/unlockkey"),
        ("POST", "/v1.45/swarm/leave"),
        ("POST", "/v1.45/networks/create"),
        ("POST", "/v1.45/plugins/pull"),
        ("POST", "/v1.45/build"),
        ("POST", "/v1.45/services/abc/../../containers/create"),
        ("POST", "/v1.45/services/%2e%2e/containers/create"),
        ("POST", "/v1.23/services/create"),
        ("PUT", "/v1.45/services/create"),
    ],
)
def test_all_else_is_shut(call: Call, method: str, path: str) -> None:
    assert call(method, path, {}) == SHUT


@pytest.mark.parametrize(
    "body",
    [
        mount(Source="/"),
        mount(Source="/var/run/docker.sock"),
        mount(Source="/dev/null/../../etc"),
        mount(Type="npipe"),
        mount(Type="cluster", Source="x"),
        service(Mounts=[service_spec.volume("v", "/x", options={"type": "none", "device": "/"})]),
        service(
            Mounts=[
                service_spec.volume(
                    "v", "/x", options={"type": "overlay", "device": "x", "o": "lowerdir=/"}
                )
            ]
        ),
        service(CapabilityAdd=["SYS_ADMIN"]),
        service(Privileges={"Seccomp": {"Mode": "unconfined"}}),
        service(Privileges={"AppArmor": {"Mode": "disabled"}}),
        service(Privileges={"SELinuxContext": {"Disable": True}}),
        service(Privileges={"CredentialSpec": {"Config": "x"}}),
        service("host"),
        service("site_data"),
        service("otherid000000000000000000"),
        {**service(), "TaskTemplate": {"Runtime": "plugin", "PluginSpec": {"Remote": "x"}}},
        json.dumps(service("host")).replace('"host"', '"\\u0068ost"').encode(),
        json.dumps(service("host")).replace('"Target": "host"', '"TARGET" :\n"host"').encode(),
        json.dumps({**service(), "Labels": {"x": "y" * 100_001}}).encode(),
    ],
)
def test_no_service_opens_a_door_to_root(call: Call, body: Any) -> None:
    for path in ("services/create", "services/abc/update?version=7"):
        assert call("POST", f"/v1.45/{path}", body) == SHUT
