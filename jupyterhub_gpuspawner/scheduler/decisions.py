"""What the scheduler decides, and how a decision becomes JSON and back.

A decision carries the *full new value* of one thing. The ledger stores it, the journal keeps
it, and replay reads what was decided without deciding again: an upgrade doesn't change history.

The JSON form is lossless for every value of :mod:`.models`: ``from_json(to_json(d)) == d``.
Both directions check types, so that nothing enters the ledger that can't be read back. When
reading, an unknown field is an error (a newer version wrote it) and a missing one gets its
default (an older version wrote it).
"""

from __future__ import annotations

import marshal
import math
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import Enum
from typing import Any, TypeVar, Union

from .models import Booking, Device, DeviceStatus, GPURequest, Lease, Node, QueueEntry
from .values import maker

T = TypeVar("T")
#: turns a value into what ``json.dumps`` takes, or back
Convert = Callable[[Any], Any]
#: different rows, and requests, that are remembered; there are a few dozen
_SHAPES = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class EntryStored:
    """A queue entry is new or has changed; the whole entry as it is now."""

    entry: QueueEntry


@dataclass(frozen=True, kw_only=True, slots=True)
class LeaseStored:
    """A lease is new or has changed; it has claims exactly while ``lease.live``."""

    lease: Lease


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceStored:
    """A device is new, or it or its status has changed."""

    device: Device
    status: DeviceStatus


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeStored:
    """A node is new or has changed."""

    node: Node


@dataclass(frozen=True, kw_only=True, slots=True)
class BookingStored:
    """A booking is new, or over."""

    booking: Booking


@dataclass(frozen=True, kw_only=True, slots=True)
class Noted:
    """A fact for people. It is written to the journal and changes nothing else."""

    #: short stable word, e.g. ``adopted``
    kind: str
    #: what happened, one line
    text: str
    #: what it is about: a user, server, device or node; may be empty
    subject: str = ""


Decision = Union[EntryStored, LeaseStored, DeviceStored, NodeStored, BookingStored, Noted]  # noqa: UP007 (value at run time on 3.10)

#: the kinds of decision by the name that the journal stores; names never change
KINDS: dict[str, type[Any]] = {
    cls.__name__: cls
    for cls in (EntryStored, LeaseStored, DeviceStored, NodeStored, BookingStored, Noted)
}


def to_json(decision: Decision) -> dict[str, Any]:
    """Return ``decision`` as a dict for ``json.dumps``: ``{"type": kind, field: value, …}``.

    Raises ``ValueError`` for a value that doesn't fit its declared type (or a float that is
    not finite): such a decision must not be stored.
    """
    return {"type": type(decision).__name__, **encode(decision)}


def from_json(data: dict[str, Any]) -> Decision:
    """Return the decision that ``data`` describes; the inverse of :func:`to_json`.

    Raises ``ValueError`` with the field's path for an unknown kind or field, a wrong type,
    an unknown enum value, or a missing field that has no default.
    """
    if not isinstance(data, dict):
        raise ValueError(f"a decision is an object, not {data!r}")
    rest = dict(data)
    kind = rest.pop("type", None)
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"unknown decision {kind!r}; known are {', '.join(KINDS)}")
    decision: Decision = decode(KINDS[kind], rest)
    return decision


def encode(value: Any) -> dict[str, Any]:
    """Return a dataclass value as a dict for ``json.dumps``; ``ValueError`` if it can't be."""
    encoded: dict[str, Any] = _codec(type(value))[0](value)
    return encoded


def decode(cls: type[T], data: Any) -> T:
    """Return the ``cls`` (a dataclass) that :func:`encode` made ``data`` from."""
    value: T = _codec(cls)[1](data)
    return value


def _codec(kind: Any) -> tuple[Convert, Convert]:
    """Return (encode, decode) for a type annotation; built once for each type."""
    if kind not in _CODECS:
        _CODECS[kind] = _build_codec(kind)
    return _CODECS[kind]


def _build_codec(kind: Any) -> tuple[Convert, Convert]:
    origin = typing.get_origin(kind)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _enum_codec(kind)
    if is_dataclass(kind) and isinstance(kind, type):
        return _dataclass_codec(kind)
    if origin is tuple:
        return _tuple_codec(typing.get_args(kind))
    if origin is dict and typing.get_args(kind)[0] is str:
        return _dict_codec(typing.get_args(kind)[1])
    if origin in (Union, types.UnionType):
        inner = [arg for arg in typing.get_args(kind) if arg is not type(None)]
        if len(inner) == 1 and len(typing.get_args(kind)) == 2:
            return _optional_codec(inner[0])
    raise ValueError(f"{kind!r} has no JSON form")


def _exactly(kind: type[Any]) -> Convert:
    def convert(value: Any) -> Any:
        if type(value) is not kind:
            raise ValueError(f": {value!r} is not {kind.__name__}")
        return value

    return convert


def _float(value: Any) -> float:
    # JSON readers may turn 1.0 into 1, and callers pass 0 where 0.0 is meant.
    if type(value) not in (float, int) or not math.isfinite(value):
        raise ValueError(f": {value!r} is not a finite number")
    return float(value)


#: by type annotation; plain types to begin with, the others are added when first met
_CODECS: dict[Any, tuple[Convert, Convert]] = {
    **{kind: (_exactly(kind), _exactly(kind)) for kind in (str, int, bool)},
    float: (_float, _float),
}


def _as_they_are(hint: Any) -> frozenset[type]:
    """Types of values that need no decoding in a field of this type: most of them, in most rows."""
    if hint in (str, int, bool):
        return frozenset({hint})
    parts = typing.get_args(hint)
    if types.NoneType not in parts:
        return frozenset()
    return frozenset({types.NoneType}).union(*map(_as_they_are, parts))


