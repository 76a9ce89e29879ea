"""Homes: who owns a volume, what it is called, and how it is found again.

A user name says little: it can hold any character, it can be changed, and after a user was
deleted somebody else may get the same one. So a home carries an owner id, is found by it, and
its name only has to be readable and free of collisions.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, cast

import docker

from ..errors import EngineConflict
from . import labels
from .labels import Kind

#: a name is a DNS label as well: a container is reached by it on its network
LONGEST_NAME = 63
_LONGEST_SLUG = 24
_NOT_SLUG = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class HomeVolume:
    """A user's home on an engine."""

    #: the volume's name
    name: str
    #: False = it was there before
    created: bool


def owner_id(*, user_id: int, created: datetime | None, hub: str) -> str:
    """Return the id of the person behind a JupyterHub user, 32 hex digits.

    The Hub's database may give the id of a deleted user to the next new one (SQLite does), so
    the time of creation is part of it.

    Parameters
    ----------
    user_id:
        Primary key of the user in the Hub's database.
    created:
        The user's time of creation, as the Hub's database has it; naive means UTC. None for
        users older than that column.
    hub:
        Id of the Hub's installation, e.g. the ledger's id. Homes are lost from sight when it
        changes.
    """
    moment = "-"
    if created is not None:
        if created.tzinfo is not None:
            created = created.astimezone(timezone.utc).replace(tzinfo=None)
        moment = created.isoformat(timespec="microseconds")
    return digest(hub, str(user_id), moment)[:32]


def home_volume_name(username: str, owner: str) -> str:
    """Return a name for a new home: ``gpus-home-<slug>-<12 hex digits of the owner>``."""
    return f"gpus-home-{slug(username)}-{digest('home', owner)[:12]}"


def container_name(username: str, server: str, hub: str) -> str:
    """Return the name of a server's container, the same at each start.

    ``gpus-<slug>[-<slug>]-<12 hex digits>``; different for names that differ only in case or
    in characters that a container's name can't have.
    """
    readable = slug(username)
    if server:
        readable = f"{readable[:18]}-{slug(server)[:18]}"
    return f"gpus-{readable}-{digest('server', hub, username, server)[:12]}"


def slug(text: str) -> str:
    """Return what is readable of ``text``: 1 to 24 of ``a-z0-9-``, starting with one of a-z0-9."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")
    return _NOT_SLUG.sub("-", plain.lower()).strip("-")[:_LONGEST_SLUG].rstrip("-") or "x"


def ensure_home(
    client: docker.DockerClient,
    *,
    username: str,
    owner: str,
    ledger: str,
    driver: str = "local",
    options: Mapping[str, str] | None = None,
) -> HomeVolume:
    """Find the home of ``owner``, or make it. May be repeated. Blocks: run it in the pool.

    A home keeps the name it was made with, so a renamed user keeps it. ``driver`` and ``options``
    (see :func:`driver_options`) are those of a new one.

    Raises
    ------
    EngineConflict
        A volume with the wanted name belongs to somebody else, or to nobody we know. It is
        left as it is.
    """
    found = find_homes(client, owner)
    if found:
        return HomeVolume(name=found[0], created=False)
    name = home_volume_name(username, owner)
    wanted = labels.home_labels(ledger=ledger, user=username, owner=owner)
    # Docker answers a create for an existing name with the existing volume: its labels say
    # whose it is. Nothing can come between, unlike with a look before the create.
    volume = cast(
        "dict[str, Any]",
        client.api.create_volume(
            name=name,
            driver=driver,
            # none, not {}: the socket proxy lets through only volumes without options
            driver_opts=driver_options(options, name) if options else None,
            labels=wanted,
        ),
    )
    check_home(name, volume.get("Labels"), owner)
    return HomeVolume(name=name, created=True)


def driver_options(options: Mapping[str, str], name: str) -> dict[str, str]:
    """Return options of a volume driver with ``{volume}`` replaced by the volume's name."""
    return {key: text.replace("{volume}", name) for key, text in options.items()}


def find_homes(client: docker.DockerClient, owner: str) -> list[str]:
    """Return the names of the volumes that are the home of ``owner``, oldest first.

    More than one is there only if somebody made one by hand.
    """
    selectors = [f"{labels.OWNER}={owner}", f"{labels.KIND}={Kind.HOME.value}"]
    answer = cast("dict[str, Any]", client.api.volumes(filters={"label": selectors}))
    volumes: list[dict[str, Any]] = answer.get("Volumes") or []
    volumes.sort(key=lambda volume: (str(volume.get("CreatedAt", "")), str(volume["Name"])))
    return [str(volume["Name"]) for volume in volumes]


def check_home(name: str, found: Mapping[str, str] | None, owner: str) -> None:
    """Refuse (EngineConflict) a volume whose labels don't say that it is the home of ``owner``."""
    have = found or {}
    if have.get(labels.KIND) == Kind.HOME.value and have.get(labels.OWNER) == owner:
        return
    whose = have.get(labels.OWNER) or "nobody (it has no owner label)"
    raise EngineConflict(
        f"volume {name}: wanted as home of owner {owner}, but it belongs to {whose}; "
        f"left as it is. Rename or remove it by hand",
        "Your home directory can't be made: something else has its name. "
        "Please tell your administrator.",
    )


def digest(*parts: str) -> str:
    """Return a hex digest; the lengths keep ("ab", "c") and ("a", "bc") apart."""
    data = b"".join(
        b"%d:%b" % (len(raw), raw)
        for raw in (part.encode("utf-8", "surrogatepass") for part in parts)
    )
    return hashlib.sha256(data).hexdigest()
