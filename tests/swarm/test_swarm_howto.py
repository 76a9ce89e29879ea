"""The commands of docs/howto/swarm.md, run on the testbed's Swarm."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from tests import howto
from tests.swarm.hubs import clear


def test_every_command_of_the_page_works_on_a_real_swarm(swarm, manager, tmp_path):
    if shutil.which("docker") is None:
        pytest.skip("Docker's command is not on this machine")
    clear(manager)
    lines = howto.commands("swarm", __file__)
    assert len(lines) >= 13
    try:
        for line in lines:
            done = subprocess.run(
                ["bash", "-c", line],
                env={**os.environ, "DOCKER_HOST": swarm.manager.base_url},
                cwd=tmp_path,
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, f"{line}: {done.stderr}"
        assert manager.networks.list(names=["gpus"])[0].attrs["Driver"] == "overlay"
        (node,) = manager.api.nodes(filters={"name": "node2"})
        assert node["Spec"]["Labels"]["jupyterhub-gpuspawner.gpu-model"] == "NVIDIA A100"
    finally:
        clear(manager)
        restore(manager)


def restore(manager):
    for secret in manager.secrets.list():
        secret.remove()
    for node in manager.api.nodes():
        spec = {**node["Spec"], "Availability": "active", "Labels": {}}
        manager.api.update_node(node["ID"], node["Version"]["Index"], spec)
