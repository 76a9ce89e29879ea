"""The volumes of a server, as options: the home, what groups share, and what a delete does."""

from __future__ import annotations

from typing import Any

import docker.errors
from traitlets import Bool, Dict, TraitError, Unicode, validate
from traitlets.config import Configurable

from .engine import homes
from .engine import volumes as volume_names
from .errors import GPUSpawnerError
from .kinds import AbsolutePath
from .profiles import ResolvedProfile
from .profiles.mounts import wrong_volume


class StorageTraits(Configurable):
    """Homes and group volumes of a spawner."""

    name: Any
    user: Any
    log: Any
    engine: Any
    hub_name: Any
    _groups: Any
    _log_name: Any
    _volumes_to_binds: Any
    volumes: Any
    mounts: Any

    home_path = AbsolutePath(
        "/home/jovyan",
        config=True,
        help="""
        Where the user's home volume is in the container.

        A path. Each user has a named volume of their own, labelled with the owner's id; a user
        created again under the same name does not get the old one. Empty = no home volume, and
        files are lost at each stop.

        .. versionadded:: 0.1
        """,
    )

    home_driver = Unicode(
        "local",
        config=True,
        help="""
        Volume driver of the users' homes.

        A name; on a Swarm the driver has to be on every node. A home that is there keeps the
        driver it was made with.

        .. versionadded:: 0.2
        """,
    )

    home_options = Dict(
        value_trait=Unicode(),
        key_trait=Unicode(),
        config=True,
        help="""
        Options of the volume driver of the users' homes.

        A dict of texts. ``{volume}`` in a value becomes the volume's name. Example, for a
        folder of each user on an NFS server (the folders have to exist)::

            c.GPUDockerSpawner.home_options = {
                "type": "nfs",
                "o": "addr=10.0.0.5,rw,nfsvers=4",
                "device": ":/homes/{volume}",
            }

        A home that is there keeps the options it was made with.

        .. versionadded:: 0.2
        """,
    )

    delete_homes = Bool(
        False,
        config=True,
        help="""
        Whether a user's home goes when the Hub deletes the user.

        False (the default): it stays, and ``jupyterhub-gpuspawner storage`` shows it. True: the
        volume is removed with all files in it, for ever, when an admin deletes the user; not when
        a named server is removed. What a driver keeps elsewhere, as on an NFS server, stays.
        Not on a Swarm.

        .. versionadded:: 0.2
        """,
    )

    group_volumes = Dict(
        key_trait=Unicode(),
        value_trait=Dict(),
        config=True,
        help="""
        Volumes and folders that the members of a group have in their servers.

        A dict: name of a group in JupyterHub -> what ``volumes`` takes. Looked up at each start,
        so whoever leaves a group is without it from the next start on. Example::

            c.GPUDockerSpawner.group_volumes = {
                "vision": {"vision-data": "/home/jovyan/vision"},
                "guests": {"/srv/samples": {"bind": "/samples", "mode": "ro"}},
            }

        It comes after ``volumes`` and ``read_only_volumes``: the same source there is replaced.

        .. versionadded:: 0.2
        """,
    )

    @validate("group_volumes")
    def _validate_group_volumes(self, proposal: Any) -> Any:
        for group, mounts in proposal.value.items():
            for source, target in mounts.items():
                wrong = wrong_volume(source, target)
                if wrong:
                    raise TraitError(f"group_volumes, group {group!r}: {source!r}: {wrong}")
        return proposal.value

    @property
    def volume_binds(self) -> dict[str, Any]:
        """Source -> where and how it is mounted; also what the groups of the user have."""
        binds: dict[str, Any] = super().volume_binds  # type: ignore[misc]
        for group in self._groups:
            self._volumes_to_binds(self.group_volumes.get(group, {}), binds)
        return binds

    def mounted(self, resolved: ResolvedProfile) -> dict[str, Any]:
        """``volumes`` and ``mounts`` with what a profile adds; a mount at a path replaces it."""
        wanted: dict[str, Any] = {}
        if resolved.volumes:
            wanted["volumes"] = {**self.volumes, **resolved.volumes}
        if resolved.mounts:
            others = [one for one in self.mounts if one["target"] not in resolved.mounts]
            wanted["mounts"] = [*others, *resolved.mounts.values()]
        return wanted

    async def delete_forever(self) -> None:
        """Remove the home, if that is wanted. The Hub calls this for each server of a deleted user.

        And for a named server that is removed while its user stays: that changes nothing. Never
        raises: the Hub would answer 500 with the user half deleted.
        """
        if self.name or not self.delete_homes:
            return
        owner = volume_names.owner_id(
            user_id=self.user.id, created=self.user.created, hub=self.hub_name
        )
        try:
            for name in await self.engine(volume_names.find_homes, owner):
                await self.engine(homes.remove_home, name, owner=owner)
                self.log.info("%s: deleted with the user: volume %s", self._log_name, name)
        except (GPUSpawnerError, docker.errors.DockerException, OSError) as error:
            self.log.error("%s: the home stays although its user goes: %s", self._log_name, error)
