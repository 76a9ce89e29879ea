"""Docker itself: version, runtime, limits, logs, safety. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from ..swarmspawner import GPUSwarmSpawner
from .facts import Facts
from .registry import Found, check, error, warning

#: the oldest engine that the tests know, and the first with CDI
OLDEST, WITH_CDI = (20, 10), (25, 0)
_RESTART = "then systemctl restart docker"


def numbers(text: str) -> tuple[int, ...]:
    """``(26, 1, 5)`` of ``26.1.5+dfsg1``; () of what has no number."""
    match = re.match(r"v?(\d+(?:\.\d+)*)", text.strip())
    return tuple(int(part) for part in match[1].split(".")) if match else ()


def daemon(line: str) -> str:
    """The fix that is a line of Docker's configuration."""
    return f"{line} in /etc/docker/daemon.json, {_RESTART}"


@check("engine.version", "info")
def version(facts: Facts) -> Iterator[Found]:
    """Docker is 20.10 or later, and 25 or later where CDI is wanted."""
    have = str(facts.info.get("ServerVersion") or "")
    found = numbers(have)
    if found and found < OLDEST:
        yield error(
            f"Docker {have} is older than 20.10",
            "No test runs with it, and it lacks what limits and device requests need.",
            "install Docker 25 or later",
        )
    elif found and found < WITH_CDI and (facts.hardware or not facts.info.get("Runtimes")):
        yield warning(
            f"Docker {have} has no CDI",
            "On NVIDIA's runtime a 'systemctl daemon-reload' can take the GPUs away from servers "
            "('Failed to initialize NVML').",
            "install Docker 25 or later (28.2 has CDI switched on)",
        )


@check("engine.default-runtime", "info")
def default_runtime(facts: Facts) -> Iterator[Found]:
    """The default runtime is not NVIDIA's, but on a Swarm, and there is one of that name."""
    name = str(facts.info.get("DefaultRuntime") or "runc")
    # services have no other way to a GPU
    swarm = (facts.info.get("Swarm") or {}).get("LocalNodeState") == "active"
    if "nvidia" in name and not swarm:
        yield error(
            "Docker's default runtime is nvidia",
            "Every container whose image says NVIDIA_VISIBLE_DEVICES=all, also one that was "
            "started by hand or builds an image, gets GPUs that others have leased.",
            daemon('take out "default-runtime": "nvidia"'),
        )
    elif name not in (facts.info.get("Runtimes") or {name: None}):
        yield error(
            f"Docker's default runtime {name} is not among its runtimes",
            "No container starts that does not name another one.",
            daemon('"default-runtime": "runc"'),
        )


@check("engine.cgroup-driver", "info")
def cgroup_driver(facts: Facts) -> Iterator[Found]:
    """Docker leaves control groups to systemd, where that runs the machine."""
    if facts.systemd and facts.local and facts.info.get("CgroupDriver") == "cgroupfs":
        yield warning(
            "Docker's cgroup driver is cgroupfs, on a machine that systemd runs",
            "Two programs manage one tree: under load limits may be lost.",
            daemon('"exec-opts": ["native.cgroupdriver=systemd"]'),
        )


@check("engine.daemon-reload", "info")
def daemon_reload(facts: Facts) -> Iterator[Found]:
    """GPUs don't get lost at a systemctl daemon-reload."""
    hook = "nvidia" in (facts.info.get("Runtimes") or {}) and not facts.info.get("CDISpecDirs")
    if hook and facts.info.get("CgroupDriver") == "systemd":
        yield warning(
            "GPUs come by NVIDIA's runtime, and systemd manages the control groups",
            "After a 'systemctl daemon-reload' servers say 'Failed to initialize NVML' "
            "(nvidia-container-toolkit#48).",
            daemon('"features": {"cdi": true}')
            + ", and nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml",
        )


