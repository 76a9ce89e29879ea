"""One thing that is wrong, or that could not be looked at, with its fix. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from ..scheduler.models import Text

#: everything was looked at, and nothing found
FINE = 0
#: something was found
FOUND = 3
#: nothing was found, but not everything could be looked at
NOT_ALL_SEEN = 4


class Level(Text):
    """How bad it is."""

    #: servers fail to start, are lost, or users reach what they must not
    ERROR = "error"
    #: it works, but slower or with less safety than it could
    WARNING = "warning"
    #: it could not be looked at
    UNKNOWN = "unknown"


#: in this order people read them
_ORDER = tuple(Level)


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What a check has found."""

    #: name of the check, such as ``image.root-user``
    check: str
    level: Level
    #: one sentence: what is so
    what: str
    #: one sentence: what comes of it
    why: str
    #: a command or a line of configuration
    fix: str
    #: which one, where there are several: an image, a file; empty = the site
    about: str = ""

    def as_json(self) -> dict[str, Any]:
        """For a program."""
        return {**asdict(self), "level": self.level.value}


@dataclass(frozen=True, kw_only=True, slots=True)
class Unknown:
    """Instead of a fact: it could not be had."""

    #: why, in one line
    why: str


def unseen(check: str, why: str, fix: str, about: str = "") -> Finding:
    """The finding that something could not be looked at."""
    return Finding(
        check=check,
        level=Level.UNKNOWN,
        what=f"not looked at: {why}",
        why="What can't be seen may be wrong.",
        fix=fix,
        about=about,
    )


def ordered(found: Iterable[Finding]) -> list[Finding]:
    """The worst first; of one level as they came."""
    return sorted(found, key=lambda one: _ORDER.index(one.level))


def exit_code(found: Iterable[Finding]) -> int:
    """What a script wants to know."""
    levels = {one.level for one in found}
    if levels & {Level.ERROR, Level.WARNING}:
        return FOUND
    return NOT_ALL_SEEN if levels else FINE


def as_text(found: Iterable[Finding]) -> str:
    """For people: a line for each, and below it why and what to do."""
    parts = []
    for one in found:
        about = f" ({one.about})" if one.about else ""
        parts.append(
            f"{one.level.value}: {one.check}{about}: {one.what}\n"
            f"    why: {one.why}\n"
            f"    fix: {one.fix}"
        )
    return "\n".join(parts)
