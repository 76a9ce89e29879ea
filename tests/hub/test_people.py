"""Users who are deleted, made again or renamed: nobody gets what was somebody else's."""

from __future__ import annotations

import pytest

from deploy.quickstart.trial import wait_for
from jupyterhub_gpuspawner.engine import labels

from .conftest import container_of, containers_of, facts, server_of, start


@pytest.fixture(scope="module")
def admin(hub):
    return hub.person("admin", admin=True)


def put_file(client, person, name: str) -> None:
    """Leave a file in the home of a person whose server runs."""
    assert container_of(client, person).exec_run(["touch", f"/home/jovyan/{name}"]).exit_code == 0


def waits(hub, person, places: int = 1) -> None:
    """Ask for a GPU that is not free."""
    person.api("POST", f"/users/{person.name}/server", json={"profile": "gpu"})
    wait_for("the queue", 60, lambda: hub.summary()["queue"] == places)


def test_a_user_deleted_while_running_leaves_nothing(hub, somebody, admin, docker_client):
    alice = somebody("alice")
    start(alice)
    (container,) = containers_of(docker_client, alice)
    answer = admin.api("DELETE", f"/users/{alice.name}")
    assert answer.status_code == 204, answer.text
    wait_for("free GPUs", 60, lambda: not hub.busy())
    assert containers_of(docker_client, alice) == []
    # the files stay, for whoever has to look after them
    assert homes_of(docker_client, container) != []


def test_a_user_deleted_while_waiting_leaves_the_queue_and_gets_nothing(
    hub, somebody, admin, docker_client
):
    alice, bob, carol = somebody("alice"), somebody("bob"), somebody("carol")
    start(alice, "gpu2")
    waits(hub, bob)
    waits(hub, carol, 2)
    # JupyterHub's own answer while a server starts; whoever waits keeps the place
    assert admin.api("DELETE", f"/users/{bob.name}").status_code == 500
    assert hub.summary()["queue"] == 2
    delete(admin, bob.name)
    wait_for("the queue without bob", 60, lambda: hub.summary()["queue"] == 1)
    alice.stop()
    wait_for("carol's server", 60, lambda: (server_of(carol) or {}).get("ready"))
    assert containers_of(docker_client, bob) == []
    assert hub.busy() == set(facts(hub, carol, docker_client)["gpus"])


def test_a_user_deleted_in_mid_start_leaves_nothing(hub, somebody, admin, docker_client):
    alice = somebody("alice")
    alice.api("POST", f"/users/{alice.name}/server", json={"profile": "slow"})
    wait_for("the container", 60, lambda: containers_of(docker_client, alice))
    delete(admin, alice.name)
    wait_for("no container", 60, lambda: not containers_of(docker_client, alice))
    wait_for("free GPUs", 60, lambda: not hub.busy())


def delete(admin, name: str) -> None:
    """Delete a user as an administrator does: stop the server first, then delete."""

    def gone() -> bool:
        admin.api("DELETE", f"/users/{name}/server")
        answer = admin.api("DELETE", f"/users/{name}")
        # 400: the server is being stopped; 500: the Hub deletes nobody whose server starts
        assert answer.status_code in (204, 400, 500), answer.text
        return answer.status_code == 204

    wait_for("no such user", 60, gone)
    assert admin.api("GET", f"/users/{name}").status_code == 404


def test_a_user_made_again_gets_neither_the_old_home_nor_the_old_place(
    hub, somebody, admin, docker_client
):
    alice, bob = somebody("alice"), somebody("bob")
    start(bob, "cpu")
    put_file(docker_client, bob, "secret")
    bob.stop()
    start(alice, "gpu2")
    waits(hub, bob)
    delete(admin, bob.name)
    again = hub.person(bob.name)
    wait_for("the queue", 60, lambda: hub.summary()["queue"] == 0)
    alice.stop()
    start(again)
    assert "secret" not in facts(hub, again, docker_client)["home"]
    assert hub.busy() == set(facts(hub, again, docker_client)["gpus"])
    again.stop()


def test_a_user_deleted_while_running_and_made_again_gets_a_lease_of_their_own(
    hub, somebody, admin, docker_client
):
    alice = somebody("alice")
    start(alice)
    before = container_of(docker_client, alice)
    put_file(docker_client, alice, "secret")
    delete(admin, alice.name)
    again = hub.person(alice.name)
    start(again)
    after = container_of(docker_client, again)
    assert after.labels[labels.LEASE] != before.labels[labels.LEASE]
    assert after.labels[labels.OWNER] != before.labels[labels.OWNER]
    assert "secret" not in facts(hub, again, docker_client)["home"]
    again.stop()


