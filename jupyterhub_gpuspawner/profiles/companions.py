"""Companions: containers that a profile starts beside a server, without GPUs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError

from . import fields
from .words import Strict

#: a host name on the user's network; never what servers and the Hub are called there
_NAME = re.compile(r"[a-z][a-z0-9]{0,30}(-[a-z0-9]{1,30}){0,3}", re.ASCII)
_TAKEN = ("server", "hub", "localhost")
MOST = 8
DEFAULT_MEMORY, DEFAULT_CPUS = 512 * 1024**2, 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Companion:
    """One companion of a server, checked."""

    name: str
    image: str
    #: None = the image's own
    cmd: tuple[str, ...] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    #: bytes; swap is none
    mem_limit: int = DEFAULT_MEMORY
    cpu_limit: float = DEFAULT_CPUS
    #: the user's home in it: ``ro``, ``rw``, or not at all
    home: str = ""
    #: command that says by its exit code whether it is well
    health: tuple[str, ...] | None = None


class _Words(Strict):
    image: fields.Image
    cmd: fields.Command | None = None
    environment: fields.Environment = {}
    mem_limit: fields.MemoryLimit = DEFAULT_MEMORY
    cpu_limit: fields.CPUs = DEFAULT_CPUS
    home: str = ""
    health: fields.Command | None = None


def parse_companions(value: object) -> dict[str, Companion]:
    """Check a mapping of names to companions. ``ValueError`` with one line."""
    if not isinstance(value, Mapping):
        raise ValueError('must be a mapping, such as {"tensorboard": {"image": "…"}}')
    if len(value) > MOST:
        raise ValueError(f"has {len(value)} companions; at most {MOST}")
    return {str(name): _one(name, words) for name, words in value.items()}


def _one(name: object, words: object) -> Companion:
    if isinstance(words, Companion):  # as it was checked before
        return words
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name.split("-")[0] in _TAKEN:
        raise ValueError(
            f"{str(name)[:60]!r} can't be the name of a companion; want a host name of a-z, 0-9 "
            f"and single -, that does not begin with {', '.join(_TAKEN)}"
        )
    try:
        found = _Words.model_validate(words)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        cause = problem.get("ctx", {}).get("error", problem["msg"])
        raise ValueError(f"{name}: {where}{': ' if where else ''}{cause}") from None
    if found.home not in ("", "ro", "rw"):
        raise ValueError(f'{name}: home: must be "ro" or "rw", or left out')
    if not found.mem_limit or not found.cpu_limit:
        # what it may use counts against the machine, so it has to be a number
        raise ValueError(f"{name}: mem_limit and cpu_limit must be above 0")
    given = {word: getattr(found, word) for word in _Words.model_fields}
    return Companion(name=name, **given)
