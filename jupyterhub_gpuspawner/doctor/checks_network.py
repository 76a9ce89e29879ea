"""How Hub, proxy and servers reach each other: addresses, ports, pools, proxies. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from itertools import islice

from ..engine.subnets import covering, free_subnets, parse_pool, subnets_of
from ..errors import ConfigError
from ..user_network import SHARED
from .facts import Facts
from .registry import Found, check, error, warning

#: JupyterHub's own default
HUB_PORT = 8081
#: networks that Docker has room for by its default pools, less those that come with it
DEFAULT_ROOM = 31
#: users' networks that there should be room for at least
FEW = 8


def hub_address(facts: Facts) -> tuple[str, int]:
    """Where servers call the Hub."""
    listens = str(facts.setting("JupyterHub", "hub_ip", "127.0.0.1"))
    called = str(facts.setting("JupyterHub", "hub_connect_ip", "") or listens)
    return called, int(facts.setting("JupyterHub", "hub_port", HUB_PORT))


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@check("hub.address", "config")
def address(facts: Facts) -> Iterator[Found]:
    """Servers in containers can call the Hub at hub_ip."""
    host, _ = hub_address(facts)
    url = str(facts.setting("JupyterHub", "hub_connect_url", ""))
    if is_loopback(host) and not url:
        yield error(
            f"servers are told to call the Hub at {host}",
            "In a container that is the container itself: every start runs into its time limit.",
            "c.JupyterHub.hub_ip = '172.17.0.1', the address of the Docker bridge: "
            "docker network inspect bridge",
        )


@check("hub.address-here", "config", "addresses")
def address_here(facts: Facts) -> Iterator[Found]:
    """hub_ip is an address of this machine."""
    host = str(facts.setting("JupyterHub", "hub_ip", "127.0.0.1"))
    try:
        wanted = ipaddress.ip_address(host)
    except ValueError:
        return
    if not wanted.is_unspecified and not wanted.is_loopback and host not in facts.addresses:
        yield error(
            f"hub_ip is {host}, which is no address of this machine",
            "The Hub can't listen there, and does not start.",
            "c.JupyterHub.hub_ip = the bridge's address: docker network inspect bridge; it has one "
            "only while Docker runs",
        )


@check("hub.reach", "reach", "config")
def reach(facts: Facts) -> Iterator[Found]:
    """A container reaches the Hub's address and port."""
    if facts.reach:
        host, port = hub_address(facts)
        yield error(
            f"a container does not reach {host}:{port}: {facts.reach}",
            "Every start runs into its time limit.",
            f"look for a firewall between Docker's networks and {host} (nft list ruleset; ufw "
            "allow from 172.16.0.0/12), or set another hub_ip",
        )


@check("hub.tls", "config")
def tls(facts: Facts) -> Iterator[Found]:
    """Passwords travel by TLS where others reach the Hub."""
    bind = str(facts.setting("JupyterHub", "bind_url", "http://:8000"))
    secure = facts.setting("JupyterHub", "ssl_cert", "") or bind.startswith("https")
    host = bind.partition("://")[2].rpartition(":")[0].strip("[]/")
    if not secure and not is_loopback(host):
        yield error(
            f"the Hub listens at {bind} without TLS",
            "Everybody on the way reads passwords and tokens.",
            "GPUS_TLS_CERT and GPUS_TLS_KEY; or GPUS_BIND=127.0.0.1 behind a proxy with TLS",
        )


@check("hub.certificate", "certificate")
def certificate(facts: Facts) -> Iterator[Found]:
    """The Hub's certificate is valid, for two weeks more, and belongs to its key."""
    found = facts.certificate
    if found is None:
        return
    if not found.fits_key:
        yield error(
            "the Hub's certificate and its key don't belong together",
            "The proxy does not start.",
            "GPUS_TLS_CERT and GPUS_TLS_KEY of one pair: openssl x509 -pubkey -noout, openssl pkey",
        )
    if found.days < 0:
        yield error(
            f"the Hub's certificate ended {-found.days:.0f} days ago",
            "Browsers refuse the Hub.",
            "renew it, and restart the proxy",
        )
    elif found.days < 14:
        yield warning(
            f"the Hub's certificate ends in {found.days:.0f} days",
            "Then browsers refuse the Hub.",
            "renew it, and have it renewed by a timer",
        )


@check("hub.proxy", "proxy_version", "config")
def proxy(facts: Facts) -> Iterator[Found]:
    """configurable-http-proxy is installed, in version 4 or later."""
    cls = str(facts.setting("JupyterHub", "proxy_class", ""))
    if "traefik" in cls.lower():
        return
    if facts.proxy_version is None:
        yield error(
            "configurable-http-proxy is not installed, or not on the PATH",
            "The Hub does not start.",
            "npm install -g configurable-http-proxy",
        )
    elif (facts.proxy_version.split(".")[0] or "0").isdigit() and int(
        facts.proxy_version.split(".")[0]
    ) < 4:
        yield warning(
            f"configurable-http-proxy is {facts.proxy_version}",
            "It has known holes, and drops websockets under load.",
            "npm install -g configurable-http-proxy",
        )


