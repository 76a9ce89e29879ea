"""``setup(c)``: everything a Hub needs for GPU servers, in one call at the end of its config.

::

    from jupyterhub_gpuspawner.hub import setup
    setup(c)

It adds the scheduler service and its roles, points the spawner at it, and sets what a Hub with a
queue needs to be different. Services, roles and values that the config has are kept.

With ``c.GPUSpawnerMixin.scheduler_url`` the Hub starts no scheduler: it uses the one there, which
has options of its own (``c.GPUScheduler`` is not read by it).
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from traitlets.config import Config, LazyConfigValue

from . import culler, external
from .client import BOOT_ID
from .config_check import check_spawner, spawner_class
from .errors import ConfigError
from .kinds import one_line
from .profiles import parse_profiles
from .service.options import DEFAULT_PORT, PREFIX, GPUScheduler
from .service.scopes import CUSTOM_SCOPES
from .service.service_token import ENVIRONMENT as TOKEN_VARIABLE
from .service.service_token import service_token
from .swarmspawner import GPUSwarmSpawner

SERVICE = "gpus"
CULLER = "idle-culler"
_OPTIONS_FILE = "scheduler.json"
_only_looking: ContextVar[bool] = ContextVar("only_looking", default=False)

#: what the service may do at the Hub: read who has which server, and start a server again after
#: a restart of the Hub
SERVICE_SCOPES = ("list:users", "read:users:name", "read:servers", "servers")
#: what the culler may do: see who is idle, and stop servers
CULLER_SCOPES = ("list:users", "read:users:activity", "read:servers", "delete:servers")
#: what users may do: open the service's page
USER_SCOPE = f"access:services!service={SERVICE}"

#: variables that the service needs as well; the Hub does not pass its own environment on. Some
#: machines have NVIDIA's driver library where only LD_LIBRARY_PATH leads to
PASSED_ON = (
    *("DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"),
    *("GPUS_SERVICE_TOKEN", "LD_LIBRARY_PATH"),
)

#: seconds between two questions to a server about what its user does
ACTIVITY_INTERVAL = 60.0
#: seconds between two questions to the scheduler about which servers are warned
WARNING_INTERVAL = 30.0

#: our versions of the Hub's pages
TEMPLATES = Path(__file__).parent / "hub_templates"

#: config sections that may hold a profile list
SPAWNERS = ("GPUSwarmSpawner", "GPUDockerSpawner", "GPUSpawnerMixin")


def setup(c: Any) -> None:
    """Add the scheduler service to a Hub's config ``c``. Call it last, once.

    A mistake in the config (a profile, an option) is one clear line, and the Hub does not
    start.
    """
    try:
        _setup(c)
    except ConfigError as error:
        # not an exception that traitlets would print with a traceback
        sys.exit(f"jupyterhub-gpuspawner: {one_line(error)}")


def _setup(c: Any) -> None:
    if any(one.get("name") == SERVICE for one in _listed(c.JupyterHub, "services")):
        raise ConfigError(f"a service called {SERVICE!r} is there already; call setup(c) once")
    _check_profiles(c)
    check_spawner(c)
    given = str(c.GPUSpawnerMixin.get("scheduler_url") or "")
    if not given:
        _match_engine(c)
    options = GPUScheduler(config=Config({"GPUScheduler": dict(c.GPUScheduler)}))
    config_file = options.state_path / _OPTIONS_FILE
    looking = _only_looking.get()
    token = "" if looking else _write(options, config_file, None if given else c.GPUScheduler)
    if given:
        url = external.origin(given)
        _add_service(c, url, external.service_entry())
        if not looking:
            external.announce(url + PREFIX, token)
    else:
        host, port = options.bind() if options.url else ("127.0.0.1", DEFAULT_PORT)
        url = f"http://{host}:{port}"
        _add_service(c, url, _managed(config_file))
    _add_roles(c)
    _point_spawners(c, url + PREFIX, options.token_path)
    _have_asked(c, "warning_interval", WARNING_INTERVAL)
    if options.idle().active:
        _have_asked(c, "activity_interval", ACTIVITY_INTERVAL)
    if options.cpu_idle_timeout is not None:
        _add_culler(c, url + PREFIX, options)
    _adapt_hub(c)


@contextmanager
def only_looking() -> Iterator[None]:
    """Within, ``setup(c)`` changes ``c`` and writes nothing: a configuration is looked at."""
    token = _only_looking.set(True)
    try:
        yield
    finally:
        _only_looking.reset(token)


def _write(options: GPUScheduler, config_file: Path, section: Any) -> str:
    """The files that a scheduler is started with; the token. Without ``section`` only its file."""
    try:
        options.state_path.mkdir(mode=0o700, parents=True, exist_ok=True)
        token = _make_token(options)
        if section is not None:
            _write_options(config_file, dict(section))
        return token
    except OSError as error:
        where = f"GPUScheduler.state_dir {options.state_path}, token_file {options.token_path}"
        raise ConfigError(f"{where}: {error.strerror or error}") from error


def _match_engine(c: Any) -> None:
    """Servers as Swarm services need a scheduler of the whole Swarm, and it needs them."""
    swarm = issubclass(spawner_class(c), GPUSwarmSpawner)
    if swarm and c.GPUScheduler.get("home_warning") is not None:
        raise ConfigError(
            "GPUScheduler.home_warning: homes are volumes of the Swarm's nodes, which are not "
            "measured; remove it"
        )
    found = c.GPUScheduler.get("discovery")
    if swarm and found is None:
        c.GPUScheduler.discovery = "swarm"
    elif swarm and found != "swarm":
        raise ConfigError(f"GPUScheduler.discovery is {found!r}; with gpu-swarm it must be 'swarm'")
    elif found == "swarm" and not swarm:
        raise ConfigError(
            "GPUScheduler.discovery is 'swarm': set c.JupyterHub.spawner_class = 'gpu-swarm'"
        )


def _make_token(options: GPUScheduler) -> str:
    try:
        return service_token(options.token_path)
    except ConfigError as error:
        raise ConfigError(f"GPUScheduler.token_file: {error}") from None


def _check_profiles(c: Any) -> None:
    swarm = issubclass(spawner_class(c), GPUSwarmSpawner)
    for section in SPAWNERS:
        profiles = c[section].get("profile_list") if section in c else None
        if isinstance(profiles, LazyConfigValue):
            profiles = profiles.get_value([])
        if profiles:
            try:
                found = parse_profiles(profiles)
            except ConfigError as error:
                raise ConfigError(f"c.{section}.profile_list: {error}") from None
            beside = [profile.slug for profile in found.items if profile.has_companions()]
            if swarm and beside:
                raise ConfigError(
                    f"c.{section}.profile_list: {beside[0]}: companions: a Swarm has none; remove "
                    "them, or use gpu-docker"
                )


def _write_options(path: Path, section: dict[str, Any]) -> None:
    """The service's options as a file: it is another process and does not run this config."""
    values = {
        name: value.get_value([]) if isinstance(value, LazyConfigValue) else value
        for name, value in section.items()
    }
    values["state_dir"] = str(path.parent)
    try:
        text = json.dumps({"GPUScheduler": values}, indent=2)
    except TypeError as error:
        raise ConfigError(f"GPUScheduler: an option can't be written as JSON: {error}") from error
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    os.replace(draft, path)


