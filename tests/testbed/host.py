"""What an engine needs of the machine it shares: a bridge and control groups of its own."""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
import subprocess
from pathlib import Path

#: Containers of an engine's default bridge get addresses from a /24 in here, one per engine.
BRIDGE_RANGE = ipaddress.IPv4Network("10.78.0.0/16")
#: The nodes of a Swarm have addresses from a /24 in here, one per Swarm.
SWARM_RANGE = ipaddress.IPv4Network("10.77.0.0/16")
_FIREWALL = Path(__file__).parents[2] / "deploy" / "firewall"


def ip(*arguments: str) -> str:
    """The output of the command ``ip``. CalledProcessError where it fails."""
    return subprocess.run(["ip", *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def _free_gateway(seed: int, inside: ipaddress.IPv4Network) -> str:
    """The first address of a /24 that no route of this machine touches."""
    routes = [entry["dst"] for entry in json.loads(ip("-j", "-4", "route"))]
    taken = [ipaddress.IPv4Network(dst) for dst in routes if dst != "default"]
    subnets = list(inside.subnets(new_prefix=24))
    for offset in range(len(subnets)):
        subnet = subnets[(seed + offset) % len(subnets)]
        if not any(subnet.overlaps(other) for other in taken):
            return str(subnet[1])
    raise RuntimeError(f"no free /24 left in {inside}")


def make_bridge(name: str, seed: int, inside: ipaddress.IPv4Network = BRIDGE_RANGE) -> str:
    """Make a bridge with a free subnet, and return its address. ``seed`` says where to look."""
    gateway = _free_gateway(seed, inside)
    ip("link", "add", name, "type", "bridge")
    ip("addr", "add", f"{gateway}/24", "dev", name)
    ip("link", "set", name, "up")
    return gateway


def address_of(name: str) -> str | None:
    """The IPv4 address of an interface; None where there is none."""
    if not Path("/sys/class/net", name).exists():
        return None
    (entry,) = json.loads(ip("-j", "-4", "addr", "show", "dev", name))
    return next((str(one["local"]) for one in entry.get("addr_info", ())), None)


def plug_in(bridge: str, name: str, pid: int, *, inside: str, address: str) -> None:
    """Connect the network namespace of a process to a bridge, as with a cable.

    ``name`` is the end on the machine, ``inside`` the one in the namespace, which gets
    ``address`` (with its prefix length).
    """
    ip("link", "add", name, "type", "veth", "peer", "name", inside, "netns", str(pid))
    ip("link", "set", name, "master", bridge, "up")
    for arguments in (
        ("addr", "add", address, "dev", inside),
        ("link", "set", inside, "up"),
        ("link", "set", "lo", "up"),
    ):
        enter = ["nsenter", f"--net=/proc/{pid}/ns/net"]
        subprocess.run([*enter, "ip", *arguments], check=True, stdout=subprocess.PIPE)


def unplug(name: str) -> None:
    """Take a cable away; a missing one is no error."""
    there = Path("/sys/class/net", name)
    if there.exists():
        try:
            ip("link", "del", name)
        except subprocess.CalledProcessError:
            # the kernel takes it away by itself when the namespace at its other end is gone
            if there.exists():
                raise


def let_through(bridge: str, allowed: bool) -> None:
    """Allow traffic within a bridge, or end that: another engine's firewall may refuse it all."""
    if shutil.which("iptables") is None:
        return
    rule = ["FORWARD", "-i", bridge, "-o", bridge, "-j", "ACCEPT"]
    there = _iptables("-C", *rule)
    if allowed and not there:
        _iptables("-I", *rule)
    while not allowed and there:
        there = _iptables("-D", *rule) and _iptables("-C", *rule)


def _iptables(*arguments: str) -> bool:
    return subprocess.run(["iptables", "-w", *arguments], capture_output=True).returncode == 0


def let_in(address: str) -> None:
    """Have the rules of ``deploy/firewall``, where they are, let servers reach ``address``.

    They let them reach one Hub's API and nothing else of this machine, and ``./quickstart`` has
    made them on many a machine that runs the tests later. May be repeated.
    """
    subprocess.run([_FIREWALL, "open", address], check=True)


def keep_out(address: str) -> None:
    """End :func:`let_in`. May be repeated."""
    subprocess.run([_FIREWALL, "close", address], check=True)


def remove_bridge(name: str) -> None:
    """Take the bridge away; a missing one is no error."""
    unplug(name)


def remove_control_groups(name: str) -> None:
    """Remove the empty control groups of an engine, in version 1 and version 2 hierarchies."""
    base = Path("/sys/fs/cgroup")
    for top in {base / name, *(folder / name for folder in base.iterdir() if folder.is_dir())}:
        for folder, _, _ in os.walk(top, topdown=False):
            try:
                os.rmdir(folder)
            except OSError:
                continue  # not empty yet: it costs nothing to leave it
