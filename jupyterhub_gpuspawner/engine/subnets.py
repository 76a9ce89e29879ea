"""Subnets for users' networks: what a pool holds, what is taken, which one comes next. Pure."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network

from ..errors import ConfigError

#: prefix lengths that a user's network may have: 253 servers to 5
WIDEST, NARROWEST = 24, 29


@dataclass(frozen=True, kw_only=True, slots=True)
class Route:
    """One line of the machine's routing table."""

    subnet: IPv4Network
    #: name of the interface, such as ``eth0``
    interface: str


def parse_pool(pool: Sequence[str], prefix: int) -> tuple[IPv4Network, ...]:
    """Read the ranges that users' networks are carved from.

    Raises
    ------
    ConfigError
        A range is no IPv4 range, is smaller than one network, or two overlap; or ``prefix`` is
        out of bounds.
    """
    if not WIDEST <= prefix <= NARROWEST:
        raise ConfigError(f"network_size is {prefix}; allowed: {WIDEST} to {NARROWEST}")
    ranges: list[IPv4Network] = []
    for text in pool:
        try:
            one = IPv4Network(text)
        except ValueError as error:
            raise ConfigError(
                f"network_pool has {text!r}, which is no IPv4 range such as 10.213.0.0/16: {error}"
            ) from None
        if one.prefixlen > prefix:
            raise ConfigError(f"network_pool has {text}, which is smaller than one /{prefix}")
        if any(one.overlaps(other) for other in ranges):
            raise ConfigError(f"network_pool has {text}, which overlaps another of its ranges")
        ranges.append(one)
    if not ranges:
        raise ConfigError("network_pool is empty; it needs a range such as 10.213.0.0/16")
    return tuple(ranges)


def free_subnets(
    ranges: Sequence[IPv4Network], prefix: int, taken: Iterable[IPv4Network], seed: int
) -> Iterator[IPv4Network]:
    """Subnets of the ranges that nothing taken overlaps, range by range.

    Parameters
    ----------
    seed:
        Where in each range to begin. Different for each user: two that are made at the same
        moment then rarely want the same subnet, and a user mostly gets the same one again.
    """
    same_size, others = set(), []
    for subnet in taken:
        if subnet.prefixlen == prefix:
            same_size.add(int(subnet.network_address))
        else:
            others.append((int(subnet.network_address), int(subnet.broadcast_address)))
    step = 2 ** (32 - prefix)
    for one in ranges:
        count = one.num_addresses // step
        first = int(one.network_address)
        near = [(a, b) for a, b in others if b >= first and a < first + one.num_addresses]
        for offset in range(count):
            begin = first + (seed + offset) % count * step
            if begin in same_size or any(a < begin + step and b >= begin for a, b in near):
                continue
            yield IPv4Network((begin, prefix))


def parse_routes(table: str) -> tuple[Route, ...]:
    """Read Linux's ``/proc/net/route``; default routes are left out."""
    routes = []
    for line in table.splitlines()[1:]:
        words = line.split()
        if len(words) < 8:
            continue
        address, mask = (struct.pack("<I", int(words[place], 16)) for place in (1, 7))
        if mask == bytes(4):
            continue
        subnet = IPv4Network((address, bin(int.from_bytes(mask, "big")).count("1")), strict=False)
        routes.append(Route(subnet=subnet, interface=words[0]))
    return tuple(routes)


def covering(ranges: Sequence[IPv4Network], routes: Iterable[Route]) -> list[str]:
    """Which routes lie across a whole range, in words: the reason why it can't be used."""
    return [
        f"{one} lies in {route.subnet} of {route.interface}"
        for one in ranges
        for route in routes
        if one.subnet_of(route.subnet)
    ]


def subnets_of(configs: Iterable[object]) -> Iterator[IPv4Network]:
    """The IPv4 subnets of an engine's ``IPAM.Config`` entries."""
    for config in configs:
        text = config.get("Subnet") if isinstance(config, dict) else None
        try:
            found = ipaddress.ip_network(str(text or ""), strict=False)
        except ValueError:
            continue
        if isinstance(found, IPv4Network):
            yield found
