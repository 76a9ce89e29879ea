"""The example proxy before Docker's socket: a Hub works behind it, and nothing else gets through.

It has a Hub of its own on the machine's engine, and runs before the tests that share one: two
Hubs would take each other's containers for their own leftovers.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import docker
import docker.errors
import pytest

from deploy.quickstart.trial import TrialHub, wait_for
from jupyterhub_gpuspawner.engine import labels
from tests.hub.conftest import container_of, containers_of, make_hub, server_of, start
from tests.hubs import run_hub
from tests.isolation.surroundings import ROOT

CONFIG = ROOT / "deploy" / "socket-proxy" / "haproxy.cfg"

NETWORKS = """
c.GPUScheduler.reconcile_interval = 1
c.GPUScheduler.network_grace = 1
"""


@pytest.fixture(scope="module")
def door(alone: Any, machine: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The proxy's socket, as ``DOCKER_HOST`` has it."""
    program = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        pytest.skip("haproxy is not installed")
    socket = tmp_path_factory.mktemp("door") / "docker.sock"
    environment = {"GPUS_ENGINE": str(alone.socket), "GPUS_SOCKET": str(socket)}
    with subprocess.Popen([program, "-db", "-f", str(CONFIG)], env=environment) as process:
        try:
            wait_for("the proxy", 60, socket.exists)
            yield f"unix://{socket}"
        finally:
            process.kill()


@pytest.fixture(scope="module")
def through(door: str) -> Iterator[docker.APIClient]:
    """A client of somebody who has nothing but the proxy's socket."""
    client = docker.APIClient(base_url=door, version="auto")
    yield client
    client.close()


@pytest.fixture(scope="module")
def hub(alone: Any, machine: Any, stub_image: str, door: str) -> Iterator[TrialHub]:
    """A Hub whose only way to Docker is the proxy."""
    behind = SimpleNamespace(
        base_url=door,
        gateway=alone.gateway,
        node=alone.node,
        devices=alone.devices,
        folder=alone.folder,
    )
    with run_hub(make_hub(behind, stub_image, after=NETWORKS), machine) as hub:
        yield hub


def test_servers_start_stop_and_die_behind_the_proxy(hub: TrialHub, machine: Any) -> None:
    alice = hub.person("alice")
    start(alice, "gpu")
    start(alice, "gpu", "train")
    assert alice.visit("api").status_code == 200
    assert len(hub.busy()) == 2
    container_of(machine, alice, "train").kill()
    # the stream of events comes through: it is noticed long before the Hub's next poll
    wait_for("the end", 60, lambda: server_of(alice, "train") is None)
    alice.stop()
    wait_for("free GPUs", 60, lambda: not hub.busy())
    wait_for("no container", 60, lambda: not containers_of(machine, alice))
    chosen = {"label": f"{labels.KIND}=network"}
    wait_for("no network", 60, lambda: not machine.networks.list(filters=chosen))


def answer(call: Any) -> int:
    """The status that a call ends with; 0 = it was done."""
    try:
        call()
    except docker.errors.APIError as error:
        return int(error.status_code or -1)
    return 0


CALLS: dict[str, Any] = {
    "exec": lambda c, one: c.exec_create(one, ["id"]),
    "attach": lambda c, one: c.attach(one),
    "copy into": lambda c, one: c.put_archive(one, "/tmp", b""),
    "copy out of": lambda c, one: c.get_archive(one, "/etc/passwd"),
    "commit": lambda c, one: c.commit(one),
    "rename": lambda c, one: c.rename(one, "other"),
    "update": lambda c, one: c.update_container(one, mem_limit=2**30),
    "kill": lambda c, one: c.kill(one, "HUP"),
    "top": lambda c, one: c.top(one),
    "prune": lambda c, one: c.prune_containers(),
    "prune volumes": lambda c, one: c.prune_volumes(),
    "remove a volume": lambda c, one: c.remove_volume("nothing"),
    "remove an image": lambda c, one: c.remove_image("nothing"),
    "import": lambda c, one: c.import_image_from_data(b"", repository="x"),
    "swarm": lambda c, one: c.init_swarm("127.0.0.1"),
    "leave": lambda c, one: c.leave_swarm(),
    "services": lambda c, one: c.services(),
    "secrets": lambda c, one: c.secrets(),
    "plugins": lambda c, one: c.plugins(),
}


@pytest.fixture(scope="module")
def bystander(machine: Any, stub_image: str) -> Iterator[str]:
    """Id of a container that runs, of nobody's."""
    container = machine.containers.run(stub_image, ["sleep", "600"], detach=True)
    yield container.id
    container.remove(force=True)


@pytest.mark.parametrize("name", CALLS)
def test_calls_that_a_hub_does_not_make_are_refused(
    name: str, through: docker.APIClient, bystander: str
) -> None:
    assert answer(lambda: CALLS[name](through, bystander)) == 403
    # the control: this very container is there, and can be looked at
    assert through.inspect_container(bystander)["State"]["Running"]


