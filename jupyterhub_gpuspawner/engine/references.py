"""Secrets and configs of the Swarm in a service: by name in, by id out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import docker

from ..errors import ConfigError

#: who may read the file: everybody in the container, and servers run as a normal user
READABLE = 0o444


def secrets(client: docker.DockerClient, wanted: Mapping[str, str]) -> list[dict[str, Any]]:
    """References to secrets: name -> file in the container. ConfigError for one that isn't."""
    return _references("Secret", wanted, cast("list[Any]", client.api.secrets()) if wanted else [])


def configs(client: docker.DockerClient, wanted: Mapping[str, str]) -> list[dict[str, Any]]:
    """References to configs: name -> file in the container. ConfigError for one that isn't."""
    return _references("Config", wanted, cast("list[Any]", client.api.configs()) if wanted else [])


def _references(kind: str, wanted: Mapping[str, str], there: list[Any]) -> list[dict[str, Any]]:
    ids = {str(one["Spec"]["Name"]): str(one["ID"]) for one in there}
    missing = sorted(set(wanted) - set(ids))
    if missing:
        raise ConfigError(
            f"{kind.lower()}s: the Swarm has none called {', '.join(missing)}; make it with "
            f"'docker {kind.lower()} create'",
            "This Hub is not set up right. Please tell an administrator.",
        )
    return [
        {
            f"{kind}ID": ids[name],
            f"{kind}Name": name,
            "File": {"Name": path, "UID": "0", "GID": "0", "Mode": READABLE},
        }
        for name, path in wanted.items()
    ]
