"""The verbs for a server that is a Swarm service; each may be repeated.

The same names as in :mod:`.containers`, so that a start and an end go the same way; an id is the
service's. Functions take a client of a *manager* and block: run them in the pool.

A service is created without a task, scaled to one task by :func:`start_new`, and marked as
stopped by :func:`stop`, each under the version that was read: of a start and a stop at the same
moment one is refused. A stop is done when the task's own node has reported the task's end; a
node that does not answer proves nothing, and then nothing is removed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import docker
import docker.errors

from ..errors import EngineError, EngineUnknown
from ..swarm_nodes import kinds_of, named, resources_of
from . import labels, tasks
from .containers import ExitReport, last_words, taken_over
from .faults import explain
from .observe import Observation
from .service_spec import NO_TASK, ONE_TASK, Place, ServiceSpec
from .tasks import Progress

__all__ = [
    "ExitReport",
    "Progress",
    "Survey",
    "create",
    "discard",
    "exit_report",
    "look_all",
    "name_taken",
    "observe",
    "observe_all",
    "place",
    "progress",
    "remove",
    "start_new",
    "stop",
]

#: seconds between two looks at a task that ends, and that it may take beyond its grace
STOP_PAUSE, STOP_EXTRA = 0.1, 40.0
#: seconds between two looks whether Swarm has forgotten it
FORGET_PAUSE = 0.05
#: times that a change is tried again because somebody else changed the service meanwhile
_RACES = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """One look at a whole Swarm."""

    #: every server service of a ledger; its node is the Swarm's id
    ours: list[Observation]
    #: ``/tasks``, of all services
    tasks: list[dict[str, Any]]
    #: ``/nodes``
    nodes: list[dict[str, Any]]


def create(client: docker.DockerClient, spec: ServiceSpec) -> str:
    """Create a service without a task; return its id.

    One of this name that was made for the same lease and never started is taken.

    Raises
    ------
    EngineConflict
        The name is taken by another service. It is left as it is.
    """
    try:
        answer = client.api.create_service(
            dict(spec.task),
            name=spec.name,
            labels=dict(spec.labels),
            mode=NO_TASK,
            # virtual addresses need IPVS in the kernel, and one task needs none
            endpoint_spec={"Mode": "dnsrr"},
        )
    except docker.errors.APIError as error:
        if error.status_code != 409:
            raise
        holder = name_taken(client, spec.name)
        if holder is None:
            raise
        return taken_over(
            holder, spec.labels, what=f"service name {spec.name}", where="in the Swarm"
        )
    return str(answer["ID"])


def start_new(client: docker.DockerClient, service_id: str) -> None:
    """Give a service its task. One that was stopped never starts: EngineError."""
    info = _inspect(client, service_id)
    if info is None or tasks.was_stopped(info):
        raise EngineError(
            f"service {service_id}: stopped before it was started",
            "Your server was stopped before it had started. Start it again.",
        )
    if not tasks.wanted(info):
        _update(client, info, ONE_TASK, int(info["Spec"]["TaskTemplate"].get("ForceUpdate") or 0))


def progress(client: docker.DockerClient, service_id: str, network: str) -> Progress:
    """How far the start is. EngineError where the service is gone."""
    if _inspect(client, service_id) is None:
        raise EngineError(
            f"service {service_id}: removed while it started",
            "Somebody removed your server while it started. Start it again.",
        )
    return tasks.progress(tasks.newest(_tasks_of(client, service_id)), network)


def stop(
    client: docker.DockerClient,
    service_id: str,
    grace: int = 10,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """End the service's task, and see that its node says so. Gone is a success.

    Raises
    ------
    EngineUnknown
        The task's node does not answer, or the task has not ended in time. The service stays,
        as the one place that says so.
    """
    for _ in range(_RACES):
        info = _inspect(client, service_id)
        if info is None or _ended(client, info):
            return
        if tasks.was_stopped(info) or _mark_stopped(client, info):
            break
    for _ in range(round((grace + STOP_EXTRA) / STOP_PAUSE)):
        info = _inspect(client, service_id)
        if info is None or _ended(client, info):
            return
        sleep(STOP_PAUSE)
    raise EngineUnknown(f"service {service_id}: its task has not ended yet")


def remove(
    client: docker.DockerClient,
    service_id: str,
    grace: int = 10,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Stop and remove a service. Raises like :func:`stop`; then it is left as it is."""
    stop(client, service_id, grace, sleep=sleep)
    _await_forgotten(client, service_id, sleep)
    _drop(client, service_id)


