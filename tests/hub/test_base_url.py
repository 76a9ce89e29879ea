"""A Hub that is not at the root of its address."""

from __future__ import annotations

from tests.hub.conftest import make_hub, run_hub, start

BELOW = 'c.JupyterHub.bind_url += "/lab/"\n'


def test_a_hub_below_a_path_starts_servers_and_shows_its_gpus(engine, docker_client, stub_image):
    hub = make_hub(engine, stub_image, BELOW)
    hub.base += "/lab"
    with run_hub(hub, docker_client):
        alice = hub.person("alice")
        start(alice)
        assert "alice" in alice.page("/services/gpus/")
        alice.stop()
