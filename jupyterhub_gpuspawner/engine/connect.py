"""A Docker client, made with the same settings as DockerSpawner makes its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import docker
from docker.tls import TLSConfig
from docker.utils import kwargs_from_env


def client_options(
    base_url: str | None, timeout: float, options: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the keywords of :class:`docker.DockerClient`.

    ``DOCKER_HOST`` and its TLS variables count where nothing else is said. They do not follow
    the Docker CLI's current context, as DockerSpawner does not.

    Parameters
    ----------
    base_url:
        ``unix:///var/run/docker.sock`` or ``tcp://host:2376``; None = from the environment.
    timeout:
        Seconds to connect, and between two parts of an answer.
    options:
        What DockerSpawner has in ``client_kwargs``; ``tls`` may be a dict of
        :class:`docker.tls.TLSConfig` keywords (its ``tls_config``).
    """
    keywords: dict[str, Any] = {"version": "auto", "timeout": timeout}
    keywords.update(kwargs_from_env())
    if base_url is not None:
        keywords["base_url"] = base_url
    keywords.update(options or {})
    if isinstance(keywords.get("tls"), Mapping):
        keywords["tls"] = TLSConfig(**keywords["tls"])
    return keywords


def connect(
    base_url: str | None, timeout: float, options: Mapping[str, Any] | None = None
) -> docker.DockerClient:
    """Return a client of its own. Asks the engine for its API version, so it blocks."""
    client = docker.DockerClient(**client_options(base_url, timeout, options))
    if client.api.base_url.startswith("http+docker:"):
        # On a socket the SDK keeps a connection for each *address* it was asked for, container ids
        # included, up to 25 for each client (and ignores num_pools): a Hub would hold hundreds
        # that nobody uses again. A new one costs next to nothing there.
        client.api.headers["Connection"] = "close"
    return client
