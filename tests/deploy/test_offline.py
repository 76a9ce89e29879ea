"""A bundle made with a network, installed and run without any."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.quickstart.trial import ROOT
from jupyterhub_gpuspawner.images import present
from tests import howto

#: the blocks of the how-to, in its order
MAKE, CHECK, INSTALL, VERSIONS, RUN = howto.blocks("offline", __file__)
(POSTGRESQL,) = howto.blocks("use-postgresql", __file__)
#: seconds for one command; pip may have to build a wheel
LIMIT = 540
#: a proxy that serves, asked from inside of its own namespace
SERVES = """
set -e
ip link set lo up
configurable-http-proxy --ip 127.0.0.1 --port 8765 --api-port 8766 &
for _ in $(seq 300); do
  if curl --silent --noproxy '*' http://127.0.0.1:8765/_chp_healthz; then kill $!; exit 0; fi
  sleep 0.1
done
exit 1
"""


@pytest.fixture(scope="module")
def bundle(
    engine: Any, stub_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A bundle with one image, as `deploy/offline/make` makes it."""
    folder = tmp_path_factory.mktemp("offline") / "bundle"
    command = MAKE.strip().replace("/media/bundle", str(folder))
    done = subprocess.run(
        ["bash", "-euc", f"{command} --python {sys.executable} --image {stub_image}"],
        cwd=ROOT,
        env={**os.environ, "DOCKER_HOST": engine.base_url},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert [path.name for path in folder.parent.iterdir()] == ["bundle"]
    yield folder
    shutil.rmtree(folder.parent)


@pytest.fixture
def cut_off(alone: Any) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a command in a network namespace with nothing in it, with an engine by its socket."""

    def run(command: str, **more: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", "/root"),
            "DOCKER_HOST": alone.base_url,
            # what would lead pip elsewhere
            "PIP_FIND_LINKS": "/nowhere",
            **more,
        }
        return subprocess.run(
            ["unshare", "--net", "bash", "-euc", command],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT,
            check=False,
        )

    return run


def test_what_was_cut_off_has_no_network(cut_off: Any) -> None:
    done = cut_off("ip -o link | wc -l; ip route; cat /proc/net/route")
    assert done.stdout.split("\n")[0] == "1" and "00000000" not in done.stdout, done.stdout


def test_a_bundle_is_installed_and_runs_without_network_as_the_page_says(
    cut_off: Any, bundle: Path, alone: Any, tmp_path: Path
) -> None:
    client = alone.client(timeout=300)
    (image,) = json.loads((bundle / "MANIFEST.json").read_text())["images"]
    if present(client, image["name"]):
        client.images.remove(image["name"], force=True)
    prefix = tmp_path / "opt"
    said = []
    for command in (*map(str.strip, (CHECK, INSTALL)), *howto.lines(VERSIONS)):
        command = command.replace("/media/bundle", str(bundle))
        done = cut_off(command.replace("/opt/jupyterhub-gpuspawner", str(prefix)))
        assert done.returncode == 0, f"{command}\n{done.stdout}"
        said.append(done.stdout.strip())
    assert "whole" in said[0]
    import jupyterhub

    assert said[2] == jupyterhub.__version__
    # the image is there, and runs
    assert str(client.images.get(image["name"]).id) == image["id"]
    output = client.containers.run(
        image["name"], ["python3", "-c", "print('runs')"], entrypoint=[], remove=True
    )
    assert output.strip() == b"runs"
    # the proxy serves
    path = f"{prefix}/current/venv/bin:{os.environ['PATH']}"
    served = cut_off(SERVES, PATH=path)
    assert served.returncode == 0 and "OK" in served.stdout, served.stdout
    # the shipped config is read by a Hub of this environment, with the spawner's entry point
    command = RUN.strip().replace("/opt/jupyterhub-gpuspawner", str(prefix))
    command = command.replace("/var/lib/jupyterhub-gpus", str(tmp_path))
    shown = cut_off(f"{command} --show-config", GPUS_PASSWORD="long enough for it")
    assert shown.returncode == 0 and "gpu-docker" in shown.stdout, shown.stdout[-2000:]
    # PostgreSQL's driver is in it
    wheels = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(bundle / "wheels")}
    added = cut_off(POSTGRESQL, PATH=path, **wheels)
    assert added.returncode == 0 and "psycopg" in added.stdout, added.stdout
    # and again: nothing is made anew
    release = os.readlink(prefix / "current")
    again = cut_off(f"{bundle}/install --prefix {prefix}")
    assert again.returncode == 0 and "Python packages" not in again.stdout
    assert os.readlink(prefix / "current") == release
    client.close()


def test_an_image_that_the_engine_refuses_leaves_nothing_behind(
    cut_off: Any, bundle: Path, alone: Any, stub_image: str, tmp_path: Path
) -> None:
    from deploy.offline.bundle import _write_manifest

    broken = tmp_path / "bundle"
    shutil.copytree(bundle, broken, copy_function=os.link)
    facts = json.loads((broken / "MANIFEST.json").read_text())
    (image,) = facts["images"]
    # right by its checksum: it was broken before
    archive = broken / image["file"]
    archive.unlink()
    archive.write_bytes(b"no image" * 1000)
    for name in ("MANIFEST.json", "MANIFEST.json.sha256"):
        (broken / name).unlink()
    _write_manifest(broken, facts)
    client = alone.client(timeout=300)
    if present(client, stub_image):
        client.images.remove(stub_image, force=True)
    prefix = tmp_path / "opt"
    done = cut_off(f"{broken}/install --prefix {prefix}")
    assert done.returncode == 1
    assert done.stdout.strip().split("\n")[-1].startswith("error: "), done.stdout
    assert "the engine refused" in done.stdout or "is not there after" in done.stdout
    assert not prefix.exists()
    assert not present(client, stub_image)
    client.close()
