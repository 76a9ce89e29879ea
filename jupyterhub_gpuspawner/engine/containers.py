"""The verbs: create, start, stop, remove, pull; each may be repeated.

"Already there" and "already gone" are successes. Functions take a client and block: run them in
the pool under the server's key. Docker's errors come out as they are; the pool translates them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import docker
import docker.errors
from docker import auth
from docker.utils import parse_repository_tag

from ..errors import EngineConflict, EngineUnknown, ImageMissing
from . import labels
from .faults import explain, says_gone
from .observe import Observation, from_inspect, observe

__all__ = [
    "ContainerSpec",
    "ExitReport",
    "create",
    "create_new",
    "exit_report",
    "last_words",
    "name_taken",
    "observe",
    "pull",
    "remove",
    "start",
    "start_new",
    "stop",
    "taken_over",
]

#: seconds to wait for a removal that is in progress, and between two looks at it
REMOVAL_LIMIT = 30.0
REMOVAL_PAUSE = 0.1
#: how much longer than in other calls Docker may be silent in a pull: a registry may be slow
PULL_PATIENCE = 5
#: the most characters of log that an exit report carries
LONGEST_TAIL = 4000


@dataclass(frozen=True, kw_only=True, slots=True)
class ContainerSpec:
    """What to create."""

    name: str
    image: str
    #: :func:`~.labels.server_labels`
    labels: Mapping[str, str]
    #: keywords of ``create_host_config``
    host: Mapping[str, Any] = field(default_factory=dict)
    #: other keywords of ``create_container``: command, environment, networking_config …
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class ExitReport:
    """How a container ended, read before it is removed."""

    #: None = it runs, or never ran
    exit_code: int | None
    #: the kernel killed a process of it for memory
    oom: bool
    #: Docker's text of the time (UTC); empty = it did not end
    finished_at: str
    #: the last lines of its output
    log_tail: str
    #: why it could not be started, in the engine's words
    error: str


def create(client: docker.DockerClient, spec: ContainerSpec) -> str:
    """Create a container and return its id.

    If one of this name is there already, and was made for the same lease and never started, it
    is taken: an earlier call's answer was lost.

    Raises
    ------
    EngineConflict
        The name is taken by another container. It is left as it is.
    ImageMissing, docker.errors.APIError
        The engine refused.
    """
    try:
        return create_new(client, spec)
    except docker.errors.APIError as error:
        if error.status_code != 409:
            raise
        holder = name_taken(client, spec.name)
        if holder is None:
            raise
        return taken_over(
            holder, spec.labels, what=f"container name {spec.name}", where="on the machine"
        )


def create_new(client: docker.DockerClient, spec: ContainerSpec) -> str:
    """Create a container and return its id. An APIError with status 409: the name is taken."""
    answer = client.api.create_container(
        image=spec.image,
        name=spec.name,
        labels=dict(spec.labels),
        host_config=client.api.create_host_config(**spec.host),
        **spec.options,
    )
    return str(answer["Id"])


def start(client: docker.DockerClient, container_id: str) -> None:
    """Start a container once. One that was started before stays as it is, even if it ended.

    Docker would start an ended one again, with devices that may be somebody else's by now.
    """
    seen = observe(client, container_id)
    if seen is None or not seen.started:
        client.api.start(container_id)  # a missing one: Docker's own 404


def start_new(client: docker.DockerClient, container_id: str) -> None:
    """Start a container that was never started, and is nobody else's to start: no look first."""
    client.api.start(container_id)


def stop(client: docker.DockerClient, container_id: str, grace: int = 10) -> None:
    """Ask the main process to end, and kill it after ``grace`` seconds. Gone is a success."""
    try:
        client.api.stop(container_id, timeout=grace)
    except docker.errors.NotFound as error:
        if not says_gone(error):
            raise


