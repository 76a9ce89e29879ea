"""``deploy/compose.gpu.yml`` by the real compose and engine, as far as these go without a GPU.

What NVIDIA's toolkit makes of the request is not seen here: this machine has none.
"""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from deploy.compose import envfile
from deploy.quickstart.trial import ROOT
from tests.testbed import rootfs

PROJECT = "gpus-try"
FILES = ("compose.yml", "compose.gpu.yml")


@pytest.fixture(scope="module")
def compose(engine, stub_image, tmp_path_factory):
    """``docker compose`` with both files, for a project of the test's own."""
    settings = tmp_path_factory.mktemp("site") / "env"
    envfile.ensure(settings, GPUS_PUBLIC_URL="https://gpus.example.org")
    fixed = [str(rootfs.ensure_compose()), "--env-file", str(settings), "-p", PROJECT]
    for name in FILES:
        fixed += ["-f", str(ROOT / "deploy" / name)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("GPUS_", "SITE_"))}
    environment |= {
        "DOCKER_HOST": engine.base_url,
        "SITE_ENV_FILE": str(settings),
        "SITE_HUB_IMAGE": stub_image,
    }

    def run(*arguments, code=0):
        done = subprocess.run(
            [*fixed, *arguments], env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    yield run
    run("down", "--volumes")


def test_both_files_make_one_site_in_which_only_the_scheduler_sees_gpus(compose):
    services = json.loads(compose("config", "--format", "json"))["services"]
    scheduler = services["scheduler"]
    (request,) = scheduler["deploy"]["resources"]["reservations"]["devices"]
    assert request == {"driver": "nvidia", "count": -1, "capabilities": ["utility"]}
    assert scheduler["pid"] == "host"
    # nothing of the first file is lost
    assert scheduler["mem_limit"] and scheduler["read_only"] and scheduler["healthcheck"]
    assert scheduler["cap_drop"] == ["ALL"] and set(scheduler["networks"]) == {"data", "inside"}
    others = [one for name, one in services.items() if name != "scheduler"]
    assert others and not any("devices" in json.dumps(one.get("deploy")) for one in others)


def test_the_engine_is_asked_for_all_gpus_and_says_what_it_lacks(compose, docker_client):
    compose("up", "--no-start", "--no-deps", "scheduler")
    chosen = [f"com.docker.compose.project={PROJECT}"]
    (scheduler,) = docker_client.containers.list(all=True, filters={"label": chosen})
    host = scheduler.attrs["HostConfig"]
    (request,) = host["DeviceRequests"]
    assert (request["Driver"], request["Count"]) == ("nvidia", -1)
    assert request["Capabilities"] == [["utility"]]
    assert host["PidMode"] == "host" and host["CapDrop"] == ["ALL"] and host["ReadonlyRootfs"]
    said = compose("up", "--no-deps", "--detach", "scheduler", code=1)
    assert 'could not select device driver "nvidia"' in said
