"""A network for each user: made before the first server, shared by the user's servers alone.

It is found by its labels, as homes are. Its bridge on the machine has a name that begins with
:data:`BRIDGE_PREFIX`, so that a firewall can mean all of them. Docker's default address pools
end at about 31 networks, so each gets a small subnet of a range that the admin chose. Functions
take a client and block: run them in the pool, those of one owner under one key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network
from itertools import islice
from pathlib import Path
from typing import Any, cast

import docker
import docker.errors

from ..errors import EngineConflict, EngineError
from . import labels
from .faults import explain
from .labels import Kind
from .subnets import Route, covering, free_subnets, parse_routes, subnets_of
from .volumes import digest, slug

#: the bridge of each user's network begins so; an interface name has 15 characters at most
BRIDGE_PREFIX = "gpus"
#: an alias that marks a container which we joined to a network ourselves
MEMBER = "gpus-member"
#: subnets that are tried, each time with what Docker says is taken left out
TRIES = 32

_BRIDGE_NAME = "com.docker.network.bridge.name"
_MTU = "com.docker.network.driver.mtu"
_ROUTES = Path("/proc/net/route")
_MOUNTS = Path("/proc/self/mountinfo")
_OWN_FILES = re.compile(r"^\S+ \S+ \S+ \S*/containers/([0-9a-f]{64})/\S+ /etc/hostname ", re.M)
_USER_MESSAGE = "No network can be made for your server. Please tell an administrator."


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkSpec:
    """Whose network, and from where its subnet may come."""

    #: id of the ledger
    ledger: str
    #: owner id of the person
    owner: str
    #: JupyterHub's name of the user
    user: str
    #: ranges of subnets, in order of preference
    ranges: tuple[IPv4Network, ...]
    #: prefix length of the user's subnet
    prefix: int
    #: names or ids of containers that shall be on it: the proxy's, the Hub's
    members: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class UserNetwork:
    """A network of ours, as the engine lists it."""

    network_id: str
    name: str
    #: JupyterHub's name of the user when it was made
    user: str
    #: a container of ours, running or not, is made for it
    used: bool


def network_name(username: str, ledger: str, owner: str) -> str:
    """Return the network's name: ``user-net-<slug>-<12 hex digits>``.

    Engines before 28 send what a container has to say through its first network by name. The
    Hub's container is on all users' networks: theirs must come late in the alphabet.
    """
    return f"user-net-{slug(username)}-{digest('network', ledger, owner)[:12]}"


def bridge_name(ledger: str, owner: str) -> str:
    """Return the name of the network's interface on the machine, 15 characters."""
    return f"{BRIDGE_PREFIX}{digest('network', ledger, owner)[:11]}"


def host_routes(client: docker.DockerClient) -> tuple[Route, ...]:
    """Where this machine sends what; nothing for an engine elsewhere, or without ``/proc``."""
    if not str(client.api.base_url).startswith("http+"):
        return ()
    try:
        return parse_routes(_ROUTES.read_text())
    except OSError:
        return ()


def ensure_network(
    client: docker.DockerClient,
    spec: NetworkSpec,
    routes: Callable[[docker.DockerClient], tuple[Route, ...]] = host_routes,
) -> str:
    """Find the network of ``spec.owner``, or make it; return its name. May be repeated.

    Raises
    ------
    EngineError
        The ranges hold no free subnet; the text says what is in the way.
    EngineConflict
        Something else has its name.
    """
    name = _find(client, spec) or _make(client, spec, routes)
    join(client, name, spec.members)
    return name


def join(client: docker.DockerClient, name: str, members: Iterable[str]) -> None:
    """Put the Hub's and the proxy's containers on a network. Being there is a success.

    Each keeps the names that it has on its other networks.
    """
    for member in members:
        try:
            info = cast("dict[str, Any]", client.api.inspect_container(member))
        except docker.errors.NotFound as error:
            raise EngineError(
                f"network {name}: there is no container {member!r} (network_members)", _USER_MESSAGE
            ) from error
        there: Mapping[str, Any] = (info.get("NetworkSettings") or {}).get("Networks") or {}
        if name in there or _has_no_network_of_its_own(info):
            continue
        aliases = {str(info["Name"]).lstrip("/"), MEMBER}
        for network, endpoint in there.items():
            if not network.startswith("user-net-"):
                aliases.update((endpoint or {}).get("Aliases") or ())
        try:
            client.api.connect_container_to_network(member, name, aliases=sorted(aliases))
        except docker.errors.APIError as error:
            if "already exists in network" not in explain(error):
                raise


