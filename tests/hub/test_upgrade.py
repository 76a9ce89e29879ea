"""An upgrade of the ledger, from each schema that was ever released, while servers run."""

from __future__ import annotations

import jupyterhub
import pytest

from deploy.quickstart.trial import wait_for
from jupyterhub_gpuspawner.engine import labels
from tests import schemas

from .conftest import container_of, facts, server_of, start

pytestmark = pytest.mark.skipif(
    jupyterhub.version_info[0] < 6,
    reason="the ledger knows nothing of the Hub's version; runs once, on the newer line",
)


@pytest.mark.parametrize("revision", schemas.fixtures())
def test_a_server_lives_through_the_upgrade_of_the_ledger(own_hub, docker_client, revision):
    hub = own_hub
    alice = hub.person("alice")
    start(alice)
    container = container_of(docker_client, alice)
    (device,) = facts(hub, alice, docker_client)["gpus"]
    old = hub.summary()
    hub.stop()
    replaced = {
        schemas.LEDGER: old["ledger"],
        schemas.LEASE: container.labels[labels.LEASE],
        schemas.CONTAINER: container.id,
        schemas.DEVICE: device,
        f'"{schemas.NODE}"': f'"{old["nodes"][0]["name"]}"',
        f"'{schemas.NODE}'": f"'{old['nodes'][0]['name']}'",
    }
    sql = schemas.fixtures()[revision].read_text()
    for before, after in replaced.items():
        sql = sql.replace(before, after)
    folder = hub.state / "gpus"
    for file in folder.glob("ledger.sqlite*"):
        file.unlink()
    schemas.build(sql, folder / "ledger.sqlite")
    # whoever waited in the old ledger is asked for again, and is known to the Hub
    hub.start()
    wait_for("alice's server", 60, lambda: (server_of(alice) or {}).get("ready"))
    assert hub.busy() == {device}
    assert container_of(docker_client, alice).id == container.id
    dave = hub.person("dave")
    start(dave)
    assert device not in facts(hub, dave, docker_client)["gpus"]
    alice.stop()
    wait_for("alice's GPU", 60, lambda: device not in hub.busy())
    assert "running without a lease" not in hub.log()
