"""Planted misconfigurations, in facts as real engines and Hubs give them: each is found."""

from __future__ import annotations

import dataclasses
import stat
from dataclasses import asdict
from ipaddress import IPv4Network
from types import SimpleNamespace
from typing import Any

import pytest

from jupyterhub_gpuspawner.discovery.toolkit import Toolkit, judge
from jupyterhub_gpuspawner.doctor.examine import findings, node_rows
from jupyterhub_gpuspawner.doctor.facts import CDISpec, Certificate, Database, Disk, Facts
from jupyterhub_gpuspawner.doctor.finding import (
    FINE,
    FOUND,
    NOT_ALL_SEEN,
    Level,
    Unknown,
    exit_code,
)
from jupyterhub_gpuspawner.doctor.gather_engine import judge_reach
from jupyterhub_gpuspawner.doctor.registry import CHECKS
from jupyterhub_gpuspawner.engine.subnets import Route
from tests.unit.test_image_check import facts as image

# 130 cases, and the import of the spawners
pytestmark = pytest.mark.slow

GIB = 1024**3
UUID = "GPU-5f3a2c1e-0000-4000-8000-000000000001"
CDI = "/etc/cdi/nvidia.yaml"

#: what a good machine answers: Docker 28.3 with CDI, two GPUs of one kind
INFO: dict[str, Any] = {
    "Name": "node-1",
    "ServerVersion": "28.3.2",
    "DefaultRuntime": "runc",
    "Runtimes": {"runc": {"path": "runc"}, "io.containerd.runc.v2": {"path": "runc"}},
    "CgroupDriver": "systemd",
    "CgroupVersion": "2",
    "MemoryLimit": True,
    "SwapLimit": True,
    "PidsLimit": True,
    "CpuCfsQuota": True,
    "LiveRestoreEnabled": True,
    "SecurityOptions": ["name=apparmor", "name=seccomp,profile=builtin", "name=cgroupns"],
    "Driver": "overlay2",
    "LoggingDriver": "local",
    "Plugins": {"Volume": ["local"]},
    "Swarm": {"LocalNodeState": "inactive", "ControlAvailable": False},
    "IPv4Forwarding": True,
    "DockerRootDir": "/var/lib/docker",
    "OperatingSystem": "Debian GNU/Linux 13 (trixie)",
    "CDISpecDirs": ["/etc/cdi", "/var/run/cdi"],
    "Architecture": "x86_64",
}
BRIDGE = {
    "Name": "bridge",
    "Driver": "bridge",
    "IPAM": {"Config": [{"Subnet": "172.17.0.0/16"}]},
    "Options": {},
}
CONFIG: dict[str, dict[str, Any]] = {
    "JupyterHub": {
        "hub_ip": "172.17.0.1",
        "hub_port": 8002,
        "bind_url": "http://127.0.0.1:8000",
        "cleanup_servers": False,
        "concurrent_spawn_limit": 0,
        "services": [{"name": "gpus"}],
        "authenticator_class": "shared-password",
    }
}
SPAWNER: dict[str, Any] = {
    "image": "lab/torch:1",
    "pull_policy": "ifnotpresent",
    "user_networks": True,
    "network_name": "bridge",
    "network_pool": ["10.213.0.0/16"],
    "network_size": 28,
    "environment": {},
    "home_driver": "local",
    "home_options": {},
    "start_timeout": 120,
    "http_timeout": 60,
}
DISK = Disk(total=100 * GIB, free=60 * GIB, inodes=10**6, free_inodes=9 * 10**5, kind="ext4")
GPU = {"uuid": UUID, "mig_enabled": False, "mig": [], "mig_pending": False}
LEDGER = Database(name="/srv/gpus/ledger.sqlite", ledger="a" * 32, revision="0002", wanted="0002")
HUB_DB = Database(name="/srv/jupyterhub.sqlite", revision="4621fec11365", wanted="4621fec11365")
GOOD: dict[str, Any] = {
    "info": INFO,
    "version": {"ApiVersion": "1.51"},
    "networks": [BRIDGE, {"Name": "host", "Driver": "host", "IPAM": {"Config": None}}],
    "owner": "a" * 32,
    "engine_clock": 0.1,
    "config": CONFIG,
    "spawner": SimpleNamespace(**SPAWNER),
    "options": SimpleNamespace(discovery="auto", simulate=0),
    "docker_proxies": {},
    "versions": {"jupyterhub": "6.1.1", "dockerspawner": "14.0.0", "docker": "7.2.0"},
    "proxy_version": "5.1.0",
    "addresses": frozenset({"127.0.0.1", "172.17.0.1", "192.0.2.7"}),
    "routes": (Route(subnet=IPv4Network("192.0.2.0/24"), interface="eth0"),),
    "mtus": {"lo": 65536, "eth0": 1500, "docker0": 1500},
    "reach": "",
    "nvml": {"driver": "580.95", "gpus": [GPU]},
    "hardware": 1,
    "cdi_folders": {"/etc/cdi": True, "/var/run/cdi": False},
    "cdi_specs": {CDI: CDISpec(names=(f"nvidia.com/gpu={UUID}", "nvidia.com/gpu=all"))},
    "toolkit": "1.18.2",
    "toolkits": None,
    "toolkit_config": "accept-nvidia-visible-devices-envvar-when-unprivileged = false\n",
    "disks": {"/srv/gpus/ledger.sqlite": DISK, "/var/lib/docker": DISK},
    "clock_set": True,
    "hub_database": HUB_DB,
    "ledger": LEDGER,
    "modes": {"/srv/cookie_secret": stat.S_IFREG | 0o600, "/srv/gpus": stat.S_IFDIR | 0o700},
    "certificate": None,
    "images": {"lab/torch:1": image()},
    "bind_sources": {"/srv/data": True},
}


