"""A real Hub, with an engine that is watched, and people who mean no good."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from deploy.quickstart.trial import TrialHub
from tests.hubs import run_hub

from .recorder import Recorder

pytest.register_assert_rewrite("tests.hostile.attacker")

#: profiles of which each differs from the others in what its container is created with
AFTER = """
c.GPUDockerSpawner.mem_limit = "64M"
c.GPUDockerSpawner.stop_grace = 1
c.GPUScheduler.node_name = "{node}"
c.GPUScheduler.cdi_dir = "{cdi}"
c.GPUScheduler.detach_grace = 3
c.GPUScheduler.exited_grace = 10
c.GPUScheduler.reconcile_interval = 5
c.GPUScheduler.request_rate = 0
c.JupyterHub.log_level = "INFO"
c.JupyterHub.load_groups = dict(
    big=dict(users=["grace"]),
    team=dict(users=["user-1", "lead"]),
)
c.JupyterHub.load_roles = [
    dict(
        name="leads",
        users=["lead"],
        scopes=["groups!group=team", "read:users!group=team", "list:users!group=team"],
    ),
    dict(name="gpu-watchers", users=["watcher"], scopes=["custom:gpus:read"]),
    dict(name="gpu-operators", users=["operator"], scopes=["custom:gpus:admin"]),
]
c.GPUDockerSpawner.profile_list = [
    dict(display_name="Plain", slug="plain", default=True, spawner_override=dict(gpus=0)),
    dict(display_name="One GPU", slug="gpu", spawner_override=dict(gpus=1, mem_limit="65M")),
    dict(
        display_name="Choice",
        slug="choice",
        spawner_override=dict(gpus=0, mem_limit="66M"),
        profile_options=dict(
            size=dict(
                display_name="Size",
                choices=dict(
                    s=dict(display_name="S", default=True, spawner_override=dict(pids_limit=300)),
                    l=dict(display_name="L", spawner_override=dict(pids_limit=400)),
                    xl=dict(
                        display_name="XL",
                        allowed_groups=["big"],
                        spawner_override=dict(mem_limit="77M"),
                    ),
                ),
            ),
            word=dict(
                display_name="Word",
                unlisted_choice=dict(
                    enabled=True,
                    display_name="A word",
                    validation_regex="[a-z]{{1,8}}",
                    spawner_override=dict(environment=dict(WORD="{{value}}")),
                ),
                choices=dict(none=dict(display_name="none", default=True)),
            ),
        ),
    ),
    dict(
        display_name="Big",
        slug="big",
        allowed_groups=["big"],
        spawner_override=dict(gpus=0, mem_limit="88M", environment=dict(SECRET="of-the-big")),
    ),
    dict(
        display_name="Dies",
        slug="dies",
        spawner_override=dict(gpus=1, environment=dict(STUB_DIE="3")),
    ),
    dict(display_name="Many", slug="many", spawner_override=dict(gpus=99)),
]
"""


@pytest.fixture(scope="package")
def recorder(engine: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorder]:
    """The watched way to the engine."""
    folder = tmp_path_factory.mktemp("socket")
    made = Recorder(folder / "docker.sock", engine.base_url.removeprefix("unix://"))
    yield made
    made.close()


@pytest.fixture(scope="package")
def hub(engine: Any, docker_client: Any, stub_image: str, recorder: Recorder) -> Iterator[TrialHub]:
    """One Hub with four simulated GPUs for all tests here."""
    with run_hub(make_hub(engine, stub_image, recorder.url), docker_client) as hub:
        yield hub


def make_hub(engine: Any, image: str, docker_host: str, more: str = "") -> TrialHub:
    """A Hub, not started. ``more``: lines of configuration."""
    return TrialHub(
        image=image,
        simulate=4,
        after=AFTER.format(node=engine.node, cdi=engine.folder / "cdi") + more,
        env={"DOCKER_HOST": docker_host, "GPUS_BRIDGE_IP": engine.gateway},
    )


def long_run() -> bool:
    """Whether this is ``./run-tests long``."""
    return os.environ.get("GPUS_LONG", "") == "1"
