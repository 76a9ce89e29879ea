"""Labels: what is written is read back, and what is not ours is not taken for ours."""

from __future__ import annotations

import pytest

from jupyterhub_gpuspawner.engine import labels
from jupyterhub_gpuspawner.engine.labels import Identity, Kind

ALICE = Identity(
    ledger="l1", lease="a1", user="Alice Ünï", server="train", devices=("GPU-1", "GPU-2"), owner="o"
)


@pytest.mark.parametrize(
    "identity",
    [
        ALICE,
        Identity(ledger="l", lease="x", user="bob"),
        Identity(ledger="l", lease="x", user='<img src=x onerror="1,2">', devices=("MIG-1",)),
    ],
)
def test_labels_are_read_back_as_they_were_written(identity: Identity) -> None:
    assert labels.parse(labels.server_labels(identity)) == identity


def test_labels_carry_the_names_that_dashboards_join_on() -> None:
    written = labels.server_labels(ALICE)
    assert written["hub.jupyter.org/username"] == "Alice Ünï"
    assert written["hub.jupyter.org/servername"] == "train"
    assert written["jupyterhub-gpuspawner.devices"] == "GPU-1,GPU-2"
    assert written["jupyterhub-gpuspawner.name"] == "Alice Ünï/train"
    assert set(written) >= {labels.PREFIX + key for key in ("ledger", "lease", "owner", "kind")}
    assert all(isinstance(value, str) for value in written.values())


@pytest.mark.parametrize("broken", [labels.LEDGER, labels.LEASE, labels.KIND])
def test_a_container_without_one_of_our_marks_is_not_a_server_of_ours(broken: str) -> None:
    written = labels.server_labels(ALICE)
    del written[broken]
    assert labels.parse(written) is None


def test_things_without_labels_and_volumes_are_not_servers() -> None:
    assert labels.parse(None) is None
    assert labels.parse({}) is None
    assert labels.parse(labels.home_labels(ledger="l", user="bob", owner="o")) is None
    assert labels.parse(labels.owner_labels("l")) is None


@pytest.mark.parametrize("device", ["", "GPU-1,GPU-2"])
def test_a_device_id_that_would_not_be_read_back_is_refused(device: str) -> None:
    with pytest.raises(ValueError, match="can't be part of a label"):
        labels.server_labels(Identity(ledger="l", lease="x", user="bob", devices=(device,)))


def test_a_selector_names_the_ledger_and_the_kind() -> None:
    assert labels.selectors("l1", Kind.HOME) == [
        "jupyterhub-gpuspawner.ledger=l1",
        "jupyterhub-gpuspawner.kind=home",
    ]
