"""What a Swarm's manager says about a server: its service, the service's tasks, their node.

Pure: the Engine API's JSON -> an :class:`~.observe.Observation` whose id is the service's. The
manager repeats what a node reported last, so an answer about a node that is not ready is not
``certain``; and only a final state that the node itself reported proves that a process ended:
``orphaned`` is the manager's own word for "never heard of again".
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..device_names import MARKER_DIR, TOOLKIT_MOUNTS
from . import labels
from .observe import Observation, seconds

Json = Mapping[str, Any]

#: states before the process runs
COMING = frozenset(
    {"new", "allocated", "pending", "assigned", "accepted", "preparing", "ready", "starting"}
)
#: states after the process, as the task's node reports them
FINAL = frozenset({"complete", "shutdown", "failed", "rejected"})
#: seconds after a service was scaled up in which its task may still be to come
TASK_DELAY = 60.0
_CONSTRAINT = "node.id=="
#: what Docker says where an image isn't there and can't be pulled, or a mount can't be made
_NO_IMAGE = ("no such image", "pull access denied", "manifest unknown", "manifest for ")
_NO_MOUNT = ("mount config", "bind source", "mounting", "to mount", "volume")
_NOTHING = frozenset({"", "void", "none"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far the start of a service is."""

    #: Swarm's word: ``pending``, ``preparing``, ``running``, ``rejected`` …; ``new`` before
    state: str
    #: Swarm's own words about it; may be empty
    words: str = ""
    #: ids of the devices that Swarm gave the task
    assigned: tuple[str, ...] = ()
    #: address on the network asked for; empty = none yet
    address: str = ""

    @property
    def lacks(self) -> str:
        """What the node lacks for it: image, mount, or nothing that its words tell."""
        return lacking(self.words) if self.state in ("rejected", "failed") else ""

    @property
    def over(self) -> bool:
        """Whether it will not run any more."""
        return self.state in FINAL or self.state == "orphaned"


def progress(task: Json | None, network: str) -> Progress:
    """How far a start is, by the service's newest task; None = there is none yet."""
    if task is None:
        return Progress(state="new")
    return Progress(
        state=state_of(task),
        words=words_of(task),
        assigned=assigned(task),
        address=address_of(task, network),
    )


def observation(
    service: Json, tasks: Sequence[Json], ready: Collection[str], now: float
) -> Observation:
    """Describe a service as reconcile sees a container.

    Parameters
    ----------
    service, tasks:
        Answers of ``/services/<id>`` and ``/tasks`` (those of the service).
    ready:
        Ids of the nodes that the manager hears from: :func:`ready_ids`.
    now:
        POSIX seconds.
    """
    spec: Json = service["Spec"]
    found: dict[str, str] = dict(spec.get("Labels") or {})
    state = overall(service, tasks, now)
    last = newest(tasks)
    where = {
        node for task in tasks if not is_final(task) if (node := str(task.get("NodeID") or ""))
    }
    where = where or {placed_on(service)} - {""}
    return Observation(
        container_id=str(service["ID"]),
        name=str(spec.get("Name") or ""),
        labels=found,
        state=state,
        exit_code=exit_code(last) if state == "exited" else None,
        oom=False,
        started=state != "created",
        created_at=seconds(service.get("CreatedAt")),
        device_ids=labels.split_devices(found.get(labels.DEVICES, "")),
        injected=injected(service, tasks),
        node=placed_on(service),
        certain=(state == "exited" and bool(tasks)) or all(node in ready for node in where),
    )


def vanished(service_id: str, node: str = "") -> Observation:
    """A service that is gone while nobody can say that its container is."""
    return Observation(
        container_id=service_id,
        name="",
        labels={},
        state="removing",
        exit_code=None,
        oom=False,
        started=True,
        created_at=0.0,
        device_ids=(),
        injected=(),
        node=node,
        certain=False,
    )


def overall(service: Json, tasks: Sequence[Json], now: float) -> str:
    """One word for all tasks of a service: created, starting, running, exited or unknown."""
    states = {state_of(task) for task in tasks}
    if "running" in states:
        return "running"
    if states & COMING:
        return "starting"
    if states - FINAL:
        return "unknown"
    if states:
        return "exited"
    if was_stopped(service):
        return "exited"
    if not wanted(service):
        return "created"
    # Its task is about to be made; or it is over, and Swarm keeps no history of tasks.
    age = now - seconds(service.get("UpdatedAt"))
    return "starting" if age < TASK_DELAY else "exited"


