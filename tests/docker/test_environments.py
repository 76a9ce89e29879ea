"""``image build`` on a real engine, from a conda channel in a folder."""

from __future__ import annotations

import json
from pathlib import Path

import docker
import pytest

from deploy.quickstart import hostpython
from jupyterhub_gpuspawner.cli.main import main
from jupyterhub_gpuspawner.environments import spec
from jupyterhub_gpuspawner.environments.build import LOCK_LABEL
from tests.docker import conda_channel
from tests.testbed.engine import Engine

FILE = """\
name: toy-1
channels: [conda-forge, nodefaults]
dependencies: [python=3.10, pip, toy=1.*, {pip: [ipykernel]}]
"""


def test_an_environment_from_a_file_is_a_kernel_and_leaves_a_lock(
    tmp_path: Path,
    engine: Engine,
    docker_client: docker.DockerClient,
    singleuser_image: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    python = hostpython.find()
    if python is None:
        pytest.skip("no whole Python 3.10 below a prefix on this machine")
    channel = conda_channel.make(tmp_path / "channel", python)
    profile = tmp_path / "toys"
    profile.mkdir()
    file = profile / "toy.yml"
    file.write_text(FILE)
    words = ["image", "build", str(profile), "--engine", engine.base_url, "--json"]
    words += ["--base", singleuser_image, "--channel", f"conda-forge={channel}"]
    # a package that is nowhere: the solver's own words, and no image
    file.write_text(FILE.replace("toy=1.*", "toy=3"))
    assert main(words) == 1
    assert "the conda part can't be had" in capsys.readouterr().err
    file.write_text(FILE)
    assert main([*words, "--lock"]) == 0
    said = json.loads(capsys.readouterr().out)
    image = docker_client.images.get(said["image"])
    try:
        assert image.labels[LOCK_LABEL] == said["lock"]
        assert said["image"].endswith(said["lock"].removeprefix("sha256:")[:12])
        assert image.attrs["Config"]["User"] == "1000"
        script = (
            "jupyter kernelspec list --json; /opt/envs/toy-1/bin/python -c 'import toy, ipykernel'"
        )
        out = docker_client.containers.run(
            image.id, ["sh", "-ec", script], network_mode="none", remove=True
        )
        specs = json.loads(out)["kernelspecs"]
        assert specs["toy-1"]["spec"]["argv"][0] == "/opt/envs/toy-1/bin/python"
        assert "python3" in specs
        lock = json.loads(spec.lock_of(file, None).read_text())
        assert {one["name"] for one in lock["conda"]} == {"python", "pip", "toy"}
        assert any(line.startswith("ipykernel==") and "sha256:" in line for line in lock["pip"])
        # packages came by a stage of their own: nothing of the way is in the image
        assert not any("/tmp/build" in str(layer.get("CreatedBy")) for layer in image.history())
    finally:
        for repository in ("toys", "toys-unlabelled"):
            for made in docker_client.images.list(f"jupyterhub-gpuspawner/{repository}"):
                for tag in made.tags:
                    docker_client.images.remove(tag, force=True)
