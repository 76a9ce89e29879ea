"""The limits of a server as options of the spawner, for what its profile doesn't say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jupyterhub.traitlets import ByteSpecification
from jupyterhub.traitlets import Callable as CallableTrait
from traitlets import Dict, Integer, TraitError, Union, validate
from traitlets.config import Configurable

from .engine.limits import parse_limits
from .errors import ConfigError
from .units import MAX_MEMORY as MOST
from .units import parse_memory

#: what a server gets where its profile doesn't say: trait names
LIMIT_TRAITS = (
    "cpu_limit",
    "cpu_guarantee",
    "mem_limit",
    "mem_guarantee",
    "swap",
    "pids_limit",
    "shm_size",
    "ulimits",
)

#: those of them that are bytes
SIZES = frozenset({"mem_limit", "mem_guarantee", "swap", "shm_size"})

BAD_CONFIG = "The limits of this Hub are not set up rightly. Please tell an administrator."


class LimitTraits(Configurable):
    """Limits beside the Hub's own ``mem_limit``, ``cpu_limit`` and guarantees.

    Each may be a callable that takes the spawner; it is asked at each spawn. (DockerSpawner asks
    its callables once, when the spawner is made.)
    """

    gpus = Union(
        [CallableTrait(), Integer(min=0)],
        default_value=0,
        config=True,
        help="""
        Number of GPUs of a server where there is no ``profile_list``.

        A whole number, or a callable that takes the spawner and returns one; it is called at
        each spawn. 0 = a server without GPU, which can't see any.

        .. versionadded:: 0.1
        """,
    )

    swap = Union(
        [CallableTrait(), ByteSpecification()],
        default_value=0,
        config=True,
        help="""
        Swap a server may use on top of ``mem_limit``.

        Bytes, or text with a suffix (``"2G"``), or a callable that takes the spawner. 0 = none,
        so that the memory limit is what it says (Docker's own default would double it).

        .. versionadded:: 0.1
        """,
    )

    pids_limit = Union(
        [CallableTrait(), Integer(min=0)],
        default_value=4096,
        config=True,
        help="""
        Processes and threads a server may have.

        A whole number, or a callable that takes the spawner. A fork bomb ends here; data
        loaders with many workers do not. 0 = no limit.

        .. versionadded:: 0.1
        """,
    )

    shm_size = Union(
        [CallableTrait(), ByteSpecification()],
        default_value=None,
        allow_none=True,
        config=True,
        help="""
        Size of ``/dev/shm``, which data loaders use.

        Bytes, or text with a suffix (``"8G"``), or a callable that takes the spawner. It counts
        within ``mem_limit``. None = half of ``mem_limit``, or 1 GiB without one.

        .. versionadded:: 0.1
        """,
    )

    ulimits = Union(
        [CallableTrait(), Dict()],
        config=True,
        help="""
        Kernel limits of a server's processes.

        A dict of name to number, or to a pair [soft, hard]; -1 = unlimited. Or a callable that
        takes the spawner. Example: ``{"memlock": -1, "nofile": [65536, 65536]}``. Empty = what
        the engine gives.

        .. versionadded:: 0.1
        """,
    )

    @validate("mem_limit")
    def _mem_limit_str(self, proposal: Any) -> Any:
        return proposal.value

    @validate("cpu_limit")
    def _cast_cpu_limit(self, proposal: Any) -> Any:
        return proposal.value

    @validate("swap", "shm_size", "pids_limit", "ulimits", "gpus")
    def _sane(self, proposal: Any) -> Any:
        name, value = proposal.trait.name, proposal.value
        if callable(value) or value is None:
            return value
        try:
            if isinstance(value, bool):
                raise ConfigError(f"{name} is {value!r}; want a number")
            if name != "gpus":
                # swap is on top of a memory limit
                parse_limits({"mem_limit": MOST, name: value})
        except ConfigError as error:
            raise TraitError(str(error)) from None
        return value

    def limit(self, name: str) -> Any:
        """The value of a trait for this spawn. ConfigError if its callable returns nonsense."""
        value = getattr(self, name)
        if not callable(value):
            return value
        value = value(self)
        if name == "gpus" and (type(value) is not int or value < 0):
            raise ConfigError(
                f"gpus: its callable returned {value!r}; want a whole number, 0 or more", BAD_CONFIG
            )
        if name in SIZES and isinstance(value, str):
            try:
                return parse_memory(value)
            except ValueError as error:
                raise ConfigError(f"{name}: {error}", BAD_CONFIG) from error
        return value


def plain_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Limits and image among a spawner's own values, without those that are worked out."""
    words = ("mem_limit", "cpu_limit", "image")
    return {word: values[word] for word in words if word in values and not callable(values[word])}
