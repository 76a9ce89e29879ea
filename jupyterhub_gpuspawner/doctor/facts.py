"""What is known of a site. Each fact is a value or :class:`~.finding.Unknown`, with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from .finding import Unknown

_NOT_ASKED = Unknown(why="it was not asked for")


@dataclass(frozen=True, kw_only=True, slots=True)
class Disk:
    """A file system, by the path that asked for it."""

    #: bytes in all, and free for the user who asks
    total: int
    free: int
    #: files in all, and how many more there can be; 0 in all = the file system doesn't count them
    inodes: int
    free_inodes: int
    #: such as ``ext4`` or ``nfs4``; empty = not known
    kind: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class CDISpec:
    """A file of CDI devices on this machine."""

    #: fully qualified names that it defines
    names: tuple[str, ...] = ()
    #: paths of this machine that it brings into containers and that are not there
    missing: tuple[str, ...] = ()
    #: why it can't be read; empty = it can
    error: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Certificate:
    """The certificate that the Hub's proxy shows."""

    #: days until it ends; below 0 = it has ended
    days: float
    #: it belongs to the key
    fits_key: bool
    #: host names in it
    names: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Database:
    """A database that was asked."""

    #: where, without a password
    name: str
    #: why it can't be used; empty = it can
    error: str = ""
    #: the ledger's id, where it is a ledger
    ledger: str = ""
    #: revision of its tables, and the one that the programs here want; empty = not made yet
    revision: str = ""
    wanted: str = ""
    #: settings of a PostgreSQL server, such as ``fsync``
    settings: Mapping[str, str] = field(default_factory=dict)
    #: its clock minus this machine's, in seconds; None = it has none of its own
    clock: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """Everything that the checks look at. What is in a field may be Unknown instead."""

    #: Docker's ``/info`` and ``/version``
    info: Any = _NOT_ASKED
    version: Any = _NOT_ASKED
    #: where the engine is asked, such as ``unix:///var/run/docker.sock``
    engine_url: str = "unix:///var/run/docker.sock"
    #: the engine's machine is this one
    local: bool = True
    #: Docker's networks, as ``/networks`` lists them
    networks: Any = _NOT_ASKED
    #: id of the ledger that owns the engine; None = nobody
    owner: Any = _NOT_ASKED
    #: the engine's clock minus ours, in seconds
    engine_clock: Any = _NOT_ASKED
    #: the Hub's configuration: section -> option -> value
    config: Any = _NOT_ASKED
    #: the spawner and the scheduler's options that it makes
    spawner: Any = _NOT_ASKED
    options: Any = _NOT_ASKED
    #: variables of this process
    environment: Mapping[str, str] = field(default_factory=dict)
    #: proxies that ``~/.docker/config.json`` gives to containers
    docker_proxies: Any = _NOT_ASKED
    #: distribution -> version; None = not installed
    versions: Any = _NOT_ASKED
    #: of ``configurable-http-proxy``; None = not installed
    proxy_version: Any = _NOT_ASKED
    #: IPv4 and IPv6 addresses of this machine
    addresses: Any = _NOT_ASKED
    #: :class:`~..engine.subnets.Route` of this machine
    routes: Any = _NOT_ASKED
    #: interface -> MTU
    mtus: Any = _NOT_ASKED
    #: why a container can't reach the Hub's address; empty = it can
    reach: Any = _NOT_ASKED
    #: what NVML says (:mod:`~..discovery.nvml_probe`); None = no driver
    nvml: Any = _NOT_ASKED
    #: number of NVIDIA GPUs on the bus
    hardware: int = 0
    #: CDI folder -> whether it is there; file -> :class:`CDISpec`
    cdi_folders: Any = _NOT_ASKED
    cdi_specs: Any = _NOT_ASKED
    #: version of NVIDIA's container toolkit; None = not installed
    toolkit: Any = _NOT_ASKED
    #: text of its configuration
    toolkit_config: Any = _NOT_ASKED
    #: node of a Swarm -> what follows from its toolkit (:class:`~..discovery.toolkit.Verdict` as
    #: a dict), None where nobody has looked; None = this is no Swarm
    toolkits: Any = _NOT_ASKED
    #: path -> :class:`Disk`
    disks: Any = _NOT_ASKED
    #: the kernel says that this machine's clock is set from elsewhere
    clock_set: Any = _NOT_ASKED
    #: the first process is systemd
    systemd: bool = True
    #: the Hub's database, and the ledger's
    hub_database: Any = _NOT_ASKED
    ledger: Any = _NOT_ASKED
    #: path -> mode, of what only the Hub's user may read
    modes: Any = _NOT_ASKED
    #: None = the Hub's proxy shows none
    certificate: Any = _NOT_ASKED
    #: image -> :class:`~.image_facts.ImageFacts`; None = not on the engine
    images: Any = _NOT_ASKED
    #: folders of this machine that servers mount -> whether they are there
    bind_sources: Any = _NOT_ASKED

    def unknown(self, name: str) -> Unknown | None:
        """Why a fact is not known; None = it is."""
        value = getattr(self, name)
        return value if isinstance(value, Unknown) else None

    def setting(self, section: str, name: str, default: Any) -> Any:
        """An option of the Hub's configuration."""
        return self.config.get(section, {}).get(name, default)


#: the names of the facts
NAMES = tuple(one.name for one in fields(Facts))
