"""Limits of a container: what the kernel enforces, and the defaults that keep users apart.

Pure functions: limits -> keywords of docker's ``create_host_config``. Words as in JupyterHub:
a *limit* is a ceiling, a *guarantee* is a promise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from docker.types import Ulimit

from ..errors import ConfigError
from ..units import parse_memory

MIB, GIB = 2**20, 2**30

#: processes and threads of one server: a fork bomb ends here, data loaders with many workers
#: do not
DEFAULT_PIDS = 4096
#: ``/dev/shm`` of a server without a memory limit
DEFAULT_SHM = GIB
#: the scheduling period that the CPU quota is a share of, in microseconds
CPU_PERIOD = 100_000
#: Docker refuses less than these
LEAST_MEMORY = 6 * MIB
LEAST_CPU = 0.01

#: names that Docker knows (go-units)
ULIMIT_NAMES = (
    *("core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile"),
    *("nproc", "rss", "rtprio", "rttime", "sigpending", "stack"),
)

_ULIMIT_HELP = "a number, a pair [soft, hard] or text 'soft:hard'; -1 = unlimited"


@dataclass(frozen=True, kw_only=True, slots=True)
class ResourceLimits:
    """What one server may use. Checked when made: a wrong value is a :class:`ConfigError`."""

    #: bytes of memory, page cache included; None = no limit
    mem_limit: int | None = None
    #: bytes the kernel takes back last when the machine is short; None = no promise
    mem_guarantee: int | None = None
    #: bytes of swap on top of ``mem_limit``; 0 = none, -1 = all the machine has
    swap: int = 0
    #: processors, e.g. 1.5; None = no limit
    cpu_limit: float | None = None
    #: processes and threads; None = no limit
    pids_limit: int | None = DEFAULT_PIDS
    #: bytes of ``/dev/shm``, counted within ``mem_limit``; None = half of ``mem_limit``, or
    #: 1 GiB without one
    shm_size: int | None = None
    #: (name, soft, hard); -1 = unlimited
    ulimits: tuple[tuple[str, int, int], ...] = ()

    def __post_init__(self) -> None:
        _at_least("mem_limit", self.mem_limit, LEAST_MEMORY)
        _at_least("mem_guarantee", self.mem_guarantee, LEAST_MEMORY)
        _at_least("cpu_limit", self.cpu_limit, LEAST_CPU)
        _at_least("pids_limit", self.pids_limit, 1)
        _at_least("shm_size", self.shm_size, 1)
        _at_least("swap", self.swap, -1)
        if self.mem_limit is None and self.swap > 0:
            raise _wrong("swap", self.swap, "0 or -1 where mem_limit is not set")
        if self.mem_limit is not None and (self.mem_guarantee or 0) > self.mem_limit:
            raise _wrong("mem_guarantee", self.mem_guarantee, f"at most mem_limit {self.mem_limit}")

    @property
    def shm_bytes(self) -> int:
        """Bytes of ``/dev/shm`` that the container gets."""
        if self.shm_size is not None:
            return self.shm_size
        return DEFAULT_SHM if self.mem_limit is None else max(self.mem_limit // 2, MIB)


def parse_limits(values: Mapping[str, object]) -> ResourceLimits:
    """Read limits from a profile or from traits.

    Parameters
    ----------
    values:
        Fields of :class:`ResourceLimits`; a missing field has its default. Sizes are bytes or
        text (``"8G"``). ``pids_limit`` 0, ``mem_limit`` 0 and ``cpu_limit`` 0 mean no limit,
        as in JupyterHub. ``ulimits`` is ``{"nofile": 65536, "memlock": [-1, -1]}``.

    Raises
    ------
    ConfigError
        An unknown field or a wrong value; the text has the field, the value and what is allowed.
    """
    known = {field.name for field in fields(ResourceLimits)}
    for name in values:
        if name not in known:
            raise ConfigError(f"{name!r} is not a limit; allowed: {', '.join(sorted(known))}")
    given = dict(values)
    parsed: dict[str, Any] = {}
    for name in ("mem_limit", "mem_guarantee", "shm_size"):
        if name in given:
            parsed[name] = parse_size(name, given[name]) or None
    if "swap" in given:
        swap = given["swap"]
        parsed["swap"] = -1 if swap in (-1, "-1") else parse_size("swap", swap) or 0
    if "cpu_limit" in given:
        parsed["cpu_limit"] = _number("cpu_limit", given["cpu_limit"]) or None
    if "pids_limit" in given:
        parsed["pids_limit"] = _integer("pids_limit", given["pids_limit"]) or None
    if "ulimits" in given:
        parsed["ulimits"] = _ulimits(given["ulimits"])
    return ResourceLimits(**parsed)


def parse_size(name: str, value: object) -> int | None:
    """Read a size in bytes from ``8589934592``, ``"8G"``, ``"1.5G"`` or None.

    ConfigError with ``name``, the value and what is allowed.
    """
    if value is None:
        return None
    try:
        return parse_memory(value)
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from None


def host_config(limits: ResourceLimits) -> dict[str, Any]:
    """Return the keywords of ``create_host_config`` that set ``limits``.

    Without ``memswap_limit`` Docker allows as much swap again as memory. The CPU limit is a
    quota and not ``nano_cpus``: Docker refuses nano_cpus above the machine's count, and refuses
    both together, and DockerSpawner sets the quota.
    """
    config: dict[str, Any] = {"shm_size": limits.shm_bytes}
    if limits.mem_limit is not None:
        config["mem_limit"] = limits.mem_limit
        swap = limits.swap
        config["memswap_limit"] = -1 if swap == -1 else limits.mem_limit + swap
    if limits.mem_guarantee is not None:
        config["mem_reservation"] = limits.mem_guarantee
    if limits.cpu_limit is not None:
        config["cpu_period"] = CPU_PERIOD
        config["cpu_quota"] = round(limits.cpu_limit * CPU_PERIOD)
    if limits.pids_limit is not None:
        config["pids_limit"] = limits.pids_limit
    if limits.ulimits:
        config["ulimits"] = [Ulimit(name=n, soft=s, hard=h) for n, s, h in limits.ulimits]
    return config


def isolation() -> dict[str, Any]:
    """Return the keywords of ``create_host_config`` that every server gets by default.

    A single-user server that runs as a normal user needs no capability: it binds a high port,
    writes its home and signals its own processes. An image that starts as root to change the
    user (docker-stacks' ``NB_UID``) does need some; its admin gives them back by name.
    """
    return {"cap_drop": ["ALL"], "security_opt": ["no-new-privileges:true"]}


def _ulimits(value: object) -> tuple[tuple[str, int, int], ...]:
    if value is None:
        return ()
    if not isinstance(value, Mapping):
        raise _wrong("ulimits", value, "a mapping of name to limit, e.g. {'nofile': 65536}")
    result = []
    for name, limit in sorted(value.items(), key=lambda item: str(item[0])):
        if name not in ULIMIT_NAMES:
            raise _wrong("ulimits", name, ", ".join(ULIMIT_NAMES))
        soft, hard = _soft_hard(f"ulimits.{name}", limit)
        if hard != -1 and (soft == -1 or soft > hard):
            raise _wrong(f"ulimits.{name}", limit, "a soft limit of at most the hard limit")
        result.append((name, soft, hard))
    return tuple(result)


def _soft_hard(field: str, limit: object) -> tuple[int, int]:
    """Read one ulimit as (soft, hard)."""
    parts: Sequence[object]
    if isinstance(limit, str):
        parts = limit.split(":")
    elif isinstance(limit, (list, tuple)):
        parts = limit
    else:
        parts = [limit]
    try:
        numbers = [_integer(field, part) for part in parts]
    except ConfigError:
        raise _wrong(field, limit, _ULIMIT_HELP) from None
    if len(numbers) not in (1, 2) or any(number is None or number < -1 for number in numbers):
        raise _wrong(field, limit, _ULIMIT_HELP)
    soft, hard = numbers[0], numbers[-1]
    assert soft is not None and hard is not None
    return soft, hard


def _number(name: str, value: object) -> float | None:
    if value is None:
        return None
    try:
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise ValueError
        number = float(value)
    except ValueError:
        raise _wrong(name, value, "a number, e.g. 1.5") from None
    if not math.isfinite(number):
        raise _wrong(name, value, "a number, e.g. 1.5")
    return number


def _integer(name: str, value: object) -> int | None:
    number = _number(name, value)
    if number is not None and number != int(number):
        raise _wrong(name, value, "a whole number")
    return None if number is None else int(number)


def _at_least(name: str, value: float | None, least: float) -> None:
    if value is not None and (isinstance(value, bool) or value < least):
        raise _wrong(name, value, f"{least} or more")


def _wrong(name: str, value: object, allowed: str) -> ConfigError:
    return ConfigError(f"{name} is {value!r}; allowed: {allowed}")
