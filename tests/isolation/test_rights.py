"""What a server may do inside its container: no right, device or mount beyond its profile.

Looked at from inside and in what the engine was told. The control is a container of the same
image without our settings, in which the same look finds the right.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from deploy.quickstart.trial import TrialHub
from tests.hub.conftest import facts

#: prints what the kernel lets this process do; "su" is owned by root and setuid
RIGHTS = """
import json, subprocess, time
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines())
su = subprocess.Popen(["su"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
while True:
    lines = open(f"/proc/{su.pid}/status").read().splitlines()
    found = dict(line.split(":\\t", 1) for line in lines)
    if found["Name"] == "su":
        break
    time.sleep(0.01)
su.kill()
print(json.dumps({
    "uid": status["Uid"].split()[1],
    "bounding": int(status["CapBnd"], 16),
    "effective": int(status["CapEff"], 16),
    "no_new_privs": status["NoNewPrivs"],
    "su": found["Uid"].split()[1],
}))
"""

#: prints device nodes, and mounts with their options
SURROUNDINGS = """
import json, os, stat
nodes = []
for folder, _, names in os.walk("/dev"):
    for name in names:
        path = os.path.join(folder, name)
        mode = os.lstat(path).st_mode
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            nodes.append(path)
mounts = {}
for line in open("/proc/self/mountinfo"):
    words = line.split()
    mounts[words[4]] = words[5].split(",")[0]
print(json.dumps({"nodes": sorted(nodes), "mounts": mounts}))
"""


def inside(container: Any, source: str, user: str = "") -> dict[str, Any]:
    code, output = container.exec_run(["python3", "-c", source], user=user)
    assert code == 0, output
    result: dict[str, Any] = json.loads(output)
    return result


@pytest.fixture(scope="module")
def bare(machine: Any, stub_image: str) -> Iterator[Any]:
    """The same image, as anybody would start it."""
    container = machine.containers.run(stub_image, ["sleep", "600"], detach=True)
    yield container
    container.remove(force=True)


@pytest.fixture(scope="module")
def greedy(machine: Any, stub_image: str) -> str:
    """An image that asks for all GPUs, as CUDA's do."""
    lines = f"FROM {stub_image}\nENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=all\n"
    machine.images.build(fileobj=io.BytesIO(lines.encode()), tag="gpus-stub-greedy:latest", rm=True)
    return "gpus-stub-greedy:latest"


def test_a_server_has_no_capability_and_gains_none_by_a_setuid_program(
    server: Callable[..., Any], bare: Any
) -> None:
    container, _ = server("alice")
    assert inside(container, RIGHTS) == {
        "uid": "1000",
        "bounding": 0,
        "effective": 0,
        "no_new_privs": "1",
        "su": "1000",
    }
    control = inside(bare, RIGHTS)
    assert control["bounding"] != 0
    assert (control["no_new_privs"], control["su"]) == ("0", "0")


def test_what_the_engine_was_told_gives_nothing_beyond_the_profile(
    server: Callable[..., Any],
) -> None:
    container, _ = server("alice")
    host = container.attrs["HostConfig"]
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert not host["Privileged"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert not host["Devices"]
    assert not host["DeviceRequests"]
    assert not host["PortBindings"]
    assert host["PidMode"] == host["UsernsMode"] == host["UTSMode"] == ""
    assert host["IpcMode"] == "private"
    assert host["NetworkMode"].startswith("user-net-alice-")
    assert host["PublishAllPorts"] is False
    targets = sorted(bind.split(":")[1] for bind in host["Binds"])
    assert targets == ["/home/jovyan", "/srv/data"]


def test_a_server_sees_its_home_its_data_and_no_other_mount_or_device(
    server: Callable[..., Any], bare: Any
) -> None:
    container, _ = server("alice")
    seen, usual = inside(container, SURROUNDINGS), inside(bare, SURROUNDINGS)
    assert seen["nodes"] == usual["nodes"]
    assert set(seen["mounts"]) - set(usual["mounts"]) == {"/home/jovyan", "/srv/data"}


def test_a_gpu_server_sees_its_gpus_nodes_alone(server: Callable[..., Any], bare: Any) -> None:
    container, _ = server("gina", profile="gpu")
    seen, usual = inside(container, SURROUNDINGS), inside(bare, SURROUNDINGS)
    assert len([node for node in seen["nodes"] if node not in usual["nodes"]]) == 1
    markers = [path for path in seen["mounts"] if path.startswith("/run/gpus/")]
    assert len(markers) == 1


def test_an_image_that_asks_for_all_gpus_gets_those_of_its_lease(
    site: TrialHub, server: Callable[..., Any], machine: Any, greedy: str
) -> None:
    container, person = server("greta", profile="greedy")
    assert container.attrs["Config"]["Image"] == greedy
    seen = facts(site, person, machine)
    assert len(seen["gpus"]) == 1
    assert seen["env"]["NVIDIA_VISIBLE_DEVICES"] == "void"
    # the control: a container that is given all of them shows all of them
    everything = machine.containers.run(
        greedy,
        ["ls", "/run/gpus"],
        remove=True,
        device_requests=[{"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=all"]}],
    )
    assert len(everything.split()) > 1


@pytest.mark.parametrize(
    "more",
    [
        {"environment": {"NVIDIA_VISIBLE_DEVICES": "all"}},
        {"NVIDIA_VISIBLE_DEVICES": "all"},
        {"env": "NVIDIA_VISIBLE_DEVICES=all"},
        {"gpus": 2},
        {"extra_host_config": {"privileged": True}},
        {"devices": ["/dev/kmsg"]},
        {"volumes": {"/": "/host"}},
    ],
)
def test_a_user_who_asks_for_more_by_the_api_gets_no_more(
    site: TrialHub, machine: Any, more: dict[str, Any]
) -> None:
    dora = site.person("dora")
    answer = dora.api("POST", f"/users/{dora.name}/server", json={"profile": "gpu", **more})
    try:
        if answer.status_code >= 400:
            assert answer.status_code < 500, answer.text
            return
        dora.wait()
        seen = facts(site, dora, machine)
        assert len(seen["gpus"]) == 1
        assert seen["env"]["NVIDIA_VISIBLE_DEVICES"] == "void"
    finally:
        dora.stop()


def test_shared_data_is_read_only_and_stays_so(
    server: Callable[..., Any], machine: Any, stub_image: str
) -> None:
    machine.containers.run(
        stub_image,
        ["sh", "-c", "echo fact > /data/fact"],
        user="root",
        volumes={"gpus-test-data": {"bind": "/data", "mode": "rw"}},
        remove=True,
    )
    container, _ = server("alice")
    code, output = container.exec_run(["cat", "/srv/data/fact"])
    assert (code, output) == (0, b"fact\n")
    for user in ("", "root"):
        for command in (
            "echo lie > /srv/data/fact",
            "rm /srv/data/fact",
            "touch /srv/data/new",
            "mount -o remount,rw /srv/data && echo lie > /srv/data/fact",
        ):
            code, output = container.exec_run(["sh", "-c", command], user=user)
            assert code != 0, (user, command)
    assert inside(container, SURROUNDINGS)["mounts"]["/srv/data"] == "ro"
    # the control: the home can be written
    code, output = container.exec_run(["sh", "-c", "echo mine > /home/jovyan/f"])
    assert code == 0, output