def remove(
    client: docker.DockerClient,
    container_id: str,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Remove a container (killed if it runs) with its anonymous volumes, and see it gone.

    Raises
    ------
    EngineUnknown
        It is being removed, and still there after :data:`REMOVAL_LIMIT` seconds.
    """
    try:
        client.api.remove_container(container_id, v=True, force=True)
        return
    except docker.errors.APIError as error:
        if says_gone(error):
            return
        if error.status_code != 409 or "in progress" not in explain(error).lower():
            raise
    end = time.monotonic() + REMOVAL_LIMIT
    while observe(client, container_id) is not None:
        if time.monotonic() > end:
            raise EngineUnknown(
                f"container {container_id}: still being removed after {REMOVAL_LIMIT:g} s"
            )
        sleep(REMOVAL_PAUSE)


def exit_report(
    client: docker.DockerClient, container_id: str, lines: int = 20
) -> ExitReport | None:
    """Read how a container ended and its last ``lines`` of log; None = no such container."""
    try:
        info = cast("dict[str, Any]", client.api.inspect_container(container_id))
        tail = _log_tail(client, container_id, lines)
    except docker.errors.NotFound as error:
        if says_gone(error):
            return None
        raise
    seen = from_inspect(info)
    finished = str(info["State"].get("FinishedAt") or "")
    return ExitReport(
        exit_code=seen.exit_code,
        oom=seen.oom,
        finished_at="" if finished.startswith("0001-") or seen.live else finished,
        log_tail=tail,
        error=str(info["State"].get("Error") or ""),
    )


def name_taken(client: docker.DockerClient, name: str) -> Observation | None:
    """Return the container that has this name, whoever made it; None = the name is free."""
    return observe(client, name)


def taken_over(holder: Observation, wanted: Mapping[str, str], *, what: str, where: str) -> str:
    """Return the id of what has the name, if an earlier try made it; also for a service.

    Parameters
    ----------
    holder:
        What has the name.
    wanted:
        The labels of what was to be created.
    what, where:
        For the log, the name ("container name gpus-alice"); for the user, "on the machine".

    Raises
    ------
    EngineConflict
        It was made for something else, or it was started. It is left as it is.
    """
    have, want = holder.identity, labels.parse(wanted)
    if want is not None and have == want and not holder.started:
        return holder.container_id
    whose = f"lease {have.lease} of {have.display}" if have else "something that is not ours"
    raise EngineConflict(
        f"{what} is taken by {holder.container_id[:12]} ({whose}, {holder.state}); left as it is",
        f"Something else {where} has your server's name. Please tell your administrator.",
    )


def last_words(raw: bytes) -> str:
    """The end of a log, as an exit report carries it."""
    return raw.decode("utf-8", "replace")[-LONGEST_TAIL:].strip()


def pull(
    client: docker.DockerClient, ref: str, progress: Callable[[str], None] | None = None
) -> None:
    """Pull an image through the daemon, which uses its own mirrors, proxy and certificates.

    Parameters
    ----------
    progress:
        Called with a short line ("3 of 7 layers") when it changes, in this thread.

    Raises
    ------
    ImageMissing
        The registry does not have it or does not let us in; the daemon's words are in the log.
    requests.RequestException
        Docker says nothing for :data:`PULL_PATIENCE` times the client's time-out.
    """
    layers: dict[str, bool] = {}
    said = ""
    try:
        for message in _pull_stream(client.api, ref):
            if message.get("error"):
                raise _not_pulled(ref, str(message["error"]))
            line = _count_layers(layers, message)
            if progress is not None and line and line != said:
                said = line
                progress(line)
    except docker.errors.APIError as error:
        raise _not_pulled(ref, explain(error) or str(error)) from error


def _pull_stream(api: Any, ref: str) -> Iterator[dict[str, Any]]:
    """The messages of a pull. As the SDK's ``pull``, which would wait for ever in silence."""
    repository, tag = parse_repository_tag(ref)
    registry, _ = auth.resolve_repository_name(repository)
    header = auth.get_config_header(api, registry)
    response = api._post(
        api._url("/images/create"),
        params={"fromImage": repository, "tag": tag or "latest"},
        headers={"X-Registry-Auth": header} if header else {},
        stream=True,
        timeout=PULL_PATIENCE * api.timeout,
    )
    api._raise_for_status(response)
    return cast("Iterator[dict[str, Any]]", api._stream_helper(response, decode=True))


def _log_tail(client: docker.DockerClient, container_id: str, lines: int) -> str:
    try:
        raw = client.api.logs(container_id, stdout=True, stderr=True, tail=lines)
    except docker.errors.APIError as error:
        if says_gone(error):
            raise
        return ""  # a log driver that can't be read back: the report goes without
    return last_words(bytes(raw))


def _count_layers(layers: dict[str, bool], message: Mapping[str, Any]) -> str:
    """Keep count of the layers; return "3 of 7 layers", or nothing before the first."""
    status, layer = str(message.get("status") or ""), str(message.get("id") or "")
    if status == "Pulling fs layer":
        layers.setdefault(layer, False)
    elif status in ("Already exists", "Pull complete"):
        layers[layer] = True
    return f"{sum(layers.values())} of {len(layers)} layers" if layers else ""


def _not_pulled(ref: str, words: str) -> ImageMissing:
    return ImageMissing(
        f"image {ref}: not on the engine, and pulling it failed: {words}",
        f"The image {ref} can't be fetched. Please tell your administrator.",
    )