def site(**planted: Any) -> Facts:
    """A good site, but for what is planted."""
    return Facts(**{**GOOD, **planted})


def info(**changed: Any) -> dict[str, Any]:
    return {"info": {**INFO, **changed}}


def hub(**changed: Any) -> dict[str, Any]:
    return {"config": {"JupyterHub": {**CONFIG["JupyterHub"], **changed}}}


def spawner(**changed: Any) -> dict[str, Any]:
    return {"spawner": SimpleNamespace(**{**SPAWNER, **changed})}


def ledger(**changed: Any) -> dict[str, Any]:
    return {"ledger": dataclasses.replace(LEDGER, **changed)}


def networks(*subnets: str, name: str = "net") -> dict[str, Any]:
    made = [
        {"Name": f"{name}{n}", "Driver": "bridge", "IPAM": {"Config": [{"Subnet": subnet}]}}
        for n, subnet in enumerate(subnets)
    ]
    return {"networks": [BRIDGE, *made]}


def gpu(**changed: Any) -> dict[str, Any]:
    return {"nvml": {"gpus": [{**GPU, **changed}]}}


NVIDIA = {"runc": {}, "nvidia": {}}
SEEN: list[tuple[str, dict[str, Any], str]] = [
    ("engine.version", info(ServerVersion="19.03.1"), "install Docker 25"),
    (
        "engine.version",
        info(ServerVersion="24.0.7", CDISpecDirs=None, Runtimes=NVIDIA, CgroupDriver="cgroupfs")
        | {"systemd": False},
        "install Docker 25",
    ),
    ("engine.default-runtime", info(DefaultRuntime="nvidia", Runtimes=NVIDIA), "take out"),
    ("engine.default-runtime", info(DefaultRuntime="sysbox-runc"), '"default-runtime": "runc"'),
    ("engine.cgroup-driver", info(CgroupDriver="cgroupfs"), "native.cgroupdriver=systemd"),
    ("engine.cgroup-version", info(CgroupVersion="1"), "unified_cgroup_hierarchy"),
    ("engine.limits", info(SwapLimit=False), "swapaccount=1"),
    ("engine.limits", info(MemoryLimit=False, PidsLimit=False), "cgroup_enable=memory"),
    ("engine.live-restore", info(LiveRestoreEnabled=False), '"live-restore": true'),
    ("engine.storage-driver", info(Driver="vfs"), "overlay2"),
    ("engine.log-driver", info(LoggingDriver="none"), '"log-driver": "local"'),
    ("engine.safety", info(SecurityOptions=["name=apparmor"]), "seccomp-profile"),
    ("engine.safety", info(SecurityOptions=["name=seccomp,profile=unconfined"]), "take out"),
    (
        "engine.rootless",
        info(SecurityOptions=["name=seccomp,profile=builtin", "name=rootless"]),
        "restrict-docker",
    ),
    (
        "engine.rootless",
        info(SecurityOptions=["name=seccomp,profile=builtin", "name=userns"]),
        "userns-remap",
    ),
    ("engine.packaging", info(OperatingSystem="Docker Desktop"), "Docker Engine"),
    ("engine.packaging", info(DockerRootDir="/var/snap/docker/common/var-lib-docker"), "packages"),
    ("engine.door", {"engine_url": "tcp://192.0.2.9:2375"}, "DOCKER_TLS_VERIFY=1"),
    ("engine.clock", {"engine_clock": -90.0}, "set-ntp"),
    ("engine.owner", {"owner": "b" * 32}, "docker volume rm gpus-owner"),
    ("engine.forwarding", info(IPv4Forwarding=False), "ip_forward=1"),
    ("engine.proxy", info(HttpsProxy="http://proxy:3128"), "NO_PROXY"),
    (
        "gpu.driver",
        {"nvml": None, "options": SimpleNamespace(discovery="auto", simulate=2)},
        "modprobe",
    ),
    (
        "gpu.driver",
        {
            "nvml": {"error": {"call": "nvmlInit", "text": "Driver/library version mismatch"}},
            "options": SimpleNamespace(discovery="auto", simulate=2),
        },
        "reboot",
    ),
    ("gpu.driver", {"hardware": 2}, "bus wants a reboot"),
    ("gpu.repair", gpu(remap_pending=True), "nvidia-smi --gpu-reset"),
    ("gpu.repair", gpu(mig_pending=True), "drain"),
    ("gpu.discovery", {"options": SimpleNamespace(discovery="simulated", simulate=4)}, "'auto'"),
    (
        "gpu.discovery",
        {"nvml": None, "hardware": 0, "options": SimpleNamespace(discovery="nvml", simulate=0)},
        "mend the driver",
    ),
    (
        "gpu.discovery",
        {"nvml": None, "hardware": 0},
        "simulate = 4",
    ),
    (
        "cdi.folder",
        {"cdi_folders": {"/etc/cdi": False}, "cdi_specs": {}, "nvml": {"gpus": []}, "hardware": 0}
        | {"options": SimpleNamespace(discovery="simulated", simulate=4)},
        "mkdir -p /etc/cdi",
    ),
    (
        "cdi.broken",
        {"cdi_specs": {**GOOD["cdi_specs"], "/etc/cdi/x.json": CDISpec(error="Expecting ','")}},
        "nvidia-ctk cdi generate",
    ),
    (
        "cdi.missing-files",
        {
            "cdi_specs": {
                CDI: CDISpec(
                    names=(f"nvidia.com/gpu={UUID}",),
                    missing=("/usr/lib/x86_64-linux-gnu/libcuda.so.570.1",),
                )
            }
        },
        "nvidia-ctk cdi generate",
    ),
    (
        "cdi.twice",
        {
            "cdi_specs": {
                CDI: GOOD["cdi_specs"][CDI],
                "/var/run/cdi/nvidia.yaml": GOOD["cdi_specs"][CDI],
            }
        },
        "rm /var/run/cdi/nvidia.yaml",
    ),
    (
        "cdi.unknown-gpu",
        {"cdi_specs": {CDI: CDISpec(names=("nvidia.com/gpu=0",))}},
        "strategy=uuid",
    ),
    ("toolkit.version", {"toolkit": "1.14.3"}, "apt-get install nvidia-container-toolkit"),
    ("toolkit.version", {"toolkit": None} | info(Runtimes=NVIDIA), "apt-get install"),
    (
        "toolkit.swarm",
        info(Swarm={"LocalNodeState": "active", "ControlAvailable": True}),
        "1.17.9",
    ),
    ("toolkit.environment", {"toolkit_config": "# all defaults\n"}, "= false"),
    (
        "swarm.toolkit",
        {"toolkits": {"node2": asdict(judge(Toolkit(version="1.18.1"), ["GPU0"]))}},
        "on node2: nvidia-ctk config --set",
    ),
    ("hub.address-here", hub(hub_ip="172.18.0.1"), "docker network inspect bridge"),
    ("hub.reach", {"reach": "Connection refused"}, "firewall"),
    ("hub.tls", hub(bind_url="http://0.0.0.0:8000"), "GPUS_TLS_CERT"),
    ("hub.tls", hub(bind_url="http://:8000"), "GPUS_BIND=127.0.0.1"),
    ("hub.certificate", {"certificate": Certificate(days=-3, fits_key=True)}, "renew"),
    ("hub.certificate", {"certificate": Certificate(days=5, fits_key=True)}, "timer"),
    ("hub.certificate", {"certificate": Certificate(days=90, fits_key=False)}, "one pair"),
    ("hub.proxy", {"proxy_version": None}, "npm install"),
    ("hub.proxy", {"proxy_version": "3.1.0"}, "npm install"),
    ("hub.version", {"versions": {"jupyterhub": "5.2.1", "dockerspawner": "14.0.0"}}, ">=5.4"),
    ("hub.version", {"versions": {"jupyterhub": "6.1.1", "dockerspawner": None}}, "pip install"),
    ("hub.setup", hub(services=[]), "setup(c)"),
    ("hub.cleanup", hub(cleanup_servers=True), "cleanup_servers = False"),
    ("hub.spawn-limit", hub(concurrent_spawn_limit=20), "concurrent_spawn_limit = 0"),
    ("hub.spawn-limit", hub(active_server_limit=10), "active_server_limit = 0"),
    (
        "hub.failure-limit",
        {"config": {**CONFIG, "Spawner": {"consecutive_failure_limit": 5}}},
        "consecutive_failure_limit = 0",
    ),
    ("hub.time-limits", spawner(http_timeout=5), "http_timeout = 120"),
    ("hub.login", hub(authenticator_class="dummy"), "log-in.md"),
    ("hub.private-files", {"modes": {"/srv/cookie_secret": stat.S_IFREG | 0o644}}, "chmod go="),
    (
        "network.pool",
        {"routes": (Route(subnet=IPv4Network("10.0.0.0/8"), interface="tun0"),)},
        "does not use",
    ),
    (
        "network.pool",
        spawner(network_pool=["10.213.0.0/28"]) | networks("10.213.0.0/28"),
        "larger c.GPUDockerSpawner.network_pool",
    ),
    (
        "network.default-pools",
        networks(
            *(f"192.168.{16 * n}.0/20" for n in range(14)),
            *(f"172.{18 + n}.0.0/16" for n in range(14)),
            "10.1.0.0/16",
            "10.2.0.0/16",
        ),
        "default-address-pools",
    ),
    ("network.mtu", {"mtus": {"lo": 65536, "eth0": 1400}}, '"mtu": 1400'),
    ("proxy.hub", {"environment": {"http_proxy": "http://p:3128"}}, "no_proxy=localhost"),
    ("proxy.servers", spawner(environment={"HTTPS_PROXY": "http://p:3128"}), "172.17.0.1"),
    (
        "proxy.docker-config",
        {"docker_proxies": {"httpProxy": "http://p:3128", "noProxy": "localhost"}},
        "noProxy",
    ),
    (
        "database.hub",
        {"hub_database": dataclasses.replace(HUB_DB, revision="99a28a4418e1")},
        "jupyterhub upgrade-db",
    ),
    ("database.hub", {"hub_database": Database(name="db", error="refused")}, "db_url"),
    ("database.ledger", ledger(error="connection refused"), "ledger_url"),
    ("database.ledger", ledger(revision="0099"), "pip install --upgrade"),
    (
        "database.one-for-two",
        {"hub_database": dataclasses.replace(HUB_DB, name=LEDGER.name)},
        "ledger_url",
    ),
    ("database.durable", ledger(settings={"fsync": "off"}), "ALTER SYSTEM SET fsync = on"),
    ("database.clock", ledger(clock=120.0), "set-ntp"),
    (
        "database.place",
        {"disks": {LEDGER.name: dataclasses.replace(DISK, kind="nfs4")}},
        "PostgreSQL",
    ),
    (
        "disk.space",
        {"disks": {"/srv": dataclasses.replace(DISK, free=GIB // 2)}},
        "docker system df",
    ),
    (
        "disk.space",
        {"disks": {"/srv": dataclasses.replace(DISK, free=4 * GIB)}},
        "docker system df",
    ),
    ("disk.files", {"disks": {"/srv": dataclasses.replace(DISK, free_inodes=10)}}, "df -i"),
    ("clock.set", {"clock_set": False}, "chrony"),
    ("volume.driver", spawner(home_driver="rclone"), "docker plugin install rclone"),
    (
        "volume.nfs",
        spawner(home_options={"type": "nfs", "o": "rw", "device": ":/h/{volume}"}),
        "addr=",
    ),
    (
        "volume.nfs",
        spawner(home_options={"type": "nfs", "o": "addr=10.0.0.5", "device": ":/homes"}),
        "{volume}",
    ),
    (
        "volume.nfs",
        spawner(home_options={"type": "nfs", "o": "addr=10.0.0.5", "device": "/h/{volume}"}),
        ":/homes",
    ),
    ("volume.folder", {"bind_sources": {"/srv/data": False}}, "mkdir -p /srv/data"),
    ("image.there", {"images": {"lab/torch:1": None}}, "docker pull lab/torch:1"),
    (
        "image.there",
        {"images": {"lab/torch:1": None}} | spawner(pull_policy="never"),
        "pull_policy",
    ),
    ("image", {"images": {"lab/torch:1": image(User="root")}}, "USER 1000"),
    ("image.tag", {"images": {"lab/torch:latest": image()}}, "lab/torch:2026-11"),
]


def test_nothing_is_said_about_a_good_site() -> None:
    found = findings(site())
    assert found == []
    assert exit_code(found) == FINE


@pytest.mark.parametrize(("check", "planted", "fix"), SEEN, ids=[one[0] for one in SEEN])
def test_a_planted_misconfiguration_is_the_one_that_is_found(
    check: str, planted: dict[str, Any], fix: str
) -> None:
    (found,) = findings(site(**planted))
    assert found.check == check
    assert fix in found.fix
    assert found.level in (Level.ERROR, Level.WARNING)
    assert exit_code([found]) == FOUND


#: with these there are others that say the same from another side
TOGETHER: list[tuple[set[str], dict[str, Any]]] = [
    ({"hub.address"}, hub(hub_ip="127.0.0.1")),
    (
        {"gpu.way", "cdi.off"},
        info(CDISpecDirs=None) | {"cdi_folders": {}, "cdi_specs": {}},
    ),
    (
        {"engine.daemon-reload", "cdi.off"},
        info(CDISpecDirs=None, Runtimes=NVIDIA) | {"cdi_folders": {}, "cdi_specs": {}},
    ),
]


@pytest.mark.parametrize(("checks", "planted"), TOGETHER)
def test_one_fault_may_show_from_two_sides(checks: set[str], planted: dict[str, Any]) -> None:
    assert {one.check for one in findings(site(**planted))} == checks


def test_a_swarm_spawner_wants_a_manager() -> None:
    from jupyterhub_gpuspawner.swarmspawner import GPUSwarmSpawner

    for state, words in (
        ({"LocalNodeState": "inactive"}, "swarm init"),
        ({"LocalNodeState": "active", "ControlAvailable": False}, "promote"),
    ):
        planted = info(Swarm=state) | {"spawner": GPUSwarmSpawner(), "toolkit": "1.17.9"}
        (found,) = [f for f in findings(site(**planted)) if f.check == "engine.swarm"]
        assert words in found.fix


def test_a_node_of_a_swarm_whose_toolkit_nobody_has_seen_is_not_fine() -> None:
    (found,) = findings(site(toolkits={"node2": None}))
    assert (found.check, found.level, found.about) == ("swarm.toolkit", Level.UNKNOWN, "node2")
    assert exit_code([found]) == NOT_ALL_SEEN


def test_the_nodes_of_a_swarm_are_shown_with_what_their_toolkit_keeps() -> None:
    told = {
        "node2": asdict(judge(Toolkit(version="1.17.8", mounts=True), ["GPU0"])),
        "node3": asdict(judge(Toolkit(version="1.18.1"), ["GPU0"])),
        "node4": None,
    }
    second, third = node_rows(site(toolkits=told))
    assert second[:3] == ("node2", "1.17.8", "volume-mounts") and "alone" in second[3]
    assert third == ("node3", "1.18.1", "none", "no GPU of it is given out")
    assert node_rows(site()) == node_rows(Facts()) == []


def test_on_a_swarm_nvidias_runtime_is_the_default_and_files_name_devices() -> None:
    mounts = "accept-nvidia-visible-devices-as-volume-mounts = true\n"
    planted = info(
        Swarm={"LocalNodeState": "active", "ControlAvailable": True},
        Runtimes={**INFO["Runtimes"], **NVIDIA},
        DefaultRuntime="nvidia",
    )
    config = GOOD["toolkit_config"] + mounts
    assert findings(site(**planted, toolkit="1.18.2", toolkit_config=config)) == []


def test_every_check_has_a_plant_and_a_sentence() -> None:
    planted = {name for name, *_ in SEEN} | {name for names, _ in TOGETHER for name in names}
    assert {one.name for one in CHECKS} - planted == {"engine.swarm"}
    assert len(SEEN) >= 30
    assert [one.name for one in CHECKS if not one.help.endswith(".")] == []


@pytest.mark.parametrize("fact", sorted(set(GOOD) - {"hardware"}))
def test_what_is_not_known_is_said_and_is_not_fine(fact: str) -> None:
    found = findings(site(**{fact: Unknown(why="it was asleep")}))
    needed = [one.name for one in CHECKS if fact in one.needs]
    if not needed:
        assert fact == "version"
        return
    assert exit_code(found) == NOT_ALL_SEEN
    said = " ".join(one.what for one in found)
    assert "it was asleep" in said
    assert all(name in said for name in needed)
    assert all(one.level is Level.UNKNOWN and one.fix for one in found)


def test_nothing_known_at_all_is_no_crash() -> None:
    found = findings(Facts())
    assert exit_code(found) == NOT_ALL_SEEN


def test_a_configuration_that_can_not_be_used_is_said_first() -> None:
    found = findings(site(config=Unknown(why="no")), "GPUS_PORT is 'x'; want a number")
    assert found[0].check == "hub.config"
    assert "GPUS_PORT" in found[0].what


@pytest.mark.parametrize(
    ("code", "said", "result"),
    [
        (0, "", ""),
        (124, "", "no answer within 8 s"),
        (1, "bash: connect: Connection refused\n", "Connection refused"),
        (97, "", Unknown(why="the image has no bash to try it with")),
    ],
)
def test_an_attempt_to_reach_the_hub_is_judged(code: int, said: str, result: Any) -> None:
    assert judge_reach(code, said) == result
