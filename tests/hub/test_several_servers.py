"""Several servers of one user, and what a profile starts beside them, on a real engine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess

import jupyterhub
import pytest

from deploy.quickstart.trial import wait_for
from jupyterhub_gpuspawner.cli.main import main
from jupyterhub_gpuspawner.engine import labels
from tests import howto
from tests.auditor import Auditor
from tests.hub.conftest import make_hub, scheduler_pids, server_of, start
from tests.hubs import people, run_hub, stop_all

(LIST,) = howto.blocks("several-servers", __file__)

AFTER = """
c.GPUScheduler.home_warning = "1M"
c.GPUScheduler.home_interval = 1
WEB = ["python3", "-m", "http.server", "6006"]
BOARD = {"image": c.GPUDockerSpawner.image, "cmd": WEB, "mem_limit": "32M", "home": "ro"}
BOARD["health"] = ["true"]
c.GPUDockerSpawner.profile_list += [
    profile("board", gpus=1, companions={"board": BOARD}),
    profile(
        "stubborn", gpus=1, companions={"board": BOARD}, environment={"STUB_IGNORE_TERM": "1"}
    ),
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
    wait_for("the companion", 60, lambda: len(companions(docker_client, alice)) == 1)
    (board,) = companions(docker_client, alice)
    (line,) = [one for one in shown(engine, alice).splitlines() if board.short_id in one]
    # its health check is at work
    assert "health" in line


def shown(engine, person):
    if shutil.which("docker") is None:
        pytest.skip("Docker's command is not on this machine")
    env = {**os.environ, "DOCKER_HOST": engine.base_url, "NAME": person.name}
    done = subprocess.run(["bash", "-euc", LIST], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_who_has_too_much_in_the_home_is_told_until_it_is_less(
    own, somebody, engine, docker_client, capsys
):
    alice = somebody("alice")
    start(alice, "cpu")
    container = server_container(docker_client, alice)
    write = container.exec_run(["sh", "-c", "head -c 3145728 /dev/zero > ~/large"])
    assert write.exit_code == 0, write.output
    words = "Your files take 3 MiB, more than 1 MiB"
    wait_for("the page", 60, lambda: words in alice.page("/services/gpus/"))
    assert f"{alice.name}: the home has 3 MiB, more than 1 MiB" in own.log()
    # the same volume, as an admin sees it
    warn = [
        "storage",
        "--warn",
        "1M",
        "--engine",
        engine.base_url,
        "--hub-db",
        f"sqlite:///{own.state}/jupyterhub.sqlite",
    ]
    assert main(warn) == 0
    assert f"the home of '{alice.name}' has 3 MiB, more than 1 MiB" in capsys.readouterr().err
    assert container.exec_run(["sh", "-c", "rm ~/large"]).exit_code == 0
    wait_for("no word of it", 60, lambda: words not in alice.page("/services/gpus/"))


@pytest.mark.parametrize("way", ["stop", "rm"])
def test_a_companion_goes_with_its_server_however_that_ends(own, somebody, docker_client, way):
    alice = somebody("alice")
    start(alice, "board")
    wait_for("the companion", 60, lambda: len(companions(docker_client, alice)) == 1)
    if way == "rm":
        server_container(docker_client, alice).remove(force=True)
    else:
        alice.stop()
    wait_for("its end", 60, lambda: not companions(docker_client, alice))
    wait_for("free GPUs", 60, lambda: not own.busy())


def test_a_server_runs_without_a_companion_that_can_not_start(own, somebody, docker_client):
    alice = somebody("alice")
    start(alice, "broken")
    wait_for("the log", 60, lambda: "companion not started" in own.log())
    assert server_container(docker_client, alice).status == "running"
    alice.stop()
    wait_for("its end", 60, lambda: not companions(docker_client, alice))


def test_a_companion_that_is_removed_by_hand_takes_nothing_with_it(own, somebody, docker_client):
    alice = somebody("alice")
    start(alice, "board")
    wait_for("the companion", 60, lambda: len(companions(docker_client, alice)) == 1)
    busy, server = own.busy(), server_container(docker_client, alice)
    companions(docker_client, alice)[0].remove(force=True)
    assert not companions(docker_client, alice)
    server.reload()
    assert server.status == "running" and server_of(alice)["ready"] and own.busy() == busy
    alice.stop()
    wait_for("free GPUs", 60, lambda: not own.busy())


@pytest.mark.skipif(
    jupyterhub.version_info[0] < 6, reason="both Hub lines are killed in test_restarts.py"
)
def test_hub_and_scheduler_killed_in_mid_start_and_mid_stop_leave_no_companion(
    own, somebody, docker_client, engine
):
    starting, stopping = somebody("starting"), somebody("stopping")
    auditor = Auditor([engine.socket], own.summary()["ledger"])
    auditor.book(own.state / "gpus" / "ledger.sqlite")
    with auditor.watching():
        start(stopping, "stubborn")
        wait_for("the companion", 60, lambda: len(companions(docker_client, stopping)) == 1)
        # its end takes as long as the grace
        stopping.cancel()
        starting.api("POST", f"/users/{starting.name}/server", json={"profile": "board"})
        wait_for("a container", 60, lambda: servers(docker_client, starting))
        own.kill()
        for pid in scheduler_pids(own):
            os.kill(pid, signal.SIGKILL)
        own.start()
        # whatever became of the start: who has a server has its GPU, and gives both back
        stop_all(starting)
        stop_all(stopping)
        wait_for("no companion", 60, lambda: not mine(docker_client, starting, stopping))
        wait_for("free GPUs", 60, lambda: not own.busy())
        verdict = auditor.judge(running=())
    assert verdict.ok, verdict


def servers(client, person):
    chosen = [f"{labels.KIND}=server", f"{labels.USER}={person.name}"]
    return client.containers.list(all=True, filters={"label": chosen})


def mine(client, *persons):
    """What there is of these people: servers and companions, running or not."""
    return [
        container
        for person in persons
        for container in [*servers(client, person), *companions(client, person)]
    ]
