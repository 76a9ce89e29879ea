"""``image build`` on a real engine, as its how-to says, from channels that stand for conda's."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest

from deploy.quickstart import hostpython
from jupyterhub_gpuspawner.environments import spec
from jupyterhub_gpuspawner.environments.build import LOCK_LABEL, RATTLER
from tests import howto
from tests.docker import conda_channel, mirror
from tests.testbed.engine import Engine

#: the blocks of the how-to, in its order
PLAIN, MIRRORED, FOLDER, *_ = (
    block for block in howto.blocks("images", __file__) if "image build" in block
)
FILE = """\
name: {name}
channels: [conda-forge, nodefaults]
dependencies: [{needs}]
"""
#: of an environment with a real Python and a real kernel
REAL = "python={version}, pip, toy=1.*, {{pip: [ipykernel]}}"
LIGHT = "python=3.10, ipykernel, toy"
#: images that the profiles of the how-to become
OWN = re.compile(r"jupyterhub-gpuspawner/(?:cpu|pytorch|tensorflow)\b")
Type = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def python() -> hostpython.HostPython:
    found = hostpython.find()
    if found is None:
        pytest.skip("no whole Python 3.10 below a prefix on this machine")
    return found


@pytest.fixture
def type_in(
    tmp_path: Path, engine: Engine, docker_client: docker.DockerClient, singleuser_image: str
) -> Iterator[Type]:
    """Runs the how-to's commands where ``images/`` is; what they have built is removed."""
    docker_client.images.get(singleuser_image).tag("jupyterhub-gpuspawner/singleuser", "latest")

    def run(command: str, **more: str) -> subprocess.CompletedProcess[str]:
        return howto.shell(tmp_path, command, DOCKER_HOST=engine.base_url, **more)

    yield run
    for image in docker_client.images.list():
        for tag in filter(OWN.match, image.tags):
            docker_client.images.remove(tag, force=True)


def profile(folder: Path, name: str, needs: str, file: str = "environment") -> Path:
    path = folder / "images" / name / f"{file}.yml"
    path.parent.mkdir(parents=True, exist_ok=True)
    own = name if file == "environment" else file
    path.write_text(FILE.format(name=own, needs=needs))
    return path


def built(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The images that the commands say that they have made."""
    assert done.returncode == 0, done.stdout + done.stderr
    return [line.split()[0] for line in done.stdout.splitlines()]


def test_an_environment_through_a_mirror_with_proxy_and_own_ca_is_a_kernel_and_leaves_a_lock(
    tmp_path: Path,
    docker_client: docker.DockerClient,
    python: hostpython.HostPython,
    type_in: Type,
) -> None:
    channel = conda_channel.make(tmp_path / "channel", python)
    wheels = tmp_path / "wheels"
    fetch = [f"{python.prefix}/bin/python3.10", "-m", "pip", "download", "--quiet"]
    subprocess.run([*fetch, "--dest", wheels, RATTLER, "ipykernel"], check=True, timeout=900)
    needs = REAL.format(version=python.version)
    file = profile(tmp_path, "cpu", needs.replace("toy=1.*", "toy=3"))
    with mirror.serve(tmp_path, {"conda-forge": channel}, wheels) as site:
        command = MIRRORED.replace("http://proxy.example.org:3128", site.proxy)
        command = command.replace("/etc/ssl/certs/lab.pem", str(site.ca)).strip()
        # a package that is nowhere: the solver's own words, and no image
        failed = type_in(command)
        assert failed.returncode == 1
        assert "the conda part can't be had" in failed.stderr, failed.stderr
        file.write_text(FILE.format(name="cpu", needs=needs))
        (tag,) = built(type_in(f"{command} --lock"))
    assert {host for host, _ in site.answered} == {"mirror.example.org"}
    asked = {path for _, path in site.answered}
    assert "/pypi/simple/ipykernel/" in asked
    assert any(path.startswith("/conda-forge/linux-64/python-") for path in asked)
    image = docker_client.images.get(tag)
    assert tag.endswith(image.labels[LOCK_LABEL].removeprefix("sha256:")[:12])
    assert image.attrs["Config"]["User"] == "1000"
    script = "jupyter kernelspec list --json; /opt/envs/cpu/bin/python -c 'import toy, ipykernel'"
    out = docker_client.containers.run(
        image.id, ["sh", "-ec", script], network_mode="none", remove=True
    )
    specs = json.loads(out)["kernelspecs"]
    assert specs["cpu"]["spec"]["argv"][0] == "/opt/envs/cpu/bin/python"
    assert "python3" in specs
    lock = json.loads(spec.lock_of(file, None).read_text())
    assert {one["name"] for one in lock["conda"]} == {"python", "pip", "toy"}
    assert any(line.startswith("ipykernel==") and "sha256:" in line for line in lock["pip"])
    # packages came by a stage of their own: nothing of the way is in the image
    history = json.dumps(image.history()) + json.dumps(image.attrs["Config"])
    assert not any(word in history for word in ("/tmp/build", "mirror.example", site.proxy))


def test_the_profiles_are_built_from_the_channels_own_address_or_from_a_folder(
    tmp_path: Path,
    docker_client: docker.DockerClient,
    python: hostpython.HostPython,
    type_in: Type,
) -> None:
    channel = conda_channel.add_light(tmp_path / "channel", "3.10.99", "3.12.99")
    profile(tmp_path, "cpu", LIGHT)
    profile(tmp_path, "pytorch", LIGHT)
    locks = [
        spec.lock_of(profile(tmp_path, "tensorflow", LIGHT, f"tensorflow-{version}"), None)
        for version in ("2.16", "2.18")
    ]
    wheels = tmp_path / "wheels"
    fetch = [f"{python.prefix}/bin/python3.10", "-m", "pip", "download", "--quiet"]
    subprocess.run([*fetch, "--dest", wheels, RATTLER], check=True, timeout=900)
    with mirror.serve(tmp_path, {"conda-forge": channel}, wheels) as site:
        way = {name: site.proxy for name in ("http_proxy", "https_proxy")}
        way |= {"PIP_CERT": str(site.ca), "PIP_INDEX_URL": f"https://{mirror.HOSTS[0]}/pypi/simple"}
        names = built(type_in(PLAIN, no_proxy="localhost", **way))
        (again,) = built(type_in(PLAIN.splitlines()[1], no_proxy="localhost", **way))
    repositories = [name.rpartition(":")[0].rpartition("/")[2] for name in names]
    assert repositories == ["pytorch", "tensorflow", "cpu-py312"]
    assert (mirror.HOSTS[1], "/conda-forge/noarch/repodata.json") in site.answered
    # from its locks now
    assert again == names[1] and all(lock.is_file() for lock in locks)
    out = docker_client.containers.run(
        names[1], ["sh", "-ec", "ls /opt/envs"], network_mode="none", remove=True
    )
    assert out.split() == [b"tensorflow-2.16", b"tensorflow-2.18"]
    command = FOLDER.replace("/srv/channel", str(channel)).strip()
    failed = type_in(f"{command} --base lab/none:1")
    assert (failed.returncode, failed.stderr.count("\n")) == (1, 1), failed.stderr
    assert "image lab/none:1 is not on the engine; ./quickstart builds it" in failed.stderr
    (tag,) = built(type_in(command))
    assert tag.startswith("jupyterhub-gpuspawner/cpu:")