def wanted(service: Json) -> int:
    """How many tasks the service shall have: 0 or 1."""
    job: Json = (service["Spec"].get("Mode") or {}).get("ReplicatedJob") or {}
    return int(job.get("TotalCompletions") or 0)


def was_stopped(service: Json) -> bool:
    """Whether a stop was asked for: no task of it can come any more."""
    return wanted(service) == 0 and int(service["Spec"]["TaskTemplate"].get("ForceUpdate") or 0) > 0


def placed_on(service: Json) -> str:
    """The Swarm's id of the node that the service is bound to; empty = to none."""
    placement: Json = service["Spec"]["TaskTemplate"].get("Placement") or {}
    for constraint in placement.get("Constraints") or ():
        text = str(constraint).replace(" ", "")
        if text.startswith(_CONSTRAINT):
            return text.removeprefix(_CONSTRAINT)
    return ""


def constraint(node_id: str) -> str:
    """The placement constraint that binds a task to a node."""
    return _CONSTRAINT + node_id


def state_of(task: Json) -> str:
    """The state that the task's node reported last."""
    return str((task.get("Status") or {}).get("State") or "unknown").lower()


def words_of(task: Json) -> str:
    """Why the task is in its state, in Swarm's own words; may be empty."""
    return str((task.get("Status") or {}).get("Err") or "").strip()


def lacking(words: str) -> str:
    """What the node did not have for a task, by Swarm's words: image, mount, or nothing.

    Such words come before the process ran: another node may have it.
    """
    said = words.lower()
    if any(sign in said for sign in _NO_IMAGE):
        return "image"
    return "mount" if any(sign in said for sign in _NO_MOUNT) else ""


def is_final(task: Json) -> bool:
    """Whether its node reported that the task's process is over, or never began."""
    return state_of(task) in FINAL


def is_going(task: Json) -> bool:
    """Whether Swarm is about to forget the task, or does so once it is over."""
    return str(task.get("DesiredState")) == "remove"


def is_ready(node: Json) -> bool:
    """Whether the manager hears from the node."""
    return str((node.get("Status") or {}).get("State")) == "ready"


def ready_ids(nodes: Iterable[Json]) -> frozenset[str]:
    """Ids of the nodes that the manager hears from."""
    return frozenset(str(node["ID"]) for node in nodes if is_ready(node))


def newest(tasks: Sequence[Json]) -> Json | None:
    """The task that was made last."""
    return max(tasks, key=lambda task: str(task.get("CreatedAt") or ""), default=None)


def exit_code(task: Json | None) -> int | None:
    """What the task's main process returned; None = it never ran, or nobody says."""
    if task is None or state_of(task) not in ("complete", "failed"):
        return None
    status: Json = (task.get("Status") or {}).get("ContainerStatus") or {}
    code = int(status.get("ExitCode") or 0)
    # a task that failed before its process ran has no code of its own
    return code if code or state_of(task) == "complete" else None


def container_of(task: Json) -> str:
    """Id of the task's container on its node; empty = none yet."""
    status: Json = (task.get("Status") or {}).get("ContainerStatus") or {}
    return str(status.get("ContainerID") or "")


def address_of(task: Json, network: str) -> str:
    """The task's address on a network (name or id); empty = none."""
    for attachment in task.get("NetworksAttachments") or ():
        known: Json = attachment.get("Network") or {}
        names = (known.get("ID"), (known.get("Spec") or {}).get("Name"))
        addresses = attachment.get("Addresses") or ()
        if network in names and addresses:
            return str(addresses[0]).partition("/")[0]
    return ""


def assigned(task: Json) -> tuple[str, ...]:
    """Values of the generic resources that Swarm gave the task, sorted."""
    found = (item.get("NamedResourceSpec") or {} for item in task.get("GenericResources") or ())
    return tuple(sorted(str(spec["Value"]) for spec in found if spec.get("Value")))


def injected(service: Json, tasks: Sequence[Json]) -> tuple[str, ...]:
    """Ids of the devices that the server gets by its mounts, environment and reservations."""
    container: Json = service["Spec"]["TaskTemplate"].get("ContainerSpec") or {}
    found = {value for task in tasks if not is_final(task) for value in assigned(task)}
    for mount in container.get("Mounts") or ():
        target = str(mount.get("Target", ""))
        for folder in (MARKER_DIR, TOOLKIT_MOUNTS):
            if target.startswith(f"{folder}/"):
                found.add(target.removeprefix(f"{folder}/"))
    for variable in container.get("Env") or ():
        name, _, value = str(variable).partition("=")
        if name == "NVIDIA_VISIBLE_DEVICES" and value not in _NOTHING:
            found.update(part for part in value.split(",") if part)
    return tuple(sorted(found))
