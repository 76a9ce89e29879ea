"""What the API gives; what it takes is in :mod:`.bodies`. The OpenAPI document is made of both."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

R = TypeVar("R")

#: most items of one answer
MOST = 1000


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Booked(_Answer):
    """A window of time for which a device is booked."""

    name: str
    starts_at: float = Field(description="POSIX seconds")
    ends_at: float = Field(description="POSIX seconds")


class Device(_Answer):
    """A GPU, or a part of one."""

    id: str = Field(description="UUID of the device")
    index: int = Field(description="its number on its machine")
    model: str
    memory: int = Field(description="bytes")
    node: str = Field(description="name of its machine")
    simulated: bool = Field(description="true = it only stands for a GPU")
    capability: list[int] | None = Field(description="CUDA compute capability, such as [9, 0]")
    booked: list[Booked] = Field(description="windows of time for which it is booked")
    pools: list[str]
    state: str = Field(description="free, busy or unavailable")
    reason: str | None = Field(description="why it can't be given out now")
    explanation: str = Field(description="the reason in words")
    used_by: str = Field(description="servers that hold it; 'in use' where you may not see whose")
    note: str = Field(description="what an admin or a source said of it; for admins")


class ImagePull(_Answer):
    """An image that all machines of a Swarm are told to pull."""

    image: str
    state: str = Field(description="waiting, pulling, silent, or why it failed")


class Node(_Answer):
    """A machine."""

    name: str
    state: str = Field(description="up, silent or down")
    reason: str | None = Field(description="why nothing is granted on it now")
    explanation: str
    memory: int = Field(description="bytes")
    memory_granted: int = Field(description="bytes that servers have as their limit")
    memory_budget: int = Field(description="bytes that servers may have in all")
    cpus: float
    pulls: list[ImagePull] = Field(description="images that are pulled there now; for admins")


class Lease(_Answer):
    """What a server holds."""

    id: str
    server: str = Field(description="user, or user/server")
    profile: str
    node: str
    devices: list[str]
    indexes: list[int]
    simulated: bool
    memory: int = Field(description="bytes; 0 = no limit")
    cap: int = Field(description="bytes of each GPU's memory, enforced by MPS; 0 = none")
    cpu: float = Field(description="processors; 0 = no limit")
    state: str
    uncertain: bool = Field(description="its machine does not answer, so nobody knows how it is")
    starved: bool = Field(description="the kernel killed a process of it for memory")
    trouble: list[str] = Field(description="what is wrong with its GPUs")
    granted_at: float = Field(description="POSIX seconds")
    ends_at: float | None = Field(description="POSIX seconds; null = no length was asked for")
    stop_at: float | None = Field(
        description="POSIX seconds; it is warned, and will be stopped then. null = not"
    )
    idle: bool = Field(description="the warning is because nobody uses it")
    kept_until: float | None = Field(
        description="POSIX seconds; until then it is kept although nobody uses it. null = not"
    )


class Place(_Answer):
    """A place in the queue."""

    id: str = Field(description="of the request; empty where it is not yours to see")
    position: int = Field(description="1 = next")
    server: str = Field(description="empty where it is not yours to see")
    gpus: int
    message: str = Field(description="why it waits; empty where it is not yours to see")
    since: float = Field(description="POSIX seconds")
    expected_at: float | None = Field(
        description="POSIX seconds: when it will probably start, from how long servers really "
        "stay; null = nobody can say, or it is not yours to see"
    )
    priority: int = Field(description="what an admin gave it; higher is first, 0 = like others")


class Booking(_Answer):
    """GPUs that are kept for some users in a window of time."""

    id: str
    name: str
    devices: list[str]
    groups: list[str] = Field(description="whom it is for; empty where it is not yours to see")
    users: list[str] = Field(description="whom it is for; empty where it is not yours to see")
    starts_at: float = Field(description="POSIX seconds")
    ends_at: float = Field(description="POSIX seconds")


class Group(_Answer):
    """What a group holds, and may hold."""

    name: str
    held: int = Field(description="GPUs in servers of its members")
    waiting: int = Field(description="requests of its members that wait")
    limit: int | None = Field(description="most GPUs at a time; null = any number")
    quota: int | None = Field(description="GPUs that are its own; null = it has no share")
    borrow: int | None = Field(description="GPUs above its quota, while free; null = any number")
    weight: float | None = Field(description="of its share; null = it has none")
    parent: str = Field(description="the share that its own is a part of; empty = of the whole")
    priority: int = Field(description="higher is served first; 0 = like others")
    budget_hours: float | None = Field(description="GPU hours in a period; null = no budget")
    budget_period: float | None = Field(description="seconds; null = no budget")
    spent_hours: float | None = Field(description="GPU hours charged in the period that is now")
    period_ends_at: float | None = Field(description="POSIX seconds; null = no budget")


class Used(_Answer):
    """What one user or group had of the GPUs in one period."""

    who: str = Field(description="user or group; empty = all together, or in no group")
    starts_at: float = Field(description="POSIX seconds: beginning of the period")
    ends_at: float = Field(description="POSIX seconds: its end")
    servers: int = Field(description="servers with GPUs that ran in it")
    reserved_hours: float = Field(description="GPU hours that servers held")
    used_hours: float = Field(description="of those, the ones in which a GPU was seen to compute")
    wasted_hours: float = Field(description="of those, the ones in which none was seen to")
    unknown_hours: float = Field(description="of those, the ones in which nobody could look")


class Usage(_Answer):
    """A part of a report."""

    items: list[Used]
    total: int = Field(description="length of the whole list")
    starts_at: float = Field(description="POSIX seconds: what the report begins with")
    ends_at: float = Field(description="POSIX seconds: where it ends")


class Note(_Answer):
    """Something that was done, or that happened, and by whom."""

    seq: int
    time: float = Field(description="POSIX seconds")
    kind: str = Field(description="`admin` = somebody acted; others say what happened")
    subject: str = Field(description="device, machine, server, request or booking")
    text: str = Field(description="what was done, and who did it")


class Audit(_Answer):
    """A part of the audit log, the newest first."""

    items: list[Note]
    next: int | None = Field(description="the 'before' of the next part; null = this was the last")


class Record(_Answer):
    """One line of the journal: a decision that was stored."""

    seq: int
    time: float = Field(description="POSIX seconds")
    epoch: int = Field(description="number of the scheduler's life")
    decision: dict[str, Any] = Field(description="as the ledger keeps it")


class NodeAnswer(_Answer):
    """What one machine has, or had, for a request."""

    node: str
    free: int = Field(description="suitable GPUs that are free")
    usable: int = Field(description="suitable GPUs that work, free or not")
    links: int | None = Field(
        description="NVLinks among the best free ones, as many as are asked for; null = not known"
    )
    reason: str | None = Field(description="why it can't serve the request; null = it can")
    chosen: bool


class Explanation(_Answer):
    """Why a request waits, or why a server got its GPUs."""

    id: str
    server: str
    state: str = Field(description="`waiting` or `granted`")
    at: float = Field(description="POSIX seconds: when it was asked for, or granted")
    reason: str | None = Field(description="why it waits; null = it was granted")
    position: int | None = Field(description="1 = next; null = it was granted")
    devices: list[str]
    nodes: list[NodeAnswer]
    words: list[str] = Field(description="all of it in sentences")


class Page(_Answer, Generic[R]):
    """A part of a list."""

    items: list[R]
    total: int = Field(description="length of the whole list")


class Journal(_Answer):
    """A part of the journal."""

    items: list[Record]
    next: int | None = Field(description="the 'after' of the next part; null = this was the last")


class Error(_Answer):
    """What every refusal looks like."""

    reason: str = Field(description="a word for programs")
    message: str = Field(description="a sentence for people")


class Done(_Answer):
    """It is stored."""

    ok: bool = True


class Made(Done):
    """It is stored, under this id."""

    id: str