def _managed(config_file: Path) -> dict[str, Any]:
    """What the list of services says of a scheduler that the Hub starts."""
    environment = {"GPUS_BOOT_ID": BOOT_ID, "GPUS_HUB_PID": str(os.getpid())}
    for name in PASSED_ON:
        if name in os.environ:
            environment[name] = os.environ[name]
    command = [sys.executable, "-m", "jupyterhub_gpuspawner.service", "--config", str(config_file)]
    return {"command": command, "environment": environment}


def _add_service(c: Any, url: str, more: dict[str, Any]) -> None:
    services = _listed(c.JupyterHub, "services")
    services.append(
        {
            "name": SERVICE,
            "url": url,
            **more,
            "oauth_no_confirm": True,
            # a session carries them where the user has them, e.g. a group's leader
            "oauth_client_allowed_scopes": list(CUSTOM_SCOPES),
            "display": True,
        }
    )
    c.JupyterHub.services = services


def _add_roles(c: Any) -> None:
    c.JupyterHub.custom_scopes = {**CUSTOM_SCOPES, **(c.JupyterHub.get("custom_scopes") or {})}
    roles = _listed(c.JupyterHub, "load_roles")
    roles.append({"name": SERVICE, "services": [SERVICE], "scopes": list(SERVICE_SCOPES)})
    for role in roles:
        # a second entry called "user" would keep the Hub from starting
        if role.get("name") == "user":
            scopes = role.get("scopes", ["self"])
            role["scopes"] = [*(scope for scope in scopes if scope != USER_SCOPE), USER_SCOPE]
            break
    else:
        roles.append({"name": "user", "scopes": ["self", USER_SCOPE]})
    c.JupyterHub.load_roles = roles