def join_where(client: docker.DockerClient, container_id: str, members: Iterable[str]) -> None:
    """Put the members on the network that a container of ours is on, if it is one of ours.

    The Hub's container may be another one than when the server was started.
    """
    info = cast("dict[str, Any]", client.api.inspect_container(container_id))
    for name in (info.get("NetworkSettings") or {}).get("Networks") or {}:
        if (_inspect(client, name).get("Labels") or {}).get(labels.KIND) == Kind.NETWORK.value:
            join(client, name, members)


def own_container(client: docker.DockerClient, mountinfo: Path = _MOUNTS) -> str | None:
    """Return the id of the container on this engine that this process runs in; None = in none.

    Docker binds files of its own over three in ``/etc``, and their path has the container's id.
    """
    try:
        found = _OWN_FILES.search(mountinfo.read_text())
        if found is None:
            return None
        client.api.inspect_container(found[1])
    except (OSError, docker.errors.NotFound):
        return None  # of another engine
    return found[1]


def list_networks(client: docker.DockerClient, ledger: str) -> tuple[UserNetwork, ...]:
    """Return the users' networks of a ledger, with whether a container of ours is made for them.

    Networks first, and containers afterwards: one that was made in between counts.
    """
    filters = {"label": labels.selectors(ledger, Kind.NETWORK)}
    rows = cast("list[dict[str, Any]]", client.api.networks(filters=filters))
    if not rows:
        return ()
    selectors = {"label": labels.selectors(ledger, Kind.SERVER)}
    used: set[str] = set()
    for container in cast(
        "list[dict[str, Any]]", client.api.containers(all=True, filters=selectors)
    ):
        used.update((container.get("NetworkSettings") or {}).get("Networks") or ())
    return tuple(
        UserNetwork(
            network_id=str(row["Id"]),
            name=str(row["Name"]),
            user=str((row.get("Labels") or {}).get(labels.USER, "")),
            used=str(row["Name"]) in used,
        )
        for row in rows
    )


def remove_network(client: docker.DockerClient, network_id: str) -> bool:
    """Remove a network that nobody uses; False = somebody does, and it stays as it is.

    The Hub's and the proxy's containers are taken off it. Gone already is a success. Docker
    refuses where a container was started on it in the same moment.
    """
    try:
        info = _inspect(client, network_id)
    except docker.errors.NotFound:
        return True
    guests = list(info.get("Containers") or {})
    if not all(_is_member(client, guest, str(info["Name"])) for guest in guests):
        return False
    for guest in guests:
        _leave(client, guest, network_id)
    try:
        client.api.remove_network(network_id)
    except docker.errors.NotFound:
        return True
    except docker.errors.APIError as error:
        if "active endpoints" not in explain(error):
            raise
        join(client, str(info["Name"]), guests)
        return False
    return True


def says_no_network(error: docker.errors.APIError) -> bool:
    """Whether the engine says that the network a container was made for is not there."""
    words = explain(error).lower()
    return error.status_code == 404 and "network" in words and "not found" in words


def _find(client: docker.DockerClient, spec: NetworkSpec) -> str | None:
    wanted = [*labels.selectors(spec.ledger, Kind.NETWORK), f"{labels.OWNER}={spec.owner}"]
    rows = cast("list[dict[str, Any]]", client.api.networks(filters={"label": wanted}))
    # more than one is there only if somebody made one by hand
    rows.sort(key=lambda row: (str(row.get("Created", "")), str(row["Id"])))
    return str(rows[0]["Name"]) if rows else None