@check("engine.cgroup-version", "info")
def cgroup_version(facts: Facts) -> Iterator[Found]:
    """The machine has control groups of version 2."""
    if str(facts.info.get("CgroupVersion") or "2") == "1":
        yield warning(
            "the machine has control groups of version 1",
            "systemd and Docker are giving it up, and memory limits are less exact.",
            "boot with systemd.unified_cgroup_hierarchy=1, or install a newer distribution",
        )


@check("engine.limits", "info")
def limits(facts: Facts) -> Iterator[Found]:
    """The kernel can keep limits of memory, swap, CPU and processes."""
    names = {
        "MemoryLimit": "memory",
        "SwapLimit": "swap",
        "CpuCfsQuota": "CPU time",
        "PidsLimit": "processes",
    }
    lost = [word for key, word in names.items() if facts.info.get(key) is False]
    if lost:
        yield error(
            f"the kernel keeps no limit of {', '.join(lost)}",
            "One server can take all of it from the others, and from the Hub.",
            "GRUB_CMDLINE_LINUX='cgroup_enable=memory swapaccount=1' in /etc/default/grub, "
            "update-grub, reboot; or give the machine control groups of version 2",
        )


@check("engine.live-restore", "info")
def live_restore(facts: Facts) -> Iterator[Found]:
    """A restart of Docker leaves containers running."""
    swarm = (facts.info.get("Swarm") or {}).get("LocalNodeState") == "active"
    if facts.info.get("LiveRestoreEnabled") is False and not swarm:
        yield warning(
            "Docker stops all containers when it is restarted or upgraded",
            "Every upgrade of Docker ends all trainings.",
            daemon('"live-restore": true'),
        )


@check("engine.storage-driver", "info")
def storage_driver(facts: Facts) -> Iterator[Found]:
    """Images are kept by a storage driver that shares layers."""
    name = facts.info.get("Driver")
    if name in ("vfs", "devicemapper", "aufs", "overlay"):
        yield error(
            f"Docker's storage driver is {name}",
            "Each start copies the whole image, or the driver is given up by Docker.",
            daemon('"storage-driver": "overlay2"') + "; images have to be pulled again",
        )


@check("engine.log-driver", "info")
def log_driver(facts: Facts) -> Iterator[Found]:
    """The last lines of a server that ended can be read."""
    name = facts.info.get("LoggingDriver")
    if name == "none":
        yield warning(
            "Docker keeps no logs of containers",
            "Nobody can say why a server ended.",
            daemon('"log-driver": "local"'),
        )


@check("engine.safety", "info")
def safety(facts: Facts) -> Iterator[Found]:
    """Containers are behind seccomp."""
    options = [str(one) for one in facts.info.get("SecurityOptions") or ()]
    seccomp = [one for one in options if one.startswith("name=seccomp")]
    if not seccomp or any("unconfined" in one for one in seccomp):
        yield error(
            "Docker runs containers without seccomp",
            "A server may use any call of the kernel: a hole there is a way out of the container.",
            daemon('take out "seccomp-profile": "unconfined"'),
        )


@check("engine.rootless", "info")
def rootless(facts: Facts) -> Iterator[Found]:
    """Docker runs as root, without user namespaces of its own."""
    options = [str(one) for one in facts.info.get("SecurityOptions") or ()]
    if "name=rootless" in options:
        yield warning(
            "Docker runs without root",
            "Limits may not be kept, and containers can't reach the Hub at the bridge's address.",
            "use the machine's Docker; docs/howto/restrict-docker.md says how to restrict the Hub",
        )
    if any(one.startswith("name=userns") for one in options):
        yield warning(
            "Docker maps users of containers (userns-remap)",
            "Files on bind mounts and NFS belong to other numbers than the servers' user has.",
            daemon('take out "userns-remap"'),
        )


