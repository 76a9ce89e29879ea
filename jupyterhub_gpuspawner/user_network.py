"""Each user's own network, as the spawner uses it: its options, and where a server is on it."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import docker.errors
from traitlets import Bool, Integer, List, TraitError, Unicode, validate
from traitlets.config import Configurable

from .engine import networks, subnets, volumes
from .engine.networks import NetworkSpec
from .errors import ConfigError, EngineError, GPUSpawnerError

#: DockerSpawner's default: the bridge that all containers of an engine share
SHARED = "bridge"

#: ranges that few sites use, and the size of a user's part of them
DEFAULT_POOL, DEFAULT_SIZE = ("10.213.0.0/16", "192.168.208.0/20"), 28

#: id of the Hub's own container by pool; None = the Hub runs in none of the engine's
_own: WeakKeyDictionary[Any, str | None] = WeakKeyDictionary()


class UserNetworkTraits(Configurable):
    """Networks of a spawner on one Docker engine."""

    network_name: Any
    server: Any
    internal_ssl: Any

    user_networks = Bool(
        True,
        config=True,
        help="""
        Whether each user's servers are on a network of their own.

        True: no other user's server can reach a port of theirs, and a user's own servers find
        each other by name (``server`` is the default one, ``server-NAME`` a named one). False,
        or a ``network_name`` of your own: all servers share one network, and each port that a
        user opens can be reached by every other user's server.

        .. versionadded:: 0.1
        """,
    )

    network_pool = List(
        Unicode(),
        list(DEFAULT_POOL),
        config=True,
        help="""
        Address ranges that users' networks are carved from, in order of preference.

        IPv4 ranges that your site does not use. What a route of this machine or another Docker
        network has is left out; where nothing is left no server can start, and the log says
        what is in the way. The default has room for 4,096 users at the same time, and 256 more.

        .. versionadded:: 0.1
        """,
    )

    network_size = Integer(
        DEFAULT_SIZE,
        config=True,
        help="""
        Prefix length of a user's network.

        24 to 29. 28 (the default) has room for 13 servers of one user, the Hub's and the
        proxy's container included where these are on it; 29 for 5.

        .. versionadded:: 0.1
        """,
    )

    network_members = List(
        Unicode(),
        config=True,
        help="""
        Containers that are put on each user's network.

        Names or ids. Needed where the proxy runs in a container of the same engine, else it
        can't reach the servers. The Hub's own container is found without it. Empty (the
        default): Hub and proxy run on the machine itself, or in one container.

        .. versionadded:: 0.1
        """,
    )

    @validate("network_pool", "network_size")
    def _check_pool(self, proposal: Any) -> Any:
        is_pool = proposal.trait.name == "network_pool"
        pool = proposal.value if is_pool else ["10.0.0.0/8"]
        try:
            subnets.parse_pool(pool, subnets.NARROWEST if is_pool else proposal.value)
        except ConfigError as error:
            raise TraitError(str(error)) from None
        return proposal.value

    async def user_network(self, ledger: str) -> str | None:
        """Have the user's network on the engine; its name. None: servers share a network."""
        if not self.user_networks or self.network_name != SHARED:
            return None
        spawner: Any = self
        user = spawner.user
        owner = volumes.owner_id(user_id=user.id, created=user.created, hub=spawner.hub_name)
        spec = NetworkSpec(
            ledger=ledger,
            owner=owner,
            user=user.name,
            ranges=subnets.parse_pool(self.network_pool, self.network_size),
            prefix=self.network_size,
            members=await self._members(),
        )
        # not in turn with the server's other calls: the home is looked for meanwhile
        name: str = await spawner.pool.run(
            f"network {owner}",
            lambda client: networks.ensure_network(client, spec),
            timeout=spawner.patience,
        )
        return name

    async def _members(self) -> tuple[str, ...]:
        pool = self.pool  # type: ignore[attr-defined]
        if pool not in _own:
            _own[pool] = await pool.run("own container", networks.own_container)
        own = _own[pool]
        return (*self.network_members, *([own] if own else ()))

    async def rejoin(self, container_id: str) -> None:
        """Have Hub and proxy on the network of a server that ran before them. Never raises."""
        spawner: Any = self
        if not self.user_networks or not container_id:
            return
        try:
            members = await self._members()
            if members:
                await spawner.engine(networks.join_where, container_id, members)
        except (GPUSpawnerError, docker.errors.DockerException) as error:
            spawner.log.warning("%s: its network is not joined: %s", spawner._log_name, error)

    # -- where the server is ---------------------------------------------------------------

    def get_network_ip(self, network_settings: dict[str, Any]) -> str:
        """The server's address: on the configured network, else on its user's."""
        there: dict[str, Any] = network_settings["Networks"]
        if self.network_name in there:
            return str(there[self.network_name]["IPAddress"])
        for name in sorted(there):
            if there[name].get("IPAddress"):
                return str(there[name]["IPAddress"])
        raise EngineError("the container is on no network")

    def url_of(self, host: str, port: int) -> str:
        """The server's URL at an address of its container."""
        shown = f"[{host}]" if ":" in host else host
        return f"{'https' if self.internal_ssl else 'http'}://{shown}:{port}"

    async def get_url(self) -> str:
        """Where the server is. Never raises: the Hub would not start."""
        spawner: Any = self
        try:
            ip, port = await spawner.get_ip_and_port()
            if not ip:
                raise EngineError("the container has no address")
            return self.url_of(str(ip), int(port))
        except Exception as error:  # noqa: BLE001 - an aborted Hub start is worse than an old URL
            spawner.log.warning("%s: address not known: %s", spawner._log_name, error)
            return str(self.server.url) if self.server is not None else ""