def abandon(client: docker.DockerClient, service_id: str) -> None:
    """Remove a service without waiting for its task. Gone is a success.

    Should the task's node come back, Swarm itself has it end the task.
    """
    _drop(client, service_id)


def discard(client: docker.DockerClient, service_id: str) -> None:
    """Remove a service that has no task. EngineError if it has one."""
    info = _inspect(client, service_id)
    if info is None:
        return
    if not tasks.was_stopped(info) and not tasks.wanted(info):
        # from here on no start can succeed
        if not _mark_stopped(client, info):
            raise EngineUnknown(f"service {service_id}: somebody changes it; left as it is")
        info = _inspect(client, service_id)
    if info is not None and not _ended(client, info):
        raise EngineError(f"service {service_id}: it has a task; left as it is")
    _await_forgotten(client, service_id, time.sleep)
    _drop(client, service_id)


def observe(client: docker.DockerClient, service_id: str) -> Observation | None:
    """Look at one service, by id or name. None: the manager says that there is no such service.

    That proves nothing about a container: see the service's ``SwarmView``.
    """
    info = _inspect(client, service_id)
    if info is None:
        return None
    found = _tasks_of(client, str(info["ID"]))
    return tasks.observation(info, found, tasks.ready_ids(all_nodes(client)), time.time())


def observe_all(client: docker.DockerClient, ledger_id: str) -> list[Observation]:
    """Look at every server service of a ledger."""
    return look_all(client, ledger_id).ours


def look_all(client: docker.DockerClient, ledger_id: str) -> Survey:
    """Look at every server service of a ledger, with three lists whatever their number.

    A service is read before its tasks, and tasks before their nodes: a node that fell silent
    meanwhile makes the rest uncertain.
    """
    chosen = {"label": labels.selectors(ledger_id, labels.Kind.SERVER)}
    services = cast("list[dict[str, Any]]", client.api.services(filters=chosen))
    found, nodes, now = all_tasks(client), all_nodes(client), time.time()
    by_service: dict[str, list[Mapping[str, Any]]] = {}
    for task in found:
        by_service.setdefault(str(task.get("ServiceID")), []).append(task)
    ready = tasks.ready_ids(nodes)
    ours = [
        tasks.observation(info, by_service.get(str(info["ID"]), ()), ready, now)
        for info in services
    ]
    return Survey(ours=ours, tasks=found, nodes=nodes)


def name_taken(client: docker.DockerClient, name: str) -> Observation | None:
    """Return the service that has this name, whoever made it; None = the name is free."""
    return observe(client, name)


def exit_report(client: docker.DockerClient, service_id: str, lines: int = 20) -> ExitReport | None:
    """Read how a service's task ended and its last lines; None = no such service."""
    info = _inspect(client, service_id)
    if info is None:
        return None
    task = tasks.newest(_tasks_of(client, service_id))
    return ExitReport(
        exit_code=tasks.exit_code(task),
        # Swarm does not tell
        oom=False,
        finished_at="",
        log_tail=_log_tail(client, service_id, lines),
        error=tasks.words_of(task) if task is not None else "",
    )


def place(client: docker.DockerClient, node: str, devices: Iterable[str]) -> Place:
    """Where ``node`` is in the Swarm, and which kind stands for each device.

    Raises
    ------
    EngineError
        The node is not there or not ready, or it does not have one kind for each device.
    """
    found = [info for info, name in named(all_nodes(client)) if name == node]
    if len(found) != 1 or not tasks.is_ready(found[0]):
        raise EngineError(
            f"node {node}: not ready in the Swarm ({len(found)} of this name)",
            f"The machine {node} does not answer at the moment. Start your server again.",
        )
    kinds = kinds_of(found[0])
    missing = sorted(set(devices) - set(kinds))
    if missing:
        raise EngineError(
            f"node {node}: no kind of generic resource of its own for {', '.join(missing)}",
            "A GPU of your server can't be connected. Please tell your administrator.",
        )
    leased = {one: kinds[one] for one in devices}
    others = {kind for kind, _ in resources_of(found[0])} - set(leased.values())
    return Place(node_id=str(found[0]["ID"]), kinds=leased, others=tuple(sorted(others)))


def all_nodes(client: docker.DockerClient) -> list[dict[str, Any]]:
    """Every node of the Swarm."""
    return cast("list[dict[str, Any]]", client.api.nodes())