@check("engine.packaging", "info")
def packaging(facts: Facts) -> Iterator[Found]:
    """Docker is the machine's own, and no desktop's or snap's."""
    where = str(facts.info.get("DockerRootDir") or "")
    desktop = "Docker Desktop" in str(facts.info.get("OperatingSystem") or "")
    if desktop or where.startswith("/var/snap/"):
        what = "Docker Desktop" if desktop else "the snap of Docker"
        yield error(
            f"this is {what}",
            "It runs in a cage of its own: CDI files, bind mounts or GPUs of the machine are not "
            "there.",
            "install Docker Engine from Docker's or the distribution's packages",
        )


@check("engine.door")
def door(facts: Facts) -> Iterator[Found]:
    """Docker is not open to the network without TLS."""
    parts = urlsplit(facts.engine_url)
    tls = facts.environment.get("DOCKER_TLS_VERIFY") or parts.scheme == "https"
    loopback = parts.hostname in ("localhost", "127.0.0.1", "::1")
    if parts.scheme in ("tcp", "http") and not tls:
        level = warning if loopback else error
        yield level(
            f"Docker is asked at {parts.scheme}://{parts.hostname}:{parts.port} without TLS",
            "Whoever reaches this port is root on that machine.",
            "DOCKER_TLS_VERIFY=1 with DOCKER_CERT_PATH, or DOCKER_HOST=unix:///var/run/docker.sock",
        )


@check("engine.clock", "engine_clock")
def clock(facts: Facts) -> Iterator[Found]:
    """The engine's clock and ours agree."""
    if abs(facts.engine_clock) > 2.0:
        yield warning(
            f"the engine's clock is {facts.engine_clock:+.0f} s off this machine's",
            "Which server ended when, and how long a lease lasts, comes out wrong.",
            "set both from one source: timedatectl set-ntp true",
        )


@check("engine.owner", "owner", "ledger")
def owner(facts: Facts) -> Iterator[Found]:
    """The engine belongs to this Hub's ledger."""
    ours = facts.ledger.ledger
    if facts.owner and ours and facts.owner != ours:
        yield error(
            f"the engine belongs to the ledger {facts.owner}, the Hub's is {ours}",
            "The scheduler grants nothing on it: two ledgers would give out one GPU twice.",
            "give the Hub back its ledger; or, if the other installation is gone, stop its "
            "containers and docker volume rm gpus-owner",
        )


@check("engine.swarm", "info", "spawner")
def swarm(facts: Facts) -> Iterator[Found]:
    """With gpu-swarm the engine is a manager of a Swarm."""
    if not isinstance(facts.spawner, GPUSwarmSpawner):
        return
    state = facts.info.get("Swarm") or {}
    if state.get("LocalNodeState") != "active":
        yield error(
            "the spawner is gpu-swarm, and the engine is in no Swarm",
            "No server can start.",
            "docker swarm init, or c.JupyterHub.spawner_class = 'gpu-docker'",
        )
    elif not state.get("ControlAvailable"):
        yield error(
            "the spawner is gpu-swarm, and the engine is no manager of its Swarm",
            "Only a manager takes services.",
            "docker node promote NODE on a manager, or point DOCKER_HOST at one",
        )


@check("engine.forwarding", "info")
def forwarding(facts: Facts) -> Iterator[Found]:
    """The machine forwards packets between containers and outside."""
    if facts.info.get("IPv4Forwarding") is False:
        yield error(
            "the machine does not forward packets",
            "Servers reach neither the Hub nor anything else.",
            "sysctl -w net.ipv4.ip_forward=1, and a file in /etc/sysctl.d",
        )


@check("engine.proxy", "info")
def engine_proxy(facts: Facts) -> Iterator[Found]:
    """A proxy of Docker's leaves local registries alone."""
    used = facts.info.get("HttpsProxy") or facts.info.get("HttpProxy")
    if used and not facts.info.get("NoProxy"):
        yield warning(
            "Docker pulls through a proxy, and knows no exceptions",
            "Registries in your own network are asked through it, which mostly fails.",
            'NO_PROXY in /etc/systemd/system/docker.service.d/proxy.conf, or "no-proxy" below '
            '"proxies" in /etc/docker/daemon.json',
        )