@check("network.pool", "spawner", "networks", "routes")
def pool(facts: Facts) -> Iterator[Found]:
    """There is room for users' networks in network_pool."""
    spawner = facts.spawner
    if not getattr(spawner, "user_networks", False) or spawner.network_name != SHARED:
        return
    try:
        ranges = parse_pool(spawner.network_pool, spawner.network_size)
    except ConfigError as wrong:
        yield error(str(wrong), "No server can start.", "c.GPUDockerSpawner.network_pool")
        return
    crossed = covering(ranges, facts.routes)
    if crossed:
        yield error(
            f"a route of this machine lies across network_pool: {crossed[0]}",
            "Users' networks can't be made there; where no range is left no server starts.",
            "c.GPUDockerSpawner.network_pool = ['10.213.0.0/16'], of addresses that your site does "
            "not use",
        )
        return
    taken = [route.subnet for route in facts.routes]
    for network in facts.networks:
        taken += subnets_of((network.get("IPAM") or {}).get("Config") or ())
    left = len(list(islice(free_subnets(ranges, spawner.network_size, taken, 0), FEW)))
    if left < FEW:
        yield error(
            f"network_pool has room for {left or 'no'} more users' networks",
            "Who starts a server then is told that no network can be made.",
            "a larger c.GPUDockerSpawner.network_pool; docker network ls shows whose they are",
        )


@check("network.default-pools", "info", "networks")
def default_pools(facts: Facts) -> Iterator[Found]:
    """Docker's own address pools have room for networks that others make."""
    bridges = [n for n in facts.networks if n.get("Driver") == "bridge"]
    pools = facts.info.get("DefaultAddressPools") or []
    try:
        ranges = [(ipaddress.ip_network(p["Base"]), int(p["Size"])) for p in pools]
    except (ValueError, KeyError, TypeError):
        return
    room = sum(2 ** max(0, size - one.prefixlen) for one, size in ranges) or DEFAULT_ROOM
    inside = [
        n
        for n in bridges
        for subnet in subnets_of((n.get("IPAM") or {}).get("Config") or ())
        if not ranges or any(subnet.overlaps(one) for one, _ in ranges if one.version == 4)
    ]
    # users' networks have addresses of their own choice
    others = [n for n in inside if not str(n.get("Name", "")).startswith("gpus-")]
    if len(others) >= room - 1:
        yield warning(
            f"Docker's address pools have room for {room} networks, and {len(others)} are there",
            "Compose, or whoever makes a network, is told 'could not find an available, "
            "non-overlapping IPv4 address pool'.",
            'docker network ls; and "default-address-pools": [{"base": "10.200.0.0/16", "size": '
            "24}] in /etc/docker/daemon.json",
        )


@check("network.mtu", "mtus", "networks", "routes")
def mtu(facts: Facts) -> Iterator[Found]:
    """Packets of containers fit through the machine's interfaces."""
    outside = {n: m for n, m in facts.mtus.items() if n.startswith(("e", "wl", "bond"))}
    options = next((n.get("Options") for n in facts.networks if n.get("Name") == "bridge"), None)
    inside = int((options or {}).get("com.docker.network.driver.mtu") or 1500)
    if outside and min(outside.values()) < inside:
        name, least = min(outside.items(), key=lambda one: one[1])
        yield warning(
            f"containers send packets of {inside} bytes, {name} takes {least}",
            "Downloads in servers hang, while small answers come.",
            f'"mtu": {least} in /etc/docker/daemon.json, then systemctl restart docker',
        )


def _proxied(values: Mapping[str, str]) -> tuple[str, str]:
    """The proxy and the exceptions that some variables set."""
    low = {name.lower(): value for name, value in values.items() if value}
    return low.get("http_proxy") or low.get("https_proxy") or "", low.get("no_proxy", "")


def _excepts(exceptions: str, host: str) -> bool:
    words = [word.strip() for word in exceptions.split(",") if word.strip()]
    for word in words:
        if word in ("*", host):
            return True
        try:
            if ipaddress.ip_address(host) in ipaddress.ip_network(word, strict=False):
                return True
        except ValueError:
            continue
    return False


@check("proxy.hub")
def hub_proxy(facts: Facts) -> Iterator[Found]:
    """The Hub does not call its own parts through a proxy."""
    used, exceptions = _proxied(facts.environment)
    if used and not any(_excepts(exceptions, host) for host in ("127.0.0.1", "localhost")):
        yield error(
            "this environment has a proxy, and no_proxy leaves out 127.0.0.1",
            "The Hub, its proxy and the scheduler look for each other at the proxy.",
            "no_proxy=localhost,127.0.0.1,::1 beside http_proxy, for the Hub",
        )


@check("proxy.servers", "config", "spawner")
def server_proxy(facts: Facts) -> Iterator[Found]:
    """Servers don't call the Hub through a proxy."""
    values = {str(k): str(v) for k, v in dict(facts.spawner.environment or {}).items()}
    used, exceptions = _proxied(values)
    host, _ = hub_address(facts)
    if used and not _excepts(exceptions, host):
        yield error(
            f"servers get a proxy, and no_proxy leaves out the Hub's address {host}",
            "Every server asks the proxy for the Hub, and its start fails.",
            f"c.GPUDockerSpawner.environment: no_proxy = 'localhost,127.0.0.1,{host}'",
        )


@check("proxy.docker-config", "docker_proxies", "config")
def docker_proxy(facts: Facts) -> Iterator[Found]:
    """~/.docker/config.json gives servers no proxy that keeps them from the Hub."""
    proxies = facts.docker_proxies
    host, _ = hub_address(facts)
    used = proxies.get("httpProxy") or proxies.get("httpsProxy")
    if used and not _excepts(str(proxies.get("noProxy") or ""), host):
        yield error(
            f"~/.docker/config.json gives every container a proxy, without {host} in noProxy",
            "Docker's library puts it into each server, which then asks the proxy for the Hub.",
            f'"noProxy": "localhost,127.0.0.1,{host}" below "proxies" in ~/.docker/config.json',
        )
