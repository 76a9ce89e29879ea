"""All facts of a site, each with a time limit; what can't be had is Unknown, with the reason."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import docker

from ..discovery.facts import nvidia_hardware
from ..engine.connect import connect
from ..errors import ConfigError
from ..swarmspawner import GPUSwarmSpawner
from . import (
    checks_network,
    gather_config,
    gather_engine,
    gather_machine,
    gather_store,
    gather_swarm,
)
from .facts import Facts
from .finding import Unknown

#: seconds for an answer of the engine
_TIMEOUT = 30.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What the admin asks to be looked at."""

    #: the Hub's configuration; empty = the usual file, where it is there
    hub_config: str = ""
    #: the engine; None = DOCKER_HOST, else the local socket
    engine: str | None = None
    #: containers may be started, to look into images and to try the Hub's address
    containers: bool = True


def gather(wanted: Wanted, tell: Callable[[str], None]) -> tuple[Facts, str]:
    """The facts, and what is wrong with the configuration itself (empty = nothing).

    ``tell`` hears what takes long.
    """
    url = wanted.engine or os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    values: dict[str, Any] = {
        "engine_url": url,
        "local": urlsplit(url).scheme in ("unix", "http+unix"),
        "environment": dict(os.environ),
        "versions": _versions(),
        "proxy_version": gather_machine.proxy_version(),
        "addresses": gather_machine.addresses(),
        "routes": gather_machine.routes(),
        "mtus": gather_machine.mtus(),
        "clock_set": gather_machine.clock_set(),
        "systemd": gather_machine.systemd(),
        "hardware": nvidia_hardware(),
        "docker_proxies": gather_config.docker_proxies(Path.home()),
    }
    trouble = _configuration(wanted, values)
    _engine(wanted, values, tell)
    _devices(values)
    _disks(values)
    return Facts(**values), trouble


def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in ("jupyterhub", "dockerspawner", "docker"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def _configuration(wanted: Wanted, values: dict[str, Any]) -> str:
    """What the configuration says; returns what is wrong with it."""
    path = Path(wanted.hub_config or gather_config.DEFAULT)
    unknown: Unknown | None = None
    trouble = ""
    if not wanted.hub_config and not path.is_file():
        unknown = Unknown(why=f"there is no {path} here")
    else:
        try:
            values.update(gather_config.facts(gather_config.load(path)))
        except ConfigError as error:
            trouble = str(error)
            unknown = Unknown(why="the Hub's configuration can't be used")
    if unknown is not None:
        for name in ("config", "spawner", "options", "ledger", "hub_database", "modes"):
            values[name] = unknown
        values["certificate"] = values["bind_sources"] = values["toolkits"] = unknown
        return trouble
    _stores(values)
    hub = values["config"].get("JupyterHub", {})
    values["certificate"] = gather_config.certificate(
        str(hub.get("ssl_cert") or ""), str(hub.get("ssl_key") or "")
    )
    spawner = values["spawner"]
    values["bind_sources"] = (
        spawner if isinstance(spawner, Unknown) else gather_config.bind_sources(spawner)
    )
    values["toolkits"] = spawner if isinstance(spawner, Unknown) else None
    if isinstance(spawner, GPUSwarmSpawner):
        values["toolkits"] = gather_swarm.toolkits(spawner.scheduler_url, Path(spawner.token_file))
    return trouble


def _stores(values: dict[str, Any]) -> None:
    hub, options = values["config"].get("JupyterHub", {}), values["options"]
    values["hub_database"] = gather_store.hub(
        str(hub.get("db_url") or "sqlite:///jupyterhub.sqlite")
    )
    secret = Path(str(hub.get("cookie_secret_file") or "jupyterhub_cookie_secret"))
    private = [secret]
    if isinstance(options, Unknown):
        values["ledger"] = options
    else:
        values["ledger"] = gather_store.ledger(options.ledger)
        private += [options.state_path, options.token_path]
    for name in ("hub_database", "ledger"):
        database = values[name]
        if not isinstance(database, Unknown) and database.name.startswith("/"):
            private.append(Path(database.name))
    values["modes"] = gather_machine.modes(dict.fromkeys(private))


def _engine(wanted: Wanted, values: dict[str, Any], tell: Callable[[str], None]) -> None:
    """What the engine says, and what its containers find."""
    try:
        client = connect(wanted.engine, _TIMEOUT)
    except gather_engine.TROUBLE as error:
        unknown = gather_engine.why(error)
        names = ("info", "version", "networks", "engine_clock", "owner", "images", "reach")
        values.update(dict.fromkeys(names, unknown))
        return
    try:
        values.update(gather_engine.ask(client))
        _containers(client, wanted, values, tell)
    finally:
        client.close()


def _containers(
    client: docker.DockerClient,
    wanted: Wanted,
    values: dict[str, Any],
    tell: Callable[[str], None],
) -> None:
    spawner = values["spawner"]
    if not wanted.containers or isinstance(spawner, Unknown):
        reason = (
            spawner
            if isinstance(spawner, Unknown)
            else Unknown(why="no container was to be started")
        )
        values["images"] = values["reach"] = reason
        return
    names = gather_config.images(spawner)
    tell(f"looking into {', '.join(names)}")
    values["images"] = gather_engine.look_at(
        client,
        names,
        hub=values["versions"]["jupyterhub"] or "?",
        home_path=str(spawner.home_path or "/home/jovyan"),
    )
    there = values["images"]
    image = None
    if not isinstance(there, Unknown):
        image = next((name for name, one in there.items() if one is not None), None)
    facts = Facts(config=values["config"])
    host, port = checks_network.hub_address(facts)
    if checks_network.is_loopback(host):
        # hub.address says so
        values["reach"] = ""
        return
    tell(f"trying {host}:{port} from a container")
    values["reach"] = gather_engine.reach(client, image, host, port)


def _devices(values: dict[str, Any]) -> None:
    elsewhere = _elsewhere(values)
    if elsewhere is not None:
        values["local"] = False
        for name in ("nvml", "toolkit", "toolkit_config", "cdi_folders", "cdi_specs"):
            values[name] = elsewhere
        return
    values["nvml"] = gather_machine.nvml()
    values["toolkit"] = gather_machine.toolkit()
    values["toolkit_config"] = gather_machine.toolkit_config()
    info = values["info"]
    if isinstance(info, Unknown):
        values["cdi_folders"] = values["cdi_specs"] = info
    else:
        folders = [str(one) for one in info.get("CDISpecDirs") or ()]
        values["cdi_folders"], values["cdi_specs"] = gather_machine.cdi(folders)


def _elsewhere(values: dict[str, Any]) -> Unknown | None:
    """Why the engine's files and devices can't be seen from here; None = they can."""
    if not values["local"]:
        return Unknown(why="the engine is on another machine")
    info = values["info"]
    if isinstance(info, Unknown):
        return None
    here, there = os.uname().nodename, str(info.get("Name") or "")
    # a Hub in a container has the socket, and files of its own
    if there and there.partition(".")[0] != here.partition(".")[0]:
        return Unknown(why=f"the engine calls its machine {there}, this one is {here}")
    return None


def _disks(values: dict[str, Any]) -> None:
    paths = []
    info = values["info"]
    if values["local"] and not isinstance(info, Unknown) and info.get("DockerRootDir"):
        paths.append(str(info["DockerRootDir"]))
    for name in ("hub_database", "ledger"):
        database = values[name]
        if not isinstance(database, Unknown) and database.name.startswith("/"):
            here = Path(database.name)
            paths.append(str(here if here.exists() else here.parent))
    values["disks"] = gather_machine.disks(dict.fromkeys(paths))
