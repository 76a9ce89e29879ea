"""Several servers of one user, and what a profile starts beside them, on a real engine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from deploy.quickstart.trial import wait_for
from jupyterhub_gpuspawner.engine import labels
from tests.hub.conftest import make_hub, start
from tests.hubs import people, run_hub

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "several-servers.md"
RUN = re.compile(r"<!-- run by a test -->\n```bash\n(.*?)```", re.DOTALL)

AFTER = """
WEB = ["python3", "-m", "http.server", "6006"]
BOARD = {"image": c.GPUDockerSpawner.image, "cmd": WEB, "mem_limit": "32M", "home": "ro"}
c.GPUDockerSpawner.profile_list += [
    profile("board", gpus=1, companions={"board": BOARD}),
    profile("broken", gpus=1, companions={"broken": {**BOARD, "cmd": ["/no/such/thing"]}}),
]
"""


@pytest.fixture(scope="module")
def own(engine, docker_client, stub_image):
    with run_hub(make_hub(engine, stub_image, AFTER), docker_client) as hub:
        yield hub


@pytest.fixture
def somebody(own):
    with people(own) as make:
        yield make


def companions(client, person, server=""):
    chosen = [
        f"{labels.KIND}=companion",
        f"{labels.USER}={person.name}",
        f"{labels.SERVER}={server}",
    ]
    return client.containers.list(all=True, filters={"label": chosen})


def server_container(client, person, server=""):
    chosen = [
        f"{labels.KIND}=server",
        f"{labels.USER}={person.name}",
        f"{labels.SERVER}={server}",
    ]
    (found,) = client.containers.list(filters={"label": chosen})
    return found


def test_the_command_of_the_how_to_shows_them(engine, somebody, docker_client):
    alice = somebody("alice")
    start(alice, "board")
    wait_for("the companion", 30, lambda: len(companions(docker_client, alice)) == 1)
    assert companions(docker_client, alice)[0].short_id in shown(engine, alice)


def shown(engine, person):
    if shutil.which("docker") is None:
        pytest.skip("Docker's command is not on this machine")
    (command,) = RUN.findall(PAGE.read_text())
    env = {**os.environ, "DOCKER_HOST": engine.base_url, "NAME": person.name}
    done = subprocess.run(["bash", "-euc", command], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("way", ["stop", "rm"])
def test_a_companion_goes_with_its_server_however_that_ends(own, somebody, docker_client, way):
    alice = somebody("alice")
    start(alice, "board")
    wait_for("the companion", 30, lambda: len(companions(docker_client, alice)) == 1)
    if way == "rm":
        server_container(docker_client, alice).remove(force=True)
    else:
        alice.stop()
    wait_for("its end", 30, lambda: not companions(docker_client, alice))
    wait_for("free GPUs", 30, lambda: not own.busy())


def test_a_server_runs_without_a_companion_that_can_not_start(own, somebody, docker_client):
    alice = somebody("alice")
    start(alice, "broken")
    wait_for("the log", 30, lambda: "companion not started" in own.log())
    assert server_container(docker_client, alice).status == "running"
    alice.stop()
    wait_for("its end", 30, lambda: not companions(docker_client, alice))