def _make(
    client: docker.DockerClient,
    spec: NetworkSpec,
    routes: Callable[[docker.DockerClient], tuple[Route, ...]],
) -> str:
    name = network_name(spec.user, spec.ledger, spec.owner)
    refused: list[IPv4Network] = []
    for _ in range(TRIES):
        # asked again each time: what was refused has mostly gone to somebody by now
        rows = cast("list[dict[str, Any]]", client.api.networks())
        taken = [subnet for row in rows for subnet in subnets_of(_ipam(row))]
        known = routes(client)
        subnet = _next(spec, [*taken, *(route.subnet for route in known), *refused])
        if subnet is None:
            raise _exhausted(spec, len(taken), known)
        try:
            _create(client, name, subnet, spec, _mtu(rows))
        except docker.errors.APIError as error:
            words = explain(error)
            if error.status_code == 409 or "same bridge name" in words:
                return _made_meanwhile(client, spec, words)
            if "overlap" not in words:
                raise
            refused.append(subnet)
            continue
        return name
    raise EngineError(
        f"network {name}: Docker refused {TRIES} subnets of network_pool as overlapping, the "
        f"last one {refused[-1]}; choose another range",
        _USER_MESSAGE,
    )


def _next(spec: NetworkSpec, taken: list[IPv4Network]) -> IPv4Network | None:
    seed = int(digest("subnet", spec.owner)[:8], 16)
    return next(islice(free_subnets(spec.ranges, spec.prefix, taken, seed), 1), None)


def _create(
    client: docker.DockerClient,
    name: str,
    subnet: IPv4Network,
    spec: NetworkSpec,
    options: Mapping[str, str],
) -> None:
    client.api.create_network(
        name,
        driver="bridge",
        # engines before 25 else take a name twice, and a container can't say which it means
        check_duplicate=True,
        ipam={"Driver": "default", "Config": [{"Subnet": str(subnet)}]},
        labels=labels.network_labels(ledger=spec.ledger, user=spec.user, owner=spec.owner),
        options={_BRIDGE_NAME: bridge_name(spec.ledger, spec.owner), **options},
    )


def _made_meanwhile(client: docker.DockerClient, spec: NetworkSpec, words: str) -> str:
    """Name or bridge are taken: by another start of this user, or by something foreign."""
    found = _find(client, spec)
    if found is not None:
        return found
    raise EngineConflict(
        f"a network for {spec.user} can't be made: {words}. What has the name is not ours and "
        "left as it is",
        _USER_MESSAGE,
    )


def _exhausted(spec: NetworkSpec, taken: int, routes: Iterable[Route]) -> EngineError:
    pool = ", ".join(map(str, spec.ranges))
    why = "; ".join(covering(spec.ranges, routes)) or f"the engine uses {taken} subnets"
    return EngineError(
        f"no free /{spec.prefix} is left in network_pool ({pool}): {why}. Add a range that this "
        "machine does not use to c.GPUDockerSpawner.network_pool",
        _USER_MESSAGE,
    )


def _mtu(rows: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The default bridge's packet size: a daemon gives its setting to no other network."""
    for row in rows:
        mtu = (row.get("Options") or {}).get(_MTU)
        if row.get("Name") == "bridge" and mtu:
            return {_MTU: str(mtu)}
    return {}


def _ipam(row: Mapping[str, Any]) -> list[Any]:
    return list((row.get("IPAM") or {}).get("Config") or ())


def _inspect(client: docker.DockerClient, network: str) -> dict[str, Any]:
    return cast("dict[str, Any]", client.api.inspect_network(network))


def _has_no_network_of_its_own(info: Mapping[str, Any]) -> bool:
    """A container on the machine's network, or on another container's, can't be joined."""
    mode = str((info.get("HostConfig") or {}).get("NetworkMode", ""))
    return mode in ("host", "none") or mode.startswith("container:")


def _is_member(client: docker.DockerClient, container_id: str, network: str) -> bool:
    """Whether we joined a container to a network ourselves."""
    try:
        info = cast("dict[str, Any]", client.api.inspect_container(container_id))
    except docker.errors.NotFound:
        return True
    there: Mapping[str, Any] = (info.get("NetworkSettings") or {}).get("Networks") or {}
    return MEMBER in ((there.get(network) or {}).get("Aliases") or ())


def _leave(client: docker.DockerClient, container_id: str, network_id: str) -> None:
    try:
        client.api.disconnect_container_from_network(container_id, network_id, force=True)
    except docker.errors.NotFound:
        return
    except docker.errors.APIError as error:
        if "is not connected" not in explain(error):
            raise
