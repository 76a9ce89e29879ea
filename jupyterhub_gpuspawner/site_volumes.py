"""A site's homes and other volumes by environment variable, for its config."""

from __future__ import annotations

from typing import Any

from . import environment

_VOLUMES = '{"/srv/scratch/{username}": "/home/jovyan/scratch"}'
_SHARED = '{"datasets": "/data"}'
_GROUP = '{"vision": {"vision-data": "/home/jovyan/vision"}}'
_OPTIONS = '{"type": "nfs", "o": "addr=10.0.0.5,rw", "device": ":/homes/{volume}"}'


def site_volumes(c: Any) -> None:
    """Set in ``c.GPUDockerSpawner`` which volumes servers have, and what becomes of homes.

    Variables: ``GPUS_VOLUMES``, ``GPUS_READ_ONLY_VOLUMES``, ``GPUS_GROUP_VOLUMES``,
    ``GPUS_HOME_DRIVER``, ``GPUS_HOME_OPTIONS``, ``GPUS_DELETE_HOMES``. A wrong one ends the
    program with one line.
    """
    spawner = c.GPUDockerSpawner
    found = {
        "volumes": environment.table("GPUS_VOLUMES", str, _VOLUMES),
        "read_only_volumes": environment.table("GPUS_READ_ONLY_VOLUMES", str, _SHARED),
        "group_volumes": environment.table("GPUS_GROUP_VOLUMES", dict, _GROUP),
        "home_driver": environment.text("GPUS_HOME_DRIVER"),
        "home_options": environment.table("GPUS_HOME_OPTIONS", str, _OPTIONS),
        "delete_homes": environment.flag("GPUS_DELETE_HOMES"),
    }
    for option, value in found.items():
        if value:
            setattr(spawner, option, value)
