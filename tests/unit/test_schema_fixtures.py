"""A ledger of each released schema is upgraded with all that it holds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jupyterhub_gpuspawner.errors import DoubleClaim
from jupyterhub_gpuspawner.scheduler.decisions import LeaseStored
from jupyterhub_gpuspawner.scheduler.models import EntryState, LeaseState
from jupyterhub_gpuspawner.store import Ledger
from jupyterhub_gpuspawner.store import migrations as migrations_package
from tests import schemas
from tests.unit.store_values import lease

VERSIONS = Path(migrations_package.__file__).parent / "versions"


def test_every_schema_has_a_fixture() -> None:
    revisions = {
        found[1]
        for path in VERSIONS.glob("v*.py")
        if (found := re.search(r'^revision = "(\w+)"$', path.read_text(), re.MULTILINE))
    }
    missing = sorted(revisions - schemas.fixtures().keys())
    assert revisions
    assert missing == [], "run: python -m tests.schemas (in the commit that adds the revision)"


@pytest.mark.parametrize("revision", schemas.fixtures())
def test_a_ledger_of_an_older_schema_keeps_leases_places_and_epoch(
    revision: str, tmp_path: Path
) -> None:
    path = tmp_path / "ledger.sqlite"
    schemas.build(schemas.fixtures()[revision].read_text(), path)
    with Ledger.open(f"sqlite:///{path}") as ledger:
        assert (ledger.id, ledger.raise_epoch()) == (schemas.LEDGER, schemas.EPOCH + 1)
        held = ledger.load()
        (running,) = held.leases
        assert (running.id, str(running.key)) == (schemas.LEASE, "alice")
        assert (running.state, running.container_id) == (LeaseState.RUNNING, schemas.CONTAINER)
        assert running.devices == (schemas.DEVICE,)
        assert [
            (entry.id, entry.state) for entry in held.entries if entry.state is EntryState.QUEUED
        ] == [(schemas.ENTRY, EntryState.QUEUED)]
        assert [device.id for device, _ in held.devices] == [schemas.DEVICE]
        # what was given out before the upgrade is not given out again after it
        with pytest.raises(DoubleClaim):
            ledger.commit([LeaseStored(lease=lease("l2", schemas.DEVICE, user="dave"))], 0.0)
