"""``storage`` and ``storage delete``: the homes of all users on an engine."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import docker
import docker.errors

from ..engine.connect import connect
from ..engine.faults import translate
from ..engine.homes import Home, list_homes, remove_home
from ..engine.owner import engine_owner
from ..errors import GPUSpawnerError
from ..units import format_memory, parse_memory
from .command import OK, Argument, Command, CommandError, note, say, say_json, table
from .hub_users import HubUser, default_database, read_users

#: seconds: Docker measures every file of every volume
_TIMEOUT = 1800.0

_ENGINE = Argument(
    name="--engine URL",
    help="the Docker engine, such as unix:///var/run/docker.sock. Default: DOCKER_HOST, else the "
    "local socket",
)
_HUB = (
    Argument(
        name="--hub-db URL",
        help="the Hub's database, which knows the users: c.JupyterHub.db_url. Default: "
        "jupyterhub.sqlite in GPUS_STATE_DIR, or in var/",
    ),
    Argument(
        name="--hub-name NAME",
        help="hub_name of the spawner, where it was changed",
        more={"default": "jupyterhub"},
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Known:
    """A home, and what else is known about it."""

    home: Home
    #: its user in the Hub's database; None = there is none, or the database was not read
    user: HubUser | None
    #: whether the database was read
    asked: bool
    #: the installation that owns the engine made it
    ours: bool

    @property
    def name(self) -> str:
        return self.user.name if self.user else self.home.user

    @property
    def last_use(self) -> str:
        if self.home.containers:
            return "now"
        if self.user is None:
            return "?"
        moment = self.user.last_activity
        return moment.strftime("%Y-%m-%d") if moment else "never"

    @property
    def remarks(self) -> str:
        said = []
        if not self.ours:
            said.append("of another installation")
        if self.asked and self.ours and self.user is None:
            said.append("user deleted")
        return ", ".join(said)

    def as_json(self) -> dict[str, Any]:
        home, moment = self.home, self.user.last_activity if self.user else None
        return {
            "volume": home.name,
            "user": self.name,
            "owner": home.owner,
            "ours": self.ours,
            "user_exists": self.user is not None if self.asked else None,
            "driver": home.driver,
            "created": home.created,
            "bytes": home.size,
            "containers": home.containers,
            "last_activity": _iso(moment),
        }


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="seconds") + "Z" if moment else None


def _look(arguments: argparse.Namespace, client: docker.DockerClient) -> list[_Known]:
    users: dict[str, HubUser] | None = None
    try:
        users = read_users(arguments.hub_db or default_database(), arguments.hub_name)
    except CommandError as error:
        if arguments.hub_db:
            raise
        note(f"last use and deleted users are not known: {error}")
    owner = _owner(client)
    return [
        _Known(
            home=home,
            user=(users or {}).get(home.owner),
            asked=users is not None,
            ours=owner is not None and home.ledger == owner,
        )
        for home in list_homes(client)
    ]


def _owner(client: docker.DockerClient) -> str | None:
    try:
        return engine_owner(client)
    except (docker.errors.DockerException, OSError) as error:
        raise translate(error) from error


def _connect(arguments: argparse.Namespace) -> docker.DockerClient:
    try:
        return connect(arguments.engine, _TIMEOUT)
    except (docker.errors.DockerException, OSError) as error:
        raise translate(error) from error


def _size(home: Home) -> str:
    return "?" if home.size is None else format_memory(home.size)


def _list(arguments: argparse.Namespace) -> int:
    try:
        limit = parse_memory(arguments.warn) if arguments.warn else None
    except ValueError as error:
        raise CommandError(f"--warn: {error}") from None
    client = _connect(arguments)
    try:
        found = _look(arguments, client)
    finally:
        client.close()
    found.sort(key=lambda one: (one.name, one.home.name))
    if arguments.json:
        say_json([one.as_json() for one in found])
    else:
        rows = [
            (one.name, _size(one.home), one.last_use, one.home.name, one.remarks) for one in found
        ]
        say(table(("user", "size", "last use", "volume", ""), rows))
        total = sum(one.home.size or 0 for one in found)
        say(f"{len(found)} homes, {format_memory(total)}")
    if limit is not None:
        for one in found:
            if (one.home.size or 0) > limit:
                more = f"{_size(one.home)}, more than {format_memory(limit)}"
                note(f"warning: the home of {one.name!r} has {more}")
    return OK


def _delete(arguments: argparse.Namespace) -> int:
    client = _connect(arguments)
    try:
        known = {one.home.name: one for one in _look(arguments, client)}
        chosen = [_deletable(name, known) for name in dict.fromkeys(arguments.volume)]
        for one in chosen:
            note(
                f"{one.home.name}: home of {one.name!r}, {_size(one.home)}, last use {one.last_use}"
            )
        if not arguments.yes:
            _confirm(len(chosen))
        deleted = []
        try:
            for one in chosen:
                remove_home(client, one.home.name, ledger=one.home.ledger)
                deleted.append(one.home.name)
        except GPUSpawnerError as error:
            done = f"; deleted before: {', '.join(deleted)}" if deleted else ""
            raise CommandError(f"{error}{done}") from error
    finally:
        client.close()
    if arguments.json:
        say_json({"deleted": deleted})
    else:
        for name in deleted:
            say(f"deleted {name}")
    return OK


def _deletable(name: str, known: dict[str, _Known]) -> _Known:
    one = known.get(name)
    if one is None or not one.ours:
        raise CommandError(f"volume {name} is not a home of this installation; nothing was deleted")
    if one.home.containers:
        raise CommandError(
            f"volume {name} is used by a container of {one.name!r}; stop that server first. "
            "Nothing was deleted"
        )
    return one


def _confirm(count: int) -> None:
    what = "this home" if count == 1 else f"these {count} homes"
    if not sys.stdin.isatty():
        raise CommandError("nothing was deleted: without a terminal it wants --yes")
    sys.stderr.write(f"Delete {what} with all files in it, for ever? Type yes: ")
    sys.stderr.flush()
    if sys.stdin.readline().strip() != "yes":
        raise CommandError("nothing was deleted")


COMMANDS = (
    Command(
        name="storage",
        help="List the homes of all users: whose, how large, when last used.\n\n"
        "Last use is when the Hub last heard of the user, or now where a container has the home. "
        "Docker measures each volume for this, which may take minutes.",
        arguments=(
            Argument(name="--warn SIZE", help="warn of each home that is larger, such as 50G"),
            _ENGINE,
            *_HUB,
        ),
        run=_list,
    ),
    Command(
        name="storage delete",
        help="Delete homes, by the names of their volumes, after a question.\n\n"
        "Only homes that the installation made which owns the engine, and none that a container "
        "has, be it stopped. If one of them can't be deleted none is. Files can't be had back.",
        arguments=(
            Argument(
                name="VOLUME", help="name of a volume, as storage shows it", more={"nargs": "+"}
            ),
            Argument(name="--yes", help="don't ask"),
            _ENGINE,
            *_HUB,
        ),
        run=_delete,
    ),
)
