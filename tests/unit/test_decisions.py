"""The JSON form of decisions."""

from __future__ import annotations

import json
import typing
from dataclasses import dataclass, field, is_dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyterhub_gpuspawner.scheduler import decisions, models
from jupyterhub_gpuspawner.scheduler.decisions import (
    KINDS,
    DeviceStored,
    LeaseStored,
    NodeStored,
    Noted,
    decode,
    encode,
    from_json,
    to_json,
)
from tests.unit.store_values import lease, one_of_each


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Any value of a type annotation; floats are finite, as the JSON form wants them."""
    inner = typing.get_args(hint)
    if hint is float:
        return st.floats(allow_nan=False, allow_infinity=False)
    if is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        built = st.fixed_dictionaries({name: values(part) for name, part in hints.items()})
        return built.map(lambda given: hint(**given))
    if typing.get_origin(hint) is tuple and inner[1] is ...:
        return st.lists(values(inner[0]), max_size=3).map(tuple)
    if type(None) in inner:
        return st.none() | values(inner[0])
    return st.from_type(hint)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@given(data=st.data())
@settings(max_examples=12, deadline=None)
def test_any_decision_survives_json_unchanged(kind: type[Any], data: st.DataObject) -> None:
    decision = data.draw(values(kind))
    again = from_json(json.loads(json.dumps(to_json(decision), allow_nan=False)))
    assert again == decision
    assert type(again) is kind


def test_enums_tuples_and_none_come_back_as_what_they_were() -> None:
    value = replace(lease("l", "GPU-1"), reason=models.Reason.OUT_OF_MEMORY)
    again = from_json(json.loads(json.dumps(to_json(LeaseStored(lease=value)))))
    assert isinstance(again, LeaseStored)
    assert again.lease.reason is models.Reason.OUT_OF_MEMORY
    assert again.lease.claims[0] == models.Claim(device="GPU-1", atom=0, lease_id="l")
    assert again.lease.ends_at is None


def test_settings_with_dicts_survive_too() -> None:
    value = models.Settings(limits=models.Limits(per_user=2, groups={"students": 1}))
    assert decode(models.Settings, json.loads(json.dumps(encode(value)))) == value


def test_a_field_that_an_older_version_did_not_write_gets_its_default() -> None:
    data = to_json(NodeStored(node=models.Node(name="n", cpus=4.0)))
    del data["node"]["boot_id"]
    assert from_json(data) == NodeStored(node=models.Node(name="n", cpus=4.0, boot_id=""))


def _stored_lease(**changes: Any) -> dict[str, Any]:
    data = to_json(LeaseStored(lease=lease("l", "GPU-1")))
    data["lease"].update(changes)
    return data


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"type": "Teleported"}, "unknown decision 'Teleported'; known are EntryStored,"),
        ({}, "unknown decision None"),
        ([], r"a decision is an object, not \[\]"),
        ({"type": "NodeStored"}, r"^\.node: missing$"),
        ({"type": "Noted", "kind": "x"}, r"^\.text: missing$"),
        (_stored_lease(colour="red"), r"^\.lease\.colour: unknown field of Lease \(a newer"),
        (_stored_lease(state="flying"), r"^\.lease\.state: 'flying' is not one of reserved,"),
        (_stored_lease(granted_at="noon"), r"^\.lease\.granted_at: 'noon' is not a finite"),
        (_stored_lease(epoch=True), r"^\.lease\.epoch: True is not int$"),
        (_stored_lease(claims={}), r"^\.lease\.claims: {} is not a list$"),
        (_stored_lease(key=None), r"^\.lease\.key: None is not a ServerKey$"),
        (_stored_lease(warned=1), r"^\.lease\.warned: 1 is not bool$"),
    ],
)
def test_what_can_not_be_read_is_refused_with_its_place(data: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        from_json(data)


@pytest.mark.parametrize(
    ("decision", "words"),
    [
        (Noted(kind="k", text=3), r"^\.text: 3 is not str$"),  # type: ignore[arg-type]
        (NodeStored(node=models.Node(name="n", cpus=float("nan"))), r"^\.node\.cpus: nan is not"),
        (NodeStored(node=models.Node(name="n", state="up")), r"'up' is not a NodeState"),  # type: ignore[arg-type]
        (
            DeviceStored(
                device=models.Device(id="d", node="n", capability=(8, 0, 1)),  # type: ignore[arg-type]
                status=models.DeviceStatus(),
            ),
            r"^\.device\.capability: \(8, 0, 1\) has not 2 items$",
        ),
        (LeaseStored(lease=None), r"^\.lease: None is not a Lease$"),  # type: ignore[arg-type]
    ],
)
def test_a_value_of_a_wrong_type_is_never_written(decision: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        to_json(decision)


def test_the_stored_names_of_the_kinds_stay_what_they_are() -> None:
    written = [to_json(decision)["type"] for decision in one_of_each()]
    names = ["NodeStored", "DeviceStored", "LeaseStored", "EntryStored", "BookingStored", "Noted"]
    assert written == names
    assert sorted(KINDS) == sorted(set(written))


def test_a_type_without_a_json_form_is_refused() -> None:
    @dataclass
    class Odd:
        things: set[str]

    with pytest.raises(ValueError, match="has no JSON form"):
        encode(Odd(things=set()))


@dataclass
class Strange:
    """Not what is stored, but could be."""

    pair: tuple[int, str] | None = None
    many: tuple[int, ...] = ()
    limits: dict[str, int] = field(default_factory=dict)


def test_a_pair_and_a_dict_that_are_none_are_refused_with_their_place() -> None:
    assert decode(Strange, {"pair": [1, "a"], "limits": {"a": 1}}).pair == (1, "a")
    for data, words in (
        ({"pair": "ab"}, r"^\.pair: 'ab' is not a list$"),
        ({"pair": [1]}, r"^\.pair: \[1\] has not 2 items$"),
        ({"limits": []}, r"^\.limits: \[\] is not a dict$"),
        ({"many": "1"}, r"^\.many: '1' is not a list$"),
    ):
        with pytest.raises(ValueError, match=words):
            decode(Strange, data)


def test_one_of_two_types_has_no_json_form() -> None:
    @dataclass
    class Either:
        one: typing.Union[int, str]  # noqa: UP007 (the older way to write it)

    with pytest.raises(ValueError, match="has no JSON form"):
        encode(Either(one=1))


def test_equal_requests_are_one_object_and_what_json_can_not_have_is_said_as_ever() -> None:
    data = {"count": 2, "devices": ["a", "b"], "cpu": 1.0}
    request = decode(models.GPURequest, data)
    assert request == models.GPURequest(count=2, devices=("a", "b"), cpu=1.0)
    assert decode(models.GPURequest, json.loads(json.dumps(data))) is request
    assert decode(models.GPURequest, {**data, "count": 3}) != request
    with pytest.raises(ValueError, match=r"^\.cpu: <object"):
        decode(models.GPURequest, {"cpu": object()})


def test_many_kinds_of_rows_are_read_right_also_when_they_are_too_many_to_remember(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decisions, "_SHAPES", 2)
    for count in (1, 2, 3, 4, 1):
        assert decode(models.GPURequest, {"count": count}) == models.GPURequest(count=count)
    for name in ("model", "node", "pool", "image", "model"):
        asked = decode(models.GPURequest, {name: "x"})
        assert asked == models.GPURequest(**{name: "x"}) and getattr(asked, name) == "x"
