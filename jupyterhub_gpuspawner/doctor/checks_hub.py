"""The Hub: its version, its limits, who may log in, what others may read. Pure."""

from __future__ import annotations

import stat
from collections.abc import Iterator

from .checks_engine import numbers
from .facts import Facts
from .registry import Found, check, error, warning

#: JupyterHub from, and before; DockerSpawner likewise
HUB, SPAWNER = ((5, 4), (7,)), ((14,), (15,))
#: seconds below which a busy machine misses its own limits
SHORT = 30


@check("hub.version", "versions")
def version(facts: Facts) -> Iterator[Found]:
    """JupyterHub and DockerSpawner are of versions that the tests know."""
    for name, (least, below) in (("jupyterhub", HUB), ("dockerspawner", SPAWNER)):
        have = facts.versions.get(name)
        wanted = f"{'.'.join(map(str, least))} or later, and before {below[0]}"
        if have is None:
            yield error(
                f"{name} is not installed beside this program",
                "The Hub can't use the spawner.",
                f"pip install jupyterhub-gpuspawner in the Hub's own environment ({name} {wanted})",
            )
        elif not least <= numbers(have) < below:
            yield error(
                f"{name} is {have}; it has to be {wanted}",
                "What the spawner relies on may be different.",
                f"pip install '{name}>={'.'.join(map(str, least))},<{below[0]}'",
            )


@check("hub.setup", "config")
def setup(facts: Facts) -> Iterator[Found]:
    """The configuration ends with setup(c)."""
    names = [service.get("name") for service in facts.setting("JupyterHub", "services", [])]
    if "gpus" not in names:
        yield error(
            "the Hub has no service 'gpus'",
            "There is no scheduler: every start with a GPU is refused.",
            "from jupyterhub_gpuspawner.hub import setup; setup(c) as the last line of the "
            "configuration, after c.JupyterHub.services",
        )


@check("hub.cleanup", "config")
def cleanup(facts: Facts) -> Iterator[Found]:
    """A restart of the Hub leaves servers running."""
    if facts.setting("JupyterHub", "cleanup_servers", True):
        yield error(
            "cleanup_servers is on",
            "Every restart of the Hub ends all servers, and the trainings in them.",
            "c.JupyterHub.cleanup_servers = False",
        )


@check("hub.spawn-limit", "config")
def spawn_limit(facts: Facts) -> Iterator[Found]:
    """Users who wait in the queue don't shut out others."""
    limit = facts.setting("JupyterHub", "concurrent_spawn_limit", 100)
    if limit:
        yield error(
            f"concurrent_spawn_limit is {limit}",
            "Users who wait for a GPU count as starting: with so many of them nobody can start a "
            "server, not even without a GPU.",
            "c.JupyterHub.concurrent_spawn_limit = 0, which setup(c) sets where you say nothing",
        )
    active = facts.setting("JupyterHub", "active_server_limit", 0)
    if active:
        yield warning(
            f"active_server_limit is {active}",
            "Servers that wait in the queue count as active.",
            "c.JupyterHub.active_server_limit = 0; limits of GPUs are c.GPUScheduler's",
        )


@check("hub.failure-limit", "config", "spawner")
def failure_limit(facts: Facts) -> Iterator[Found]:
    """The Hub does not end because some starts failed."""
    limit = facts.setting("Spawner", "consecutive_failure_limit", 0) or facts.setting(
        type(facts.spawner).__name__, "consecutive_failure_limit", 0
    )
    if 0 < int(limit or 0) < 20:
        yield warning(
            f"consecutive_failure_limit is {limit}",
            "So many starts that fail one after the other, of one user with a broken image, say, "
            "end the Hub.",
            "c.Spawner.consecutive_failure_limit = 0",
        )


@check("hub.time-limits", "spawner")
def time_limits(facts: Facts) -> Iterator[Found]:
    """Starts have at least 30 s."""
    for name in ("start_timeout", "http_timeout"):
        seconds = getattr(facts.spawner, name, SHORT)
        if 0 < seconds < SHORT:
            yield warning(
                f"{name} is {seconds} s",
                "When the machine is busy, starts that would have worked are given up.",
                f"c.Spawner.{name} = 120",
            )


@check("hub.login", "config")
def login(facts: Facts) -> Iterator[Found]:
    """Not everybody is let in without a password."""
    cls = facts.setting("JupyterHub", "authenticator_class", "")
    name = cls if isinstance(cls, str) else getattr(cls, "__name__", "")
    password = facts.setting("DummyAuthenticator", "password", "")
    if "dummy" in name.lower() and not password:
        yield error(
            "everybody may log in as anybody (DummyAuthenticator)",
            "Also as an admin, who may read everybody's files.",
            "GPUS_LOGIN of docs/howto/log-in.md",
        )


@check("hub.private-files", "modes")
def private_files(facts: Facts) -> Iterator[Found]:
    """Secrets of the Hub can be read by its own user only."""
    for path, mode in facts.modes.items():
        if mode is not None and stat.S_IMODE(mode) & 0o077:
            yield error(
                f"{path} can be read by others (mode {stat.S_IMODE(mode):04o})",
                "With the cookie secret or a token one is any user; the database has tokens too.",
                f"chmod go= {path}",
                about=path,
            )
