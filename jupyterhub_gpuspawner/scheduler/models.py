"""The values the scheduler works with: frozen, typed, and without behaviour of their own.

Times are POSIX seconds (``float``), memory is in bytes, ids are strings; the caller gives them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum

from .policy import Limits as Limits
from .policy import Placement as Placement
from .policy import Settings as Settings


class Text(str, Enum):
    """An enum whose value is the text stored, sent and shown."""

    def __str__(self) -> str:
        return str(self.value)


class Mode(Text):
    """How a device is divided. Atom counts: EXCLUSIVE 1, SLOTS n, MIG 1 per instance."""

    EXCLUSIVE = "exclusive"
    SLOTS = "slots"
    MIG = "mig"


class Health(Text):
    """What measurement says about a device."""

    OK = "ok"
    SUSPECT = "suspect"
    BAD = "bad"


class Admin(Text):
    """What an admin decided about a device or a node."""

    OPEN = "open"
    CORDONED = "cordoned"
    DRAINING = "draining"


class NodeState(Text):
    """Whether a machine answers."""

    UP = "up"
    SILENT = "silent"
    DOWN = "down"


class EntryState(Text):
    """Life of a queue entry (DESIGN: state machines)."""

    QUEUED = "queued"
    GRANTED = "granted"
    BOUND = "bound"
    DONE = "done"
    CANCELLED = "cancelled"
    REJECTED = "rejected"


class LeaseState(Text):
    """Life of a lease (DESIGN: state machines)."""

    RESERVED = "reserved"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    RELEASED = "released"


class Target(Text):
    """What shall become of a lease. Only ever moves from RUN to GONE."""

    RUN = "run"
    GONE = "gone"


class Injection(Text):
    """How a device gets into a container."""

    #: Container Device Interface, by fully qualified name
    CDI = "cdi"
    #: NVIDIA's runtime hook, by UUID
    NVIDIA = "nvidia"
    #: a bind mount; only for simulated devices
    BIND = "bind"


class Reason(Text):
    """Why a request waits or is refused, or why a device can't be given out.

    The values are stable: forms, REST, logs and metric labels use them unchanged.
    """

    # of a device
    DEVICE_BUSY = "device_busy"
    DEVICE_FOREIGN = "device_foreign"
    DEVICE_UNHEALTHY = "device_unhealthy"
    DEVICE_CORDONED = "device_cordoned"
    DEVICE_QUARANTINED = "device_quarantined"
    DEVICE_MODEL = "device_model"
    DEVICE_MEMORY = "device_memory"
    DEVICE_SHARING = "device_sharing"
    DEVICE_RESERVED = "device_reserved"
    DEVICE_CAPABILITY = "device_capability"
    DEVICE_UNCAPPED = "device_uncapped"
    DEVICE_OTHER = "device_other"
    # of a node
    NODE_NOT_READY = "node_not_ready"
    NODE_CORDONED = "node_cordoned"
    NODE_MEMORY = "node_memory"
    NODE_CPU = "node_cpu"
    NODE_OTHER = "node_other"
    # of a request: it waits
    WAITING_FOR_DEVICES = "waiting_for_devices"
    BEHIND_OTHERS = "behind_others"
    USER_LIMIT = "user_limit"
    GROUP_LIMIT = "group_limit"
    USER_BUDGET = "user_budget"
    GROUP_BUDGET = "group_budget"
    PREVIOUS_SERVER = "previous_server"
    NOT_ATTACHED = "not_attached"
    LEDGER_UNAVAILABLE = "ledger_unavailable"
    SCHEDULER_STARTING = "scheduler_starting"
    ENGINE_UNAVAILABLE = "engine_unavailable"
    ENGINE_NOT_OURS = "engine_not_ours"
    # of a request: it is refused
    IMPOSSIBLE = "impossible"
    ABOVE_USER_LIMIT = "above_user_limit"
    ABOVE_GROUP_LIMIT = "above_group_limit"
    ABOVE_USER_BUDGET = "above_user_budget"
    ABOVE_GROUP_BUDGET = "above_group_budget"
    TOO_LONG = "too_long"
    OTHERS_WAIT = "others_wait"
    BOOKING_REFUSED = "booking_refused"
    ADMIN_ONLY = "admin_only"
    QUEUE_FULL = "queue_full"
    TOO_MANY_REQUESTS = "too_many_requests"
    # of an end
    STOPPED = "stopped"
    CANCELLED = "cancelled"
    START_TIMEOUT = "start_timeout"
    EXITED = "exited"
    OUT_OF_MEMORY = "out_of_memory"
    VANISHED = "vanished"
    RECLAIMED = "reclaimed"
    IDLE = "idle"
    EVICTED = "evicted"
    NODE_LOST = "node_lost"


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """A GPU, MIG instance or simulated GPU that can be given out."""

    #: NVIDIA UUID (``GPU-…``, ``MIG-…``), or ``SIMULATED-…``; never an index
    id: str
    #: name of the node it sits in
    node: str
    #: number shown to people; never used to choose a device
    index: int = 0
    #: marketing name as NVML gives it, e.g. ``NVIDIA A100-SXM4-80GB``
    model: str = ""
    #: bytes of device memory
    memory: int = 0
    #: how it is divided
    mode: Mode = Mode.EXCLUSIVE
    #: number of parts that can be claimed one by one
    atoms: int = 1
    #: UUID of the GPU that a MIG instance is part of
    parent: str | None = None
    #: CUDA compute capability, ``(8, 0)``; None = unknown
    capability: tuple[int, int] | None = None
    #: bytes of its memory that MPS lets each server have; 0 = nothing caps it
    cap: int = 0
    #: folder on the node of the MPS daemon that serves it; empty = none does
    mps: str = ""
    #: True for a device that exists only for trying things out
    simulated: bool = False
    #: (id of another GPU of the node, what the two are worth to each other): :mod:`.topology`
    bonds: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceStatus:
    """The independent facets of a device; occupancy comes from the claims."""

    #: what measurement says
    health: Health = Health.OK
    #: what an admin decided
    admin: Admin = Admin.OPEN
    #: a process that is not ours uses it
    foreign: bool = False
    #: a stop hung on it; cleared by a new boot id of its node
    quarantined: bool = False
    #: the last report of its source still lists it
    present: bool = True
    #: why, in words, for people
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """A machine with an engine."""

    #: name, unique in the installation
    name: str
    #: bytes of memory of the machine
    memory: int = 0
    #: number of processors
    cpus: float = 0.0
    #: changes with each boot of the machine
    boot_id: str = ""
    #: whether it answers
    state: NodeState = NodeState.UP
    #: what an admin decided
    admin: Admin = Admin.OPEN


@dataclass(frozen=True, kw_only=True, slots=True)
class GPURequest:
    """What a server asks for. ``count`` 0 is a server without GPU (memory still counts)."""

    #: number of devices (of atoms, where ``sharing`` is SLOTS)
    count: int = 0
    #: fnmatch pattern on the model, e.g. ``*A100*``; None = any
    model: str | None = None
    #: least bytes of device memory
    min_memory: int = 0
    #: kind of device
    sharing: Mode = Mode.EXCLUSIVE
    #: bytes of each device's memory that it may have at most, enforced; 0 = no cap is asked for
    cap: int = 0
    #: seconds the user expects to need (the length class); None = no end
    length: float | None = None
    #: CPU limit of the container, in processors; 0 = none
    cpu: float = 0.0
    #: memory limit of the container, bytes; 0 = none (counts as nothing)
    memory: int = 0
    #: least CUDA compute capability, ``(8, 0)``; a device whose own is unknown has less
    min_capability: tuple[int, int] | None = None
    #: name of the only node that will do; None = any
    node: str | None = None
    #: name of the pool that the node has to be in; None = any
    pool: str | None = None
    #: name of a node that will not do; None = any will
    not_node: str | None = None
    #: of equally good nodes, one that has this image already is taken; empty = not known. Two
    #: requests that differ in nothing else are the same: a new image costs nobody his place
    image: str = field(default="", compare=False)
    #: ids of the only devices that will do, ``count`` of them; for admins. Empty = any
    devices: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class ServerKey:
    """Who a lease or queue entry is for. At most one live lease each."""

    hub: str
    user: str
    server: str = ""

    def __str__(self) -> str:
        return f"{self.user}/{self.server}" if self.server else self.user


@dataclass(frozen=True, kw_only=True, slots=True)
class QueueEntry:
    """A request that waits, or has waited."""

    id: str
    key: ServerKey
    #: the user's groups at the time of asking
    groups: tuple[str, ...] = ()
    request: GPURequest
    #: profile name, for people
    profile: str = ""
    #: boot id of the Hub process whose spawn waits
    boot_id: str = ""
    state: EntryState = EntryState.QUEUED
    #: when it was first asked for; kept over restarts
    submitted_at: float = 0.0
    #: order of arrival; kept over restarts
    seq: int = 0
    #: the lease it was granted
    lease_id: str | None = None
    #: from an admin, added to that of the user's groups; higher is first
    priority: int = 0


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Claim:
    """One atom of a device held by a lease."""

    device: str
    atom: int
    lease_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Lease:
    """What a server got, for how long."""

    id: str
    key: ServerKey
    groups: tuple[str, ...] = ()
    request: GPURequest
    profile: str = ""
    #: name of the node
    node: str
    #: atoms held; empty for a server without GPU
    claims: tuple[Claim, ...] = ()
    #: boot id of the Hub process that waited for it
    boot_id: str = ""
    state: LeaseState = LeaseState.RESERVED
    target: Target = Target.RUN
    #: the engine's id of the container, once committed
    container_id: str | None = None
    granted_at: float = 0.0
    #: when the state last moved
    moved_at: float = 0.0
    #: end of the length class; past it merely reclaimable. None = no end
    ends_at: float | None = None
    released_at: float | None = None
    #: epoch of the scheduler that granted it
    epoch: int = 0
    #: why it ended
    reason: Reason | None = None
    #: what the container said when it ended, for people
    note: str = ""
    #: the user was told that it will end
    warned: bool = False
    #: when it will be stopped, as it was warned; None = it was not
    stop_at: float | None = None
    #: the warning is because nobody uses it, not because it is past its length
    idle: bool = False
    #: until when its user has it kept although nobody uses it; None = not
    kept_until: float | None = None
    #: its node does not answer: nothing is known
    uncertain: bool = False
    #: its stop hung
    quarantined: bool = False
    #: GPU seconds in which it was seen whether its GPUs compute; those in which they did
    watched: float = 0.0
    computed: float = 0.0

    @property
    def devices(self) -> tuple[str, ...]:
        """Device ids in claim order, each once."""
        return tuple(dict.fromkeys(claim.device for claim in self.claims))

    @property
    def live(self) -> bool:
        """Whether it still holds its atoms."""
        return self.state is not LeaseState.RELEASED


@dataclass(frozen=True, kw_only=True, slots=True)
class Booking:
    """Devices that an admin keeps for some users in a window of time."""

    id: str
    #: what it is for, for people
    name: str = ""
    #: ids
    devices: tuple[str, ...]
    #: who may use them: members of these groups, and these users
    groups: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    starts_at: float
    ends_at: float
    #: cancelled, or its window has passed
    over: bool = False

    def ended(self) -> Booking:
        """The same, over."""
        return replace(self, over=True)