def rename(admin, person, name: str) -> None:
    """Give a user another name, as an administrator does by the API."""
    answer = admin.api("PATCH", f"/users/{person.name}", json={"name": name})
    assert answer.status_code == 200, answer.text


def test_a_renamed_user_keeps_the_home(hub, somebody, admin, docker_client):
    alice = somebody("alice")
    start(alice, "cpu")
    put_file(docker_client, alice, "mine")
    alice.stop()
    new = f"{alice.name}-new"
    rename(admin, alice, new)
    renamed = hub.person(new)
    start(renamed)
    assert "mine" in facts(hub, renamed, docker_client)["home"]
    renamed.stop()


def test_a_user_renamed_while_running_keeps_server_and_gpu_until_the_stop(
    hub, somebody, admin, docker_client
):
    alice = somebody("alice")
    start(alice)
    container = container_of(docker_client, alice)
    busy = hub.busy()
    new = f"{alice.name}-new"
    rename(admin, alice, new)
    assert hub.busy() == busy
    container.reload()
    assert container.status == "running"
    renamed = hub.person(new)
    renamed.stop()
    wait_for("free GPUs", 60, lambda: not hub.busy())
    assert containers_of(docker_client, alice) == []
    start(renamed)
    assert len(hub.busy()) == 1
    renamed.stop()


def test_who_takes_the_name_of_a_renamed_user_gets_nothing_of_theirs(
    hub, somebody, admin, docker_client
):
    alice = somebody("alice")
    start(alice)
    put_file(docker_client, alice, "secret")
    (container,) = containers_of(docker_client, alice)
    rename(admin, alice, f"{alice.name}-new")
    heir = hub.person(alice.name)
    # JupyterHub can't have two servers of one name, and stumbles over it. Ours would wait as well:
    # the lease and the container's name are the old server's until it is stopped
    answer = heir.api("POST", f"/users/{heir.name}/server", json={"profile": "gpu"})
    assert answer.status_code == 500, answer.text
    assert len(hub.busy()) == 1
    container.reload()
    assert container.status == "running"
    hub.person(f"{alice.name}-new").stop()
    # the page would still show that failure once
    answer = heir.api("POST", f"/users/{heir.name}/server", json={"profile": "gpu"})
    assert answer.status_code in (201, 202), answer.text
    heir.wait(limit=60)
    assert "secret" not in facts(hub, heir, docker_client)["home"]
    assert len(hub.busy()) == 1
    heir.stop()


def test_a_renamed_named_server_starts_again_with_the_same_home(hub, somebody, docker_client):
    alice = somebody("alice")
    start(alice, "cpu", server="one")
    put_home = container_of(docker_client, alice, "one")
    assert put_home.exec_run(["touch", "/home/jovyan/mine"]).exit_code == 0
    alice.stop("one")
    answer = alice.api("PATCH", f"/users/{alice.name}/servers/one", json={"name": "two"})
    if answer.status_code in (404, 405):
        pytest.skip("this JupyterHub can't rename servers (it came with 6.0)")
    assert answer.status_code == 200, answer.text
    start(alice, server="two")
    assert "mine" in facts(hub, alice, docker_client, "two")["home"]
    assert len(hub.busy()) == 1


def test_a_named_server_that_is_deleted_leaves_nothing_but_the_home(hub, somebody, docker_client):
    alice = somebody("alice")
    start(alice, server="one")
    start(alice, server="two")
    assert len(hub.busy()) == 2
    path = f"/users/{alice.name}/servers/one"
    answer = alice.api("DELETE", path, json={"remove": True})
    assert answer.status_code in (202, 204), answer.text
    wait_for("one GPU", 60, lambda: len(hub.busy()) == 1)
    wait_for("the end", 60, lambda: server_of(alice, "one") is None)
    assert hub.busy() == set(facts(hub, alice, docker_client, "two")["gpus"])


def homes_of(client, container) -> list[str]:
    """Names of the home volumes of a container's owner."""
    chosen = f"{labels.OWNER}={container.labels[labels.OWNER]}"
    return [volume.name for volume in client.volumes.list(filters={"label": chosen})]
