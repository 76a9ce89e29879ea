"""Have an image on the nodes of a Swarm before a server needs it there: a job of one task a node.

The task runs ``true`` in the image, without network. Whether that is there does not count: what
comes before it is the pull. Functions take a client of a manager and block.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import docker
import docker.errors

from ..errors import ImageMissing
from ..swarm_nodes import named
from . import labels, tasks
from .faults import explain
from .services import all_nodes, all_tasks
from .volumes import digest

#: what the names of such jobs begin with, and those of the configs that say what they did
PREFIX, RECORD = "gpus-pull-", "gpus-image-"
_LABELS = {labels.KIND: labels.Kind.IMAGE.value}


@dataclass(frozen=True, kw_only=True, slots=True)
class Pull:
    """How far one node is."""

    node: str
    #: waiting, pulling, there, failed, or silent where the node does not answer
    state: str
    #: why it failed, in Docker's own words
    words: str = ""

    @property
    def over(self) -> bool:
        """Whether nothing more will change, as far as anybody knows."""
        return self.state in ("there", "failed", "silent")


def pinned(client: docker.DockerClient, image: str) -> str:
    """``image`` by its digest, as the registry has it now: the same on each node.

    Raises
    ------
    ImageMissing
        The registry does not have it, does not let us in, or does not answer.
    """
    if "@" in image:
        return image
    try:
        found = cast("dict[str, Any]", client.api.inspect_distribution(image))
        return f"{image}@{found['Descriptor']['digest']}"
    except (docker.errors.APIError, KeyError) as error:
        words = explain(error) if isinstance(error, docker.errors.APIError) else repr(error)
        raise ImageMissing(
            f"{image}: its digest can't be had from its registry: {words}"
        ) from error


def begin(client: docker.DockerClient, image: str) -> str:
    """Start a job that pulls ``image`` on each node; its id. :func:`end` has to follow."""
    container = {
        "Image": image,
        "Command": ["true"],
        "CapabilityDrop": ["ALL"],
        "Privileges": {"NoNewPrivileges": True},
        "ReadOnly": True,
        "Healthcheck": {"Test": ["NONE"]},
        # by which the scheduler knows the task, and shows how far it is
        "Labels": _LABELS,
    }
    task = {"ContainerSpec": container, "RestartPolicy": {"Condition": "none"}}
    # credentials of the registry go along, as the SDK finds them in Docker's configuration
    answer = client.api.create_service(
        task, name=PREFIX + secrets.token_hex(4), mode={"GlobalJob": {}}
    )
    return str(answer["ID"])


def look(client: docker.DockerClient, job: str) -> list[Pull]:
    """How far each node is, by name."""
    nodes, mine = all_nodes(client), [t for t in all_tasks(client) if t.get("ServiceID") == job]
    return progress(nodes, mine)


def end(client: docker.DockerClient, job: str) -> None:
    """Remove the job. What was pulled stays."""
    try:
        client.api.remove_service(job)
    except docker.errors.NotFound:
        return


def remember(client: docker.DockerClient, image: str, nodes: Iterable[str]) -> None:
    """Have the Swarm remember which nodes have an image, for the scheduler's placement."""
    name = RECORD + digest("image", image)[:32]
    have = {**_LABELS, labels.NAME: image, labels.NODE: ",".join(sorted(nodes))}
    with suppress(docker.errors.NotFound):
        client.api.remove_config(name)
    client.api.create_config(name, f"{image} is on {have[labels.NODE]}\n".encode(), labels=have)


def remembered(client: docker.DockerClient) -> dict[str, frozenset[str]]:
    """Image -> names of the nodes that had it after the last ``swarm pull``."""
    chosen = {"label": f"{labels.KIND}={labels.Kind.IMAGE.value}"}
    found = (config["Spec"]["Labels"] for config in client.api.configs(filters=chosen))
    return {
        str(one.get(labels.NAME)): frozenset(filter(None, str(one.get(labels.NODE)).split(",")))
        for one in found
    }


def going_on(
    nodes: Sequence[Mapping[str, Any]], found: Iterable[Mapping[str, Any]]
) -> dict[str, tuple[Pull, ...]]:
    """Image -> how far each node is with it, of the jobs that there are now. Pure."""
    jobs: dict[str, list[Mapping[str, Any]]] = {}
    for task in found:
        container: Mapping[str, Any] = (task.get("Spec") or {}).get("ContainerSpec") or {}
        if (container.get("Labels") or {}).get(labels.KIND) == labels.Kind.IMAGE.value:
            jobs.setdefault(str(container.get("Image")), []).append(task)
    return {image: tuple(progress(nodes, mine)) for image, mine in jobs.items()}


def progress(nodes: Sequence[Mapping[str, Any]], mine: Sequence[Mapping[str, Any]]) -> list[Pull]:
    """How far each node is, from the answers of ``/nodes`` and ``/tasks``. Pure."""
    by_node = {str(task.get("NodeID")): task for task in mine}
    found = []
    for node, name in sorted(named(nodes), key=lambda pair: pair[1]):
        task = by_node.get(str(node["ID"]))
        open_ = (node.get("Spec") or {}).get("Availability") == "active"
        if not tasks.is_ready(node):
            found.append(Pull(node=name, state="silent", words="the node does not answer"))
        elif task is None and not open_:
            found.append(Pull(node=name, state="failed", words="the node takes no tasks"))
        elif task is None:
            found.append(Pull(node=name, state="waiting"))
        else:
            found.append(_of(name, task))
    return found


def _of(name: str, task: Mapping[str, Any]) -> Pull:
    state, words = tasks.state_of(task), tasks.words_of(task)
    if state in ("rejected", "failed") and tasks.lacking(words) == "image":
        return Pull(node=name, state="failed", words=words)
    if tasks.is_final(task) or state in ("ready", "starting", "running"):
        return Pull(node=name, state="there")
    return Pull(node=name, state="pulling" if state == "preparing" else "waiting")