def _enum_codec(kind: type[Enum]) -> tuple[Convert, Convert]:
    members = {member.value: member for member in kind}

    def enc(value: Any) -> Any:
        if type(value) is not kind:
            raise ValueError(f": {value!r} is not a {kind.__name__}")
        return value.value

    def dec(data: Any) -> Any:
        if not isinstance(data, str) or data not in members:
            raise ValueError(f": {data!r} is not one of {', '.join(map(str, members))}")
        return members[data]

    return enc, dec


def _dataclass_codec(kind: type[Any]) -> tuple[Convert, Convert]:
    hints = typing.get_type_hints(kind)
    codecs = {field.name: _codec(hints[field.name]) for field in fields(kind)}
    decoder: Convert = _Reader(kind, codecs).read
    if kind is GPURequest:
        decoder = _shared(decoder)
    return _dataclass_encoder(kind, codecs), decoder


def _dataclass_encoder(kind: type[Any], codecs: dict[str, tuple[Convert, Convert]]) -> Convert:
    encoders = [(name, codec[0]) for name, codec in codecs.items()]

    def enc(value: Any) -> Any:
        if type(value) is not kind:
            raise ValueError(f": {value!r} is not a {kind.__name__}")
        encoded = {}
        for name, encoder in encoders:
            try:
                encoded[name] = encoder(getattr(value, name))
            except ValueError as error:
                raise ValueError(f".{name}{error}") from None
        return encoded

    return enc


class _Reader:
    """Reads one kind of value from what JSON has."""

    def __init__(self, kind: type[Any], codecs: dict[str, tuple[Convert, Convert]]) -> None:
        hints = typing.get_type_hints(kind)
        self._kind = kind
        self._make = maker(kind)
        self._decoders = {name: codec[1] for name, codec in codecs.items()}
        self._as_they_are = {name: _as_they_are(hints[name]) for name in codecs}
        self._required = [
            field.name
            for field in fields(kind)
            if field.default is MISSING and field.default_factory is MISSING
        ]
        #: names and types of values -> fields that need decoding; most rows look like another
        self._known: dict[tuple[Any, ...], list[tuple[str, Convert]]] = {}

    def read(self, data: Any) -> Any:
        """The value; ``ValueError`` with the path of the field that is wrong."""
        if not isinstance(data, dict):
            raise ValueError(f": {data!r} is not a {self._kind.__name__}")
        shape = (*data, *map(type, data.values()))
        todo = self._known.get(shape)
        if todo is None:
            if len(self._known) >= _SHAPES:
                self._known.clear()
            todo = self._known[shape] = self._look(data)
        decoded, name = data.copy(), ""
        try:
            for name, decoder in todo:
                decoded[name] = decoder(decoded[name])
        except ValueError as error:
            raise ValueError(f".{name}{error}") from None
        return self._make(decoded)

    def _look(self, data: dict[str, Any]) -> list[tuple[str, Convert]]:
        for name in self._required:
            if name not in data:
                raise ValueError(f".{name}: missing")
        for name in data:
            if name not in self._decoders:
                kind = self._kind.__name__
                raise ValueError(f".{name}: unknown field of {kind} (a newer version?)")
        return [
            (name, self._decoders[name])
            for name, item in data.items()
            if type(item) not in self._as_they_are[name]
        ]


def _shared(decode: Convert) -> Convert:
    """One object for all that look the same: thousands of rows have a few dozen requests."""
    known: dict[bytes, Any] = {}

    def dec(data: Any) -> Any:
        try:
            text = marshal.dumps(data, 2)
        except ValueError:
            # no JSON: it says what is wrong
            return decode(data)
        value = known.get(text)
        if value is None:
            value = decode(data)
            if len(known) >= _SHAPES:
                known.clear()
            known[text] = value
        return value

    return dec


def _tuple_codec(args: tuple[Any, ...]) -> tuple[Convert, Convert]:
    if len(args) == 2 and args[1] is Ellipsis:
        item_enc, item_dec = _codec(args[0])
        return _each(item_enc, tuple, list), _each(item_dec, list, tuple)
    codecs = [_codec(arg) for arg in args]
    encoders, decoders = zip(*codecs, strict=True)
    return _pairwise(encoders, tuple, list), _pairwise(decoders, list, tuple)


def _each(convert: Convert, kind: type[Any], other: type[Any]) -> Convert:
    """Any number of items."""

    def convert_each(items: Any) -> Any:
        if type(items) is not kind:
            raise ValueError(f": {items!r} is not a {kind.__name__}")
        return other([convert(item) for item in items])

    return convert_each


def _pairwise(converts: Sequence[Convert], kind: type[Any], other: type[Any]) -> Convert:
    """So many items, each of a type of its own."""

    def convert_all(items: Any) -> Any:
        if type(items) is not kind:
            raise ValueError(f": {items!r} is not a {kind.__name__}")
        if len(items) != len(converts):
            raise ValueError(f": {items!r} has not {len(converts)} items")
        return other([convert(item) for convert, item in zip(converts, items, strict=True)])

    return convert_all


def _dict_codec(item: Any) -> tuple[Convert, Convert]:
    text = _exactly(str)

    def build(each: Convert) -> Convert:
        def convert(value: Any) -> Any:
            if type(value) is not dict:
                raise ValueError(f": {value!r} is not a dict")
            return {text(key): each(content) for key, content in value.items()}

        return convert

    item_enc, item_dec = _codec(item)
    return build(item_enc), build(item_dec)


def _optional_codec(inner: Any) -> tuple[Convert, Convert]:
    inner_enc, inner_dec = _codec(inner)
    return (
        lambda value: None if value is None else inner_enc(value),
        lambda data: None if data is None else inner_dec(data),
    )
