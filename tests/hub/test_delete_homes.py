"""Homes that go with their users, where a site wants that."""

from __future__ import annotations

import pytest

from deploy.quickstart.trial import wait_for
from tests.hubs import run_hub

from .conftest import container_of, make_hub, server_of, start
from .test_people import delete, homes_of


@pytest.fixture
def deleting(engine, docker_client, stub_image):
    """A Hub that deletes homes with their users."""
    after = "c.GPUDockerSpawner.delete_homes = True\n"
    with run_hub(make_hub(engine, stub_image, after), docker_client) as hub:
        yield hub


def test_where_that_is_wanted_a_home_goes_with_its_user_and_nobody_elses(deleting, docker_client):
    hub = deleting
    admin = hub.person("admin", admin=True)
    running, named, stopped, other = map(hub.person, ("running", "named", "stopped", "other"))
    start(stopped, "cpu")
    homes = {}
    for person, server in ((running, ""), (named, "train"), (other, ""), (stopped, "")):
        if person is not stopped:
            start(person, "cpu", server)
        container = container_of(docker_client, person, server)
        homes[person.name] = container
        assert len(homes_of(docker_client, container)) == 1
    stopped.stop()
    # a named server that is removed takes no home with it
    named.stop("train")
    assert named.api("DELETE", "/users/named/servers/train", json={"remove": True}).ok
    assert len(homes_of(docker_client, homes["named"])) == 1
    for person in (running, named, stopped):
        delete(admin, person.name)
        wait_for(
            f"no home of {person.name}",
            60,
            lambda name=person.name: not homes_of(docker_client, homes[name]),
        )
    assert len(homes_of(docker_client, homes["other"])) == 1
    assert (server_of(other) or {}).get("ready")