def raw(client: docker.APIClient, path: str, body: str, **headers: str) -> int:
    """Post a body as it is; the answer's status."""
    url = f"{client.base_url}/v1.41{path}"
    sent = {"Content-Type": "application/json", **headers}
    with client.post(url, data=body.encode(), headers=sent) as done:
        return int(done.status_code)


def created(image: str, **host: Any) -> str:
    return json.dumps({"Image": image, "Cmd": ["sleep", "1"], "HostConfig": host})


ROOTS_DOORS: dict[str, dict[str, Any]] = {
    "privileged": {"Privileged": True},
    "the machine's files": {"Binds": ["/:/host"]},
    "a folder": {"Binds": ["home:/home", "/etc:/host:ro"]},
    "the socket": {"Binds": ["/var/run/docker.sock:/var/run/docker.sock"]},
    "a mount": {"Mounts": [{"Type": "bind", "Source": "/", "Target": "/host"}]},
    "a volume with options": {
        "Mounts": [
            {
                "Type": "volume",
                "Target": "/host",
                "VolumeOptions": {
                    "DriverConfig": {
                        "Name": "local",
                        "Options": {"type": "none", "o": "bind", "device": "/"},
                    }
                },
            }
        ]
    },
    "others' volumes": {"VolumesFrom": ["hub"]},
    "the machine's network": {"NetworkMode": "host"},
    "another's network": {"NetworkMode": "container:hub"},
    "the machine's processes": {"PidMode": "host"},
    "the machine's memory": {"IpcMode": "host"},
    "its users": {"UsernsMode": "host"},
    "a capability": {"CapAdd": ["SYS_ADMIN"]},
    "a device": {"Devices": [{"PathOnHost": "/dev/sda", "PathInContainer": "/dev/sda"}]},
    "a device rule": {"DeviceCgroupRules": ["a *:* rwm"]},
    "no seccomp": {"SecurityOpt": ["seccomp=unconfined"]},
}


@pytest.mark.parametrize("name", ROOTS_DOORS)
def test_a_container_that_would_be_root_on_the_machine_is_refused(
    name: str, through: docker.APIClient, stub_image: str
) -> None:
    body = created(stub_image, **ROOTS_DOORS[name])
    assert raw(through, "/containers/create", body) == 403


@pytest.mark.parametrize(
    "disguise",
    [
        '{"Image": "IMAGE", "HostConfig": {"privileged": true}}',
        '{"Image": "IMAGE", "HostConfig": {"Privileged"\n:\t true}}',
        '{"Image": "IMAGE", "hostconfig": {"PRIVILEGED": true, "Privileged": false}}',
        '{"Image": "IMAGE", "HostConfig": {"Privi\\u006ceged": true}}',
        '{"Image": "IMAGE", "HostConfig": {"Binds": ["\\/:\\/host"]}}',
        '{"Image": "IMAGE", "HostConfig": {"Bind\u017f": ["/:/host"]}}',
        '{"Image": "IMAGE", "HostConfig": {"Networ\u212aMode": "host"}}',
        '{"Image": "IMAGE", "Env": ["' + "x" * 200_000 + '"], "HostConfig": {"Privileged": true}}',
    ],
)
def test_it_is_refused_in_other_spellings_too(
    disguise: str, through: docker.APIClient, stub_image: str
) -> None:
    assert raw(through, "/containers/create", disguise.replace("IMAGE", stub_image)) == 403


def test_settings_at_a_start_pulls_from_a_url_and_volumes_of_folders_are_refused(
    through: docker.APIClient,
) -> None:
    assert raw(through, "/containers/x/start", '{"Privileged": true}') == 403
    old = f"{through.base_url}/v1.23/containers/x/start"
    with through.post(old) as done:
        assert done.status_code == 403
    for query in ("fromSrc=http://127.0.0.1/x", "from%53rc=http://127.0.0.1/x"):
        assert raw(through, f"/images/create?{query}", "") == 403
    options = '{"Name": "v", "DriverOpts": {"type": "none", "o": "bind", "device": "/"}}'
    assert raw(through, "/volumes/create", options) == 403
    assert raw(through, "/networks/create", '{"Name": "n", "Driver": "macvlan"}') == 403


def test_a_plain_container_is_let_through_which_shows_that_bodies_are_read_and_not_all_refused(
    through: docker.APIClient, machine: Any, stub_image: str
) -> None:
    made = through.create_container(
        stub_image,
        ["sleep", "60"],
        host_config=through.create_host_config(
            binds=["gpus-test-data:/srv/data:ro", "/dev/null:/run/gpus/x:ro"],
            cap_drop=["ALL"],
            security_opt=["no-new-privileges:true"],
        ),
    )
    through.start(made["Id"])
    assert machine.containers.get(made["Id"]).status == "running"
    through.remove_container(made["Id"], force=True)