def all_tasks(client: docker.DockerClient) -> list[dict[str, Any]]:
    """Every task that the Swarm still knows, also those of services that are gone."""
    return cast("list[dict[str, Any]]", client.api.tasks())


def says_no_service(error: docker.errors.APIError) -> bool:
    """Whether a manager itself says that there is no such service."""
    words = explain(error).lower()
    return error.status_code == 404 and "service" in words and "not found" in words


def _inspect(client: docker.DockerClient, service_id: str) -> dict[str, Any] | None:
    try:
        return cast("dict[str, Any]", client.api.inspect_service(service_id))
    except docker.errors.NotFound as error:
        if says_no_service(error):
            return None
        raise EngineUnknown(f"service {service_id}: 404 with {explain(error)!r}") from error


def _tasks_of(client: docker.DockerClient, service_id: str) -> list[dict[str, Any]]:
    # not by filter: Swarm answers it with 404 once the service is gone
    return [task for task in all_tasks(client) if task.get("ServiceID") == service_id]


def _ended(client: docker.DockerClient, info: Mapping[str, Any]) -> bool:
    """Whether the service has no process, and gets none any more. EngineUnknown: nobody says."""
    found = _tasks_of(client, str(info["ID"]))
    if any(tasks.state_of(task) == "orphaned" for task in found):
        raise EngineUnknown(f"service {info['ID']}: its node was lost with its task")
    open_tasks = [task for task in found if not tasks.is_final(task)]
    if found and not open_tasks:
        return True
    ready = tasks.ready_ids(all_nodes(client))
    where = {str(task.get("NodeID") or "") for task in open_tasks} - {""}
    silent = sorted((where or {tasks.placed_on(info)} - {""}) - ready)
    if silent:
        raise EngineUnknown(
            f"service {info['ID']}: its node {silent[0]} does not answer",
            "The machine of your server does not answer. The server is stopped when it is back.",
        )
    # Swarm forgets a stopped task some 0.3 s after its node has reported the end.
    return not open_tasks and tasks.was_stopped(info)


def _mark_stopped(client: docker.DockerClient, info: Mapping[str, Any]) -> bool:
    """Have no task, and a new iteration: Swarm ends the task of the old one. False: try again."""
    forced = int(info["Spec"]["TaskTemplate"].get("ForceUpdate") or 0) + 1
    try:
        _update(client, info, NO_TASK, forced)
    except docker.errors.APIError as error:
        if "out of sequence" in explain(error) or says_no_service(error):
            return False
        raise
    return True


def _update(
    client: docker.DockerClient, info: Mapping[str, Any], mode: Mapping[str, Any], forced: int
) -> None:
    spec: Mapping[str, Any] = info["Spec"]
    client.api.update_service(
        str(info["ID"]),
        int(info["Version"]["Index"]),
        task_template={**spec["TaskTemplate"], "ForceUpdate": forced},
        name=spec["Name"],
        labels=dict(spec.get("Labels") or {}),
        mode=dict(mode),
        endpoint_spec=spec.get("EndpointSpec"),
    )


def _await_forgotten(
    client: docker.DockerClient, service_id: str, sleep: Callable[[float], None]
) -> None:
    """Return when Swarm has forgotten a task that was stopped, some 0.3 s after its end.

    A removal of the service at that very moment reads the task and finds it gone, which ends the
    manager's dockerd ("nil pointer dereference" in ``SetServiceTasksRemove``, seen with 26.1.5).
    """
    for _ in range(round(STOP_EXTRA / FORGET_PAUSE)):
        going = any(tasks.is_going(task) for task in _tasks_of(client, service_id))
        # gone already: there is nothing left to remove, whatever becomes of the task
        if not going or _inspect(client, service_id) is None:
            return
        sleep(FORGET_PAUSE)
    raise EngineUnknown(f"service {service_id}: Swarm does not forget its task")


def _drop(client: docker.DockerClient, service_id: str) -> None:
    try:
        client.api.remove_service(service_id)
    except docker.errors.NotFound as error:
        if not says_no_service(error):
            raise


def _log_tail(client: docker.DockerClient, service_id: str, lines: int) -> str:
    """The last lines, where the log driver and the node give them."""
    try:
        parts = client.api.service_logs(service_id, stdout=True, stderr=True, tail=lines)
        raw = b"".join(parts)
    except (docker.errors.DockerException, OSError):
        return ""
    return last_words(raw)
