"""What the API accepts, checked to the last field.

Anything else is an error with one clear line, never an exception further in.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from ..errors import RequestError
from ..scheduler.models import Admin, GPURequest, Mode, Reason
from ..units import MAX_DURATION, MAX_MEMORY

#: any text but NUL, which databases refuse
_Name = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00]+$")]
_Text = Annotated[str, StringConstraints(max_length=255, pattern=r"^[^\x00]*$")]
_Line = Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
_Words = Annotated[str, StringConstraints(max_length=20_000)]
_Version = Annotated[int, Field(ge=0, le=999)]
_Id = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


B = TypeVar("B", bound=_Body)


class Request(_Body):
    """The GPUs, memory and processors asked for."""

    count: int = Field(0, ge=0, le=1024)
    model: _Text | None = None
    min_memory: int = Field(0, ge=0, le=MAX_MEMORY)
    sharing: Mode = Mode.EXCLUSIVE
    cap: int = Field(0, ge=0, le=MAX_MEMORY)
    length: float | None = Field(None, gt=0, le=MAX_DURATION)
    cpu: float = Field(0.0, ge=0, le=65536)
    memory: int = Field(0, ge=0, le=MAX_MEMORY)
    min_capability: tuple[_Version, _Version] | None = None
    node: _Name | None = None
    pool: _Name | None = None
    not_node: _Name | None = None
    devices: list[_Name] = Field(default_factory=list, max_length=1024)
    image: _Text = ""

    def value(self) -> GPURequest:
        """The same as the scheduler's value."""
        return GPURequest(
            count=self.count,
            model=self.model,
            min_memory=self.min_memory,
            sharing=self.sharing,
            cap=self.cap,
            length=self.length,
            cpu=self.cpu,
            memory=self.memory,
            min_capability=self.min_capability,
            node=self.node,
            pool=self.pool,
            not_node=self.not_node,
            devices=tuple(self.devices),
            image=self.image,
        )


class Ask(_Body):
    """``POST requests``."""

    id: _Id | None = None
    user: _Name
    server: _Text = ""
    groups: list[_Text] = Field(default_factory=list, max_length=1000)
    profile: _Text = ""
    boot_id: _Text = ""
    admin: bool = False
    request: Request = Field(default_factory=lambda: Request.model_validate({}))


class Hello(_Body):
    """``POST hub``."""

    boot_id: _Id


class Extend(_Body):
    """``POST leases/<id>/extend``. The new end, in POSIX seconds."""

    ends_at: float = Field(ge=0, le=1e11)


class Activity(_Body):
    """``POST leases/<id>/activity``. Seconds since the server was last used."""

    idle_for: float | None = Field(None, ge=0, le=1e11)
    groups: list[_Text] | None = Field(None, max_length=1000)


class Book(_Body):
    """``POST bookings``. Times are POSIX seconds."""

    id: _Id | None = Field(None, description="your own, so that asking twice books once")
    name: _Text = Field("", description="what it is for; everybody may read it")
    devices: list[_Name] = Field(default_factory=list, max_length=10_000, description="UUIDs")
    nodes: list[_Name] = Field(
        default_factory=list, max_length=1000, description="machines, with all of their GPUs"
    )
    groups: list[_Name] = Field(
        default_factory=list, max_length=1000, description="whose members it is for"
    )
    users: list[_Name] = Field(
        default_factory=list, max_length=10_000, description="whom else it is for"
    )
    starts_at: float = Field(ge=0, le=1e11, description="POSIX seconds")
    ends_at: float = Field(ge=0, le=1e11, description="POSIX seconds, to come")


class Nothing(_Body):
    """``POST …/cancel`` and ``…/running``."""


class Bind(_Body):
    """``POST leases/<id>/bind``."""

    container_id: _Id


class Stopping(_Body):
    """``POST leases/<id>/stopping``."""

    reason: Reason = Reason.STOPPED


class Ended(_Body):
    """``POST leases/<id>/ended``."""

    reason: Reason = Reason.EXITED
    note: _Words = ""
    exit_code: int | None = Field(None, ge=-(2**31), lt=2**32)
    oom: bool = False


class SetAdmin(_Body):
    """``POST devices/<id>/admin`` and ``nodes/<id>/admin``."""

    admin: Admin = Field(
        description="open; cordoned = nothing new is granted; draining = the same, to be emptied"
    )
    note: _Line = Field("", description="why; for other admins and the journal")


class Lost(_Body):
    """``POST nodes/<id>/lost``."""

    empty: bool = Field(
        False,
        description="you have made sure that nothing of it runs any more: its GPUs may be given "
        "out again should it come back",
    )
    note: _Line = Field("", description="why; kept in the journal")


class Evict(_Body):
    """``POST leases/<id>/evict``."""

    message: _Line = Field("", description="what the user of the server reads")


class Priority(_Body):
    """``POST queue/<id>/priority``."""

    priority: int = Field(
        ge=-1000, le=1000, description="higher is served first; 0 = like the others"
    )


def read(model: type[B], data: bytes) -> B:
    """Read a body; an empty one counts as ``{}``. Raises ``RequestError`` with one line."""
    try:
        return model.model_validate_json(data or b"{}")
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])[:200]
        text = f"{where}: {first['msg']}" if where else str(first["msg"])
        raise RequestError(" ".join(text.split())) from None
