"""What happens to the scheduler: the inputs of :meth:`SchedulerState.handle`.

Events are facts or wishes from outside. They are not stored: the decisions they lead to are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Union

from .models import (
    Admin,
    Booking,
    Device,
    DeviceStatus,
    GPURequest,
    Node,
    NodeState,
    Reason,
    ServerKey,
    Settings,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Submitted:
    """A spawn asks, or asks again, and waits for the answer (it is *attached*)."""

    #: id for the entry, and its lease, should this be a new one
    entry_id: str
    key: ServerKey
    groups: tuple[str, ...] = ()
    request: GPURequest
    profile: str = ""
    boot_id: str = ""
    #: the user may ask for devices by name
    admin: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Detached:
    """The waiting spawn went away without a word. Not a cancel."""

    entry_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Taken:
    """The spawn has heard of its grant: from now on it gives the lease back itself."""

    entry_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Cancelled:
    """The user does not want it any more."""

    entry_id: str
    reason: Reason = Reason.CANCELLED


@dataclass(frozen=True, kw_only=True, slots=True)
class PriorityGiven:
    """An admin has a request served before, or after, the others. 0 = like them."""

    entry_id: str
    priority: int


@dataclass(frozen=True, kw_only=True, slots=True)
class BootSeen:
    """A Hub process shows itself. Entries of any other boot belong to a dead Hub."""

    boot_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class BindAsked:
    """The container of a lease is created and shall be started. Refused where target is GONE."""

    lease_id: str
    container_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ContainerRunning:
    """The engine says that the recorded container runs."""

    lease_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StopWanted:
    """The server shall go: intent, stored before anything is stopped."""

    lease_id: str
    reason: Reason = Reason.STOPPED
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class StopHung:
    """A stop does not come to an end (GPU off the bus, process in D state).

    The devices of the lease are quarantined until their node shows a new boot id.
    """

    lease_id: str
    #: what was seen, for people
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ContainerGone:
    """Proof: the engine answered "no such container" for the recorded id."""

    lease_id: str
    container_id: str
    reason: Reason = Reason.VANISHED
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ContainerFound:
    """A running container of ours that no live lease knows. It is adopted, never killed."""

    lease_id: str
    container_id: str
    key: ServerKey
    node: str
    devices: tuple[str, ...]
    request: GPURequest
    profile: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeReported:
    """What a node's sources and engine say now. Devices not listed are no longer present."""

    node: Node
    devices: tuple[tuple[Device, DeviceStatus], ...]
    #: listed devices whose memory was not seen empty: released ones are not granted again yet
    occupied: frozenset[str] = frozenset()
    #: device -> whether it computed when it was looked at; those of which that is not known
    #: are not in it
    working: Mapping[str, bool] = field(default_factory=dict)
    #: when the sources began to look; None = now. Says nothing about what was released later
    taken_at: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeReconciled:
    """Ledger and engine of the node were compared in this epoch: grants may begin."""

    node: str


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeChanged:
    """The node went silent, down, or answers again."""

    node: str
    state: NodeState


@dataclass(frozen=True, kw_only=True, slots=True)
class ImagesSeen:
    """Images are on nodes, whether or not a server of them ever ran there."""

    #: image -> names of nodes
    images: Mapping[str, frozenset[str]]


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeLost:
    """An admin says that a node is gone for good: its servers' users are free of them.

    What ran there keeps its devices until it is proven gone; see :mod:`.lost`. Refused while the
    node answers.
    """

    node: str
    #: the admin has made sure that nothing of it runs any more: the devices are free too
    empty: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class AdminAsked:
    """An admin cordons, drains or opens a device or a node (exactly one of the two)."""

    admin: Admin
    device: str | None = None
    node: str | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtensionAsked:
    """The user would like to keep a server longer."""

    lease_id: str
    #: the new end of its length, POSIX seconds
    ends_at: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ActivitySeen:
    """A server was asked what its user does, kernels and terminals. Not about its GPUs."""

    lease_id: str
    #: seconds since it was last used; None = it did not say
    idle_for: float | None
    #: the user's groups now; None = as at the grant
    groups: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class KeepAsked:
    """The user wants an unused server to be left alone for a while."""

    lease_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Booked:
    """An admin keeps devices for some users in a window of time."""

    booking: Booking


@dataclass(frozen=True, kw_only=True, slots=True)
class BookingCancelled:
    """An admin does not keep them any more."""

    booking_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SettingsChanged:
    """The policy's numbers changed. Never stops anything."""

    settings: Settings


@dataclass(frozen=True, kw_only=True, slots=True)
class Tick:
    """Time has passed: look at the deadlines."""


Event = Union[  # noqa: UP007 (a value at run time on 3.10)
    Submitted,
    Detached,
    Taken,
    Cancelled,
    PriorityGiven,
    BootSeen,
    BindAsked,
    ContainerRunning,
    StopWanted,
    StopHung,
    ContainerGone,
    ContainerFound,
    NodeReported,
    NodeReconciled,
    NodeChanged,
    ImagesSeen,
    NodeLost,
    AdminAsked,
    ExtensionAsked,
    ActivitySeen,
    KeepAsked,
    Booked,
    BookingCancelled,
    SettingsChanged,
    Tick,
]
