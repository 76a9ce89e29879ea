"""Networks and their endpoints."""

from __future__ import annotations

import ipaddress
import itertools
import socket
from typing import Any

from tests.fake_engine.events import Events
from tests.fake_engine.rules import Refused, labels_fit, new_id, stamp

#: addresses are in 127.0.0.0/8, where everybody can listen: 127.BLOCK.0.0/16 for each engine of
#: this machine, of which the default bridge has the first /20, and other networks the next ones
BLOCKS = range(16, 240)


def own_block() -> tuple[int, socket.socket]:
    """A block that no other fake engine of this machine has; its lock, to be kept open."""
    lock = socket.socket(socket.AF_UNIX)
    for block in BLOCKS:
        try:
            lock.bind(f"\0gpus-fake-engine-{block}")
        except OSError:
            continue
        return block, lock
    raise RuntimeError("too many fake engines on this machine")


class Networks:
    """All networks, by id."""

    def __init__(self, events: Events, block: int) -> None:
        self._events = events
        self._block = ipaddress.ip_network(f"127.{block}.0.0/16")
        self.by_id: dict[str, dict[str, Any]] = {}
        self._hosts: dict[str, itertools.count[int]] = {}
        for name in ("bridge", "host", "none"):
            pool = [str(next(self._block.subnets(new_prefix=20)))] if name == "bridge" else []
            self._add(name, {"Driver": "null" if name == "none" else name}, pool)

    def _add(self, name: str, body: dict[str, Any], subnets: list[str]) -> dict[str, Any]:
        id = new_id()
        ipam = body.get("IPAM") or {}
        config = ipam.get("Config") or [
            {"Subnet": subnet, "Gateway": str(next(ipaddress.ip_network(subnet).hosts()))}
            for subnet in subnets
        ]
        network = {
            "Name": name,
            "Id": id,
            "Created": stamp(),
            "Scope": "local",
            "Driver": body.get("Driver") or "bridge",
            "EnableIPv6": bool(body.get("EnableIPv6")),
            "IPAM": {"Driver": ipam.get("Driver") or "default", "Options": {}, "Config": config},
            "Internal": bool(body.get("Internal")),
            "Attachable": bool(body.get("Attachable")),
            "Ingress": False,
            "ConfigFrom": {"Network": ""},
            "ConfigOnly": False,
            "Containers": {},
            "Options": body.get("Options") or {},
            "Labels": body.get("Labels") or {},
        }
        self.by_id[id] = network
        self._hosts[id] = itertools.count(2)
        return network

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        """Make a network. A name is taken once, and subnets may not overlap."""
        name = str(body.get("Name") or "")
        if any(network["Name"] == name for network in self.by_id.values()):
            raise Refused(409, f"network with name {name} already exists")
        wanted = [one["Subnet"] for one in (body.get("IPAM") or {}).get("Config") or ()]
        taken = [ipaddress.ip_network(subnet) for subnet in self._subnets()]
        for subnet in wanted:
            if any(ipaddress.ip_network(subnet).overlaps(other) for other in taken):
                raise Refused(403, "Pool overlaps with other one on this address space")
        if not wanted:
            wanted = [self._free(taken)]
        network = self._add(name, body, wanted)
        attributes = {"name": name, "type": network["Driver"]}
        self._events.tell("network", "create", network["Id"], attributes)
        return {"Id": network["Id"], "Warning": ""}

    def _subnets(self) -> list[str]:
        return [c["Subnet"] for n in self.by_id.values() for c in n["IPAM"]["Config"]]

    def _free(self, taken: list[Any]) -> str:
        for pool in self._block.subnets(new_prefix=20):
            if not any(pool.overlaps(other) for other in taken):
                return str(pool)
        words = "could not find an available, non-overlapping IPv4 address pool among the defaults"
        raise Refused(400, f"{words} to assign to the network")

    def find(self, which: str) -> dict[str, Any]:
        """By id or name, or the beginning of an id."""
        for network in self.by_id.values():
            if which in (network["Id"], network["Name"]):
                return network
        short = [n for n in self.by_id.values() if which and n["Id"].startswith(which)]
        if len(short) == 1:
            return short[0]
        raise Refused(404, f"network {which} not found")

    def list(self, filters: dict[str, list[str]]) -> list[dict[str, Any]]:
        """As ``GET /networks``: without endpoints."""
        return [
            {**network, "Containers": {}}
            for network in self.by_id.values()
            if labels_fit(network["Labels"], filters.get("label", []))
            and any(name in network["Name"] for name in filters.get("name", [""]))
            and any(network["Id"].startswith(id) for id in filters.get("id", [""]))
        ]

    def remove(self, which: str) -> None:
        """Remove one without endpoints."""
        network = self.find(which)
        if network["Name"] in ("bridge", "host", "none"):
            words = "is a pre-defined network and cannot be removed"
            raise Refused(403, f"{network['Name']} {words}")
        if network["Containers"]:
            name, id = network["Name"], network["Id"]
            words = f"error while removing network: network {name} id {id} has active endpoints"
            raise Refused(403, words)
        del self.by_id[network["Id"]]
        attributes = {"name": network["Name"], "type": network["Driver"]}
        self._events.tell("network", "destroy", network["Id"], attributes)

    def attach(self, network: dict[str, Any], container: dict[str, Any]) -> dict[str, Any]:
        """Give a running container an address; what inspect shows of it."""
        config = network["IPAM"]["Config"]
        endpoint = {
            "NetworkID": network["Id"],
            "EndpointID": new_id(),
            "Gateway": config[0].get("Gateway", "") if config else "",
            "IPAddress": "",
            "IPPrefixLen": 0,
        }
        if config:
            pool = ipaddress.ip_network(config[0]["Subnet"])
            endpoint["IPAddress"] = str(pool[next(self._hosts[network["Id"]]) % pool.num_addresses])
            endpoint["IPPrefixLen"] = pool.prefixlen
        network["Containers"][container["Id"]] = {
            "Name": container["Name"].lstrip("/"),
            "EndpointID": endpoint["EndpointID"],
            "MacAddress": "",
            "IPv4Address": f"{endpoint['IPAddress']}/{endpoint['IPPrefixLen']}",
            "IPv6Address": "",
        }
        self._say("connect", network, container)
        return endpoint

    def detach(self, network: dict[str, Any], container: dict[str, Any]) -> None:
        """Take the address back."""
        if network["Containers"].pop(container["Id"], None) is not None:
            self._say("disconnect", network, container)

    def _say(self, action: str, network: dict[str, Any], container: dict[str, Any]) -> None:
        attributes = {
            "container": container["Id"],
            "name": network["Name"],
            "type": network["Driver"],
        }
        self._events.tell("network", action, network["Id"], attributes)
