"""Changed copies of frozen values, made quickly.

A decision stores two or three whole values, each a copy with a field or two changed. A frozen
dataclass writes each field by a call, which took a tenth of all the time of a decision; here a
class that is not frozen takes the fields, and its object becomes one of the frozen class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, Field, field, fields, make_dataclass
from functools import cache
from operator import attrgetter
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


def maker(kind: type[T]) -> Callable[..., T]:
    """``kind`` as it is called with its fields by name, made quickly in the same way."""
    if hasattr(kind, "__post_init__") or "__slots__" not in vars(kind):
        return kind
    all_fields = [(each.name, each.type, _same(each)) for each in fields(cast("Any", kind))]
    draft = make_dataclass("Draft", all_fields, slots=True, kw_only=True)

    def make(**values: Any) -> T:
        made = draft(**values)
        made.__class__ = kind
        return made

    return make


def _same(one: Field[Any]) -> Any:
    """A field with the same default, for another class."""
    if one.default_factory is not MISSING:
        return field(default_factory=one.default_factory)
    return field(default=one.default)


@cache
def _drafts(kind: Any) -> tuple[Any, Any]:
    """How to read all fields of such a value at once, and a class like it that is not frozen."""
    names = kind.__slots__
    if len(names) < 2 or hasattr(kind, "__post_init__"):
        raise TypeError(f"{kind.__name__}: not a dataclass with slots and several fields")
    return attrgetter(*names), make_dataclass("Draft", names, slots=True)


__all__ = ["maker", "replace"]
