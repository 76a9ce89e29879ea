"""Changed copies of frozen values."""

from __future__ import annotations

import dataclasses

import pytest

from jupyterhub_gpuspawner.scheduler import models
from jupyterhub_gpuspawner.scheduler.models import (
    Device,
    DeviceStatus,
    GPURequest,
    Lease,
    LeaseState,
    Node,
    QueueEntry,
    ServerKey,
)
from jupyterhub_gpuspawner.scheduler.rooms import Want
from jupyterhub_gpuspawner.scheduler.values import maker, replace
from tests.unit.scheduler_world import key

LEASE = Lease(id="a", key=key("ann"), request=GPURequest(count=1), node="n1", granted_at=3.0)


def test_a_copy_is_what_dataclasses_make_and_leaves_the_value_as_it_is() -> None:
    before = dataclasses.asdict(LEASE)
    copy = replace(LEASE, state=LeaseState.STARTING, container_id="c")
    assert copy == dataclasses.replace(LEASE, state=LeaseState.STARTING, container_id="c")
    assert type(copy) is Lease and hash(copy) == hash(dataclasses.replace(copy))
    assert dataclasses.asdict(LEASE) == before
    with pytest.raises(dataclasses.FrozenInstanceError):
        copy.note = "x"  # type: ignore[misc]


@pytest.mark.parametrize("kind", [Device, DeviceStatus, GPURequest, Lease, Node, QueueEntry])
def test_the_values_of_decisions_can_be_copied_so(kind: type) -> None:
    assert not hasattr(kind, "__post_init__"), "a copy would not be checked"
    assert {field.name for field in dataclasses.fields(kind)} == set(kind.__slots__)


def test_a_field_that_there_is_not_is_refused() -> None:
    with pytest.raises(AttributeError, match="nodes"):
        replace(LEASE, nodes="n2")  # type: ignore[call-arg]


def test_a_value_that_checks_itself_is_not_copied_so() -> None:
    with pytest.raises(TypeError, match="Want"):
        replace(Want(request=GPURequest()), count=2)


def test_a_key_is_copied_too() -> None:
    assert replace(key("ann"), server="x") == ServerKey(hub="hub", user="ann", server="x")


@pytest.mark.parametrize("value", [LEASE, key("ann"), GPURequest(count=2), Node(name="n1")])
def test_what_is_made_quickly_is_what_its_class_makes(value: object) -> None:
    fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}  # type: ignore[arg-type]
    made = maker(type(value))(dict(reversed(fields.items())))
    assert made == value and type(made) is type(value) and hash(made) == hash(value)


def test_what_is_made_quickly_has_the_same_defaults_and_the_same_must_be_given() -> None:
    assert maker(GPURequest)({"cpu": 2.0}) == GPURequest(cpu=2.0)
    assert maker(models.Settings)({}) == models.Settings()
    with pytest.raises(TypeError, match="Node: name is missing"):
        maker(Node)({"cpus": 1.0})


def test_a_value_that_checks_itself_is_made_by_its_class() -> None:
    made = maker(Want)({"request": GPURequest(count=2)})
    assert type(made) is Want and made.count == 2
