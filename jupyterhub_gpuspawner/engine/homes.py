"""Homes as an admin sees them: whose they are, how large, who uses them; and their removal.

A volume is a home of ours by its labels and by nothing else, least of all its name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import docker
import docker.errors

from ..errors import EngineConflict, EngineError
from . import labels
from .faults import explain, translate
from .labels import Kind


@dataclass(frozen=True, kw_only=True, slots=True)
class Home:
    """A volume that is somebody's home."""

    #: the volume's name
    name: str
    #: the user's name when it was made
    user: str
    #: owner id of the person
    owner: str
    #: id of the ledger whose installation made it
    ledger: str
    #: volume driver
    driver: str
    #: when it was made, as Docker writes times
    created: str
    #: bytes; None = the driver can't say
    size: int | None
    #: containers that have it, also ended ones
    containers: int


def list_homes(client: docker.DockerClient, limit: float | None = None) -> list[Home]:
    """Return all homes on the engine, of every ledger, by user and name.

    Docker measures each volume for it: minutes where there are many files. ``limit``: the seconds
    it may take; None = as any other question of this client. Blocks. Raises ``EngineError``.
    """
    api = client.api
    more = {} if limit is None else {"timeout": limit}
    try:
        # The SDK's own df() has images and containers measured too. Engines before 23 do so anyway.
        asked = api._get(api._url("/system/df"), params={"type": "volume"}, **more)
        answer = api._result(asked, json=True)
    except (docker.errors.DockerException, OSError) as error:
        raise _ours(error) from error
    volumes = cast("dict[str, Any]", answer).get("Volumes") or []
    homes = [_home(volume) for volume in volumes if _is_home(volume)]
    return sorted(homes, key=lambda home: (home.user, home.name))


def remove_home(
    client: docker.DockerClient, name: str, *, ledger: str = "", owner: str = ""
) -> None:
    """Remove a home with all that is in it. Never by force. Blocks.

    Parameters
    ----------
    ledger, owner:
        Whose it has to be; empty = nobody in particular. One of them has to be given.

    Raises
    ------
    EngineConflict
        It is no home, is somebody else's, or a container has it. Nothing happened.
    EngineError
        Docker does not answer, or says no.
    """
    assert ledger or owner
    try:
        volume = cast("dict[str, Any]", client.api.inspect_volume(name))
        found = volume.get("Labels") or {}
        wanted = {labels.KIND: Kind.HOME.value, labels.LEDGER: ledger, labels.OWNER: owner}
        if any(value and found.get(label) != value for label, value in wanted.items()):
            raise EngineConflict(f"volume {name} is not a home of this installation; left as it is")
        users = client.api.containers(all=True, filters={"volume": name})
        names = [str((one.get("Names") or [one["Id"][:12]])[0]).lstrip("/") for one in users]
        if names:
            raise EngineConflict(
                f"volume {name} is used by container {', '.join(sorted(names))}; stop that server "
                "first. Left as it is"
            )
        # without force: a container that got it in between keeps it
        client.api.remove_volume(name)
    except (docker.errors.DockerException, OSError) as error:
        raise _ours(error) from error


def _is_home(volume: dict[str, Any]) -> bool:
    return (volume.get("Labels") or {}).get(labels.KIND) == Kind.HOME.value


def _home(volume: dict[str, Any]) -> Home:
    found = volume["Labels"]
    usage = volume.get("UsageData") or {}
    size = usage.get("Size", -1)
    return Home(
        name=str(volume["Name"]),
        user=found.get(labels.USER, ""),
        owner=found.get(labels.OWNER, ""),
        ledger=found.get(labels.LEDGER, ""),
        driver=str(volume.get("Driver", "")),
        created=str(volume.get("CreatedAt", "")),
        size=size if size >= 0 else None,
        containers=max(0, usage.get("RefCount", 0)),
    )


def _ours(error: Exception) -> BaseException:
    if isinstance(error, docker.errors.NotFound):
        return EngineError(f"Docker answered 404: {explain(error)}")
    return translate(error)