def _point_spawners(c: Any, url: str, token_file: Path) -> None:
    c.GPUSpawnerMixin.scheduler_url = url
    c.GPUSpawnerMixin.token_file = str(token_file)
    if c.GPUScheduler.get("language") and "language" not in c.GPUSpawnerMixin:
        c.GPUSpawnerMixin.language = c.GPUScheduler.language
    if "spawner_class" not in c.JupyterHub:
        c.JupyterHub.spawner_class = "gpu-docker"


def _have_asked(c: Any, interval: str, seconds: float) -> None:
    """Something is asked once in a while, unless the config says otherwise."""
    if not any(interval in c[name] for name in SPAWNERS if name in c):
        setattr(c.GPUDockerSpawner, interval, seconds)


def _add_culler(c: Any, url: str, options: GPUScheduler) -> None:
    """The stock service that stops servers without GPUs."""
    if importlib.util.find_spec("jupyterhub_idle_culler") is None:
        raise ConfigError(
            "GPUScheduler.cpu_idle_timeout is set, but jupyterhub-idle-culler is not installed: "
            "pip install 'jupyterhub-gpuspawner[idle]'"
        )
    services = _listed(c.JupyterHub, "services")
    if any(service.get("name") == CULLER for service in services):
        raise ConfigError(f"GPUScheduler.cpu_idle_timeout: there is a service {CULLER!r} already")
    timeout = max(int(options.cpu_idle_timeout), 1)
    services.append(
        {
            "name": CULLER,
            "command": [
                *(sys.executable, "-m", "jupyterhub_gpuspawner.culler", f"--timeout={timeout}"),
                f"--cull-every={min(max(timeout // 2, 1), 300)}",
            ],
            "environment": {
                "GPUS_HUB_PID": str(os.getpid()),
                culler.API: f"{url}api/",
                culler.TOKEN_FILE: str(options.token_path),
                # in place of the file
                **{name: os.environ[name] for name in (TOKEN_VARIABLE,) if name in os.environ},
            },
        }
    )
    c.JupyterHub.services = services
    roles = _listed(c.JupyterHub, "load_roles")
    roles.append({"name": CULLER, "services": [CULLER], "scopes": list(CULLER_SCOPES)})
    c.JupyterHub.load_roles = roles


def _adapt_hub(c: Any) -> None:
    """What a Hub with a queue needs to be different, where the config doesn't say."""
    wanted = {
        # users who wait in the queue count as starting: the limit would shut out the others
        "concurrent_spawn_limit": 0,
        # a restart or upgrade of the Hub must not end trainings
        "cleanup_servers": False,
    }
    for name, value in wanted.items():
        if name not in c.JupyterHub:
            setattr(c.JupyterHub, name, value)
    paths = c.JupyterHub.get("template_paths")
    paths = paths.get_value([]) if isinstance(paths, LazyConfigValue) else list(paths or ())
    # a site's own templates come first
    c.JupyterHub.template_paths = [*paths, str(TEMPLATES)]
    # The Hub would hold the answer to the spawn form back for 10 s: who waits in the queue shall
    # see the page with the position soon. Not 0: a refusal is then an answer, not a late event.
    settings = c.JupyterHub.get("tornado_settings")
    if isinstance(settings, LazyConfigValue):
        settings = settings.get_value({})
    c.JupyterHub.tornado_settings = {"slow_spawn_timeout": 1, **(settings or {})}


def _listed(section: Any, name: str) -> list[dict[str, Any]]:
    """The list that the config has under ``name``, whichever way it was written."""
    value = section.get(name)
    if isinstance(value, LazyConfigValue):
        value = value.get_value([])
    return [dict(item) for item in value or ()]
