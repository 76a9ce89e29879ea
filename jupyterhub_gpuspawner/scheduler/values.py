"""Changed copies of frozen values, made quickly.

A decision stores two or three whole values, each a copy with a field or two changed. A frozen
dataclass writes each field by a call, which took a tenth of all the time of a decision; here a
class that is not frozen takes the fields, and its object becomes one of the frozen class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, fields, make_dataclass
from functools import cache
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any, TypeVar, cast

T = TypeVar("T")

if TYPE_CHECKING:
    # the same, so that field names and types are checked
    from dataclasses import replace
else:

    def replace(value: Any, /, **changes: Any) -> Any:
        """A copy with some fields changed. For dataclasses with slots that check nothing."""
        kind = type(value)
        read, draft = _drafts(kind)
        copy = draft(*read(value))
        for name, field in changes.items():
            setattr(copy, name, field)
        # the slots are the same, so that it may become one of the frozen ones
        copy.__class__ = kind
        return copy


def maker(kind: type[T]) -> Callable[[dict[str, Any]], T]:
    """What makes a ``kind`` of its fields by name, quickly in the same way.

    What it is given is its own from then on: fields that are not there are added.
    """
    names = vars(kind).get("__slots__", ())
    if len(names) < 2 or hasattr(kind, "__post_init__"):
        return lambda values: kind(**values)
    a_kind = cast("Any", kind)
    read, draft = itemgetter(*names), _drafts(a_kind)[1]
    defaults = {each.name: each.default for each in fields(a_kind)}
    factories = {each.name: each.default_factory for each in fields(a_kind)}

    def make(values: dict[str, Any]) -> T:
        if len(values) < len(names):
            for name in names:
                if name not in values:
                    values[name] = _default(kind, name, defaults[name], factories[name])
        made = draft(*read(values))
        made.__class__ = kind
        return cast("T", made)

    return make


def _default(kind: type[Any], name: str, value: Any, make: Any) -> Any:
    """What the field is where nobody says."""
    if make is not MISSING:
        return make()
    if value is MISSING:
        raise TypeError(f"{kind.__name__}: {name} is missing")
    return value


@cache
def _drafts(kind: Any) -> tuple[Any, Any]:
    """How to read all fields of such a value at once, and a class like it that is not frozen."""
    names = kind.__slots__
    if len(names) < 2 or hasattr(kind, "__post_init__"):
        raise TypeError(f"{kind.__name__}: not a dataclass with slots and several fields")
    return attrgetter(*names), make_dataclass("Draft", names, slots=True)


__all__ = ["maker", "replace"]
