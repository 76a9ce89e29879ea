"""What an engine needs of the machine it shares: a bridge and control groups of its own."""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess
from pathlib import Path

#: Containers of an engine's default bridge get addresses from a /24 in here, one per engine.
BRIDGE_RANGE = ipaddress.IPv4Network("10.78.0.0/16")


def _ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def _free_gateway(seed: int) -> str:
    """The first address of a /24 that no route of this machine touches."""
    routes = [entry["dst"] for entry in json.loads(_ip("-j", "-4", "route"))]
    taken = [ipaddress.IPv4Network(dst) for dst in routes if dst != "default"]
    subnets = list(BRIDGE_RANGE.subnets(new_prefix=24))
    for offset in range(len(subnets)):
        subnet = subnets[(seed + offset) % len(subnets)]
        if not any(subnet.overlaps(other) for other in taken):
            return str(subnet[1])
    raise RuntimeError(f"no free /24 left in {BRIDGE_RANGE}")


def make_bridge(name: str, seed: int) -> str:
    """Make a bridge with a free subnet, and return its address. ``seed`` says where to look."""
    gateway = _free_gateway(seed)
    _ip("link", "add", name, "type", "bridge")
    _ip("addr", "add", f"{gateway}/24", "dev", name)
    _ip("link", "set", name, "up")
    return gateway


def remove_bridge(name: str) -> None:
    """Take the bridge away; a missing one is no error."""
    if Path("/sys/class/net", name).exists():
        _ip("link", "del", name)


def remove_control_groups(name: str) -> None:
    """Remove the empty control groups of an engine, in version 1 and version 2 hierarchies."""
    base = Path("/sys/fs/cgroup")
    for top in {base / name, *(folder / name for folder in base.iterdir() if folder.is_dir())}:
        for folder, _, _ in os.walk(top, topdown=False):
            try:
                os.rmdir(folder)
            except OSError:
                continue  # not empty yet: it costs nothing to leave it
