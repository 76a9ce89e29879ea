"""What an engine of the testbed is told: its daemon.json and its CDI devices. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def daemon_config(tag: str, resolvers: Sequence[str]) -> dict[str, Any]:
    """The daemon's settings. ``tag`` names its bridge and its control group."""
    return {
        **_common(tag),
        "bridge": tag,
        # No "default-address-pools": with it, a daemon that starts again deletes the interface
        # "docker0" of its network namespace (daemon_unix.go, "Clear stale bridge network"), and
        # that one is the host's own engine's. Docker picks subnets that no route here touches.
        # For containers and image builds; the daemon itself has no resolver.
        "dns": list(resolvers),
        # The host's firewall and forwarding belong to the host.
        "iptables": False,
        "ip6tables": False,
        "ip-forward": False,
        "ip-masq": False,
    }


def swarm_config(tag: str, device_ids: Sequence[str]) -> dict[str, Any]:
    """The settings of a daemon that is a node of a Swarm, in a network namespace of its own.

    Each device is a kind of resource of its own, so that a reservation names exactly one. A
    name with ``-`` would become an environment variable that ``sh`` drops.
    """
    return {
        **_common(tag),
        "node-generic-resources": [f"GPU{k}={name}" for k, name in enumerate(device_ids)],
        # the tests' own registry, on the machine's end of the nodes' bridge, has no TLS
        "insecure-registries": ["10.0.0.0/8"],
    }


def _common(tag: str) -> dict[str, Any]:
    return {
        "hosts": ["unix:///out/docker.sock"],
        "data-root": "/data",
        "pidfile": "/out/docker.pid",
        "features": {"cdi": True},
        "cdi-spec-dirs": ["/etc/cdi"],
        "cgroup-parent": f"/{tag}",
        "shutdown-timeout": 3,
    }


def resolvers(resolv_conf: str) -> list[str]:
    """The name servers in the text of a ``resolv.conf``."""
    lines = (line.split() for line in resolv_conf.splitlines())
    return [words[1] for words in lines if len(words) > 1 and words[0] == "nameserver"]


def cdi_spec(device_ids: Sequence[str]) -> dict[str, Any]:
    """A CDI specification of simulated GPUs, with one name per device and ``all``, as real ones.

    Each device is a device node ``/dev/nvidia<k>`` (the null device) and the marker file
    ``/run/gpus/<id>``.
    """
    nodes = [{"path": f"/dev/nvidia{k}", "hostPath": "/dev/null"} for k in range(len(device_ids))]
    markers = [
        {"hostPath": "/dev/null", "containerPath": f"/run/gpus/{name}", "options": ["ro", "bind"]}
        for name in device_ids
    ]
    devices = [
        {"name": name, "containerEdits": {"deviceNodes": [node], "mounts": [marker]}}
        for name, node, marker in zip(device_ids, nodes, markers, strict=True)
    ]
    if device_ids:
        devices.append({"name": "all", "containerEdits": {"deviceNodes": nodes, "mounts": markers}})
    return {"cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": devices}
