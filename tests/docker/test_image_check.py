"""``image check`` on a real engine: planted faults are found, and nothing is left behind."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import docker
import pytest

from jupyterhub_gpuspawner.cli.main import main
from jupyterhub_gpuspawner.doctor import image_facts
from jupyterhub_gpuspawner.doctor.finding import FINE, FOUND

Said = pytest.CaptureFixture[str]

#: an image on top of ours with everything wrong that a few lines can do
FAULTY = """\
FROM {base}
USER root
RUN site=$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') \
 && find "$site/jupyterlab" "$site/tornado" "$site/pygments" -name '*.pyc' -delete \
 && mkdir "$site/rfc3987_syntax" && touch "$site/rfc3987_syntax/__init__.py" \
 && echo 'import time; end = time.process_time() + 1' > "$site/sluggish.py" \
 && echo 'while time.process_time() < end: pass' >> "$site/sluggish.py" \
 && printf '{{"ServerApp": {{"jpserver_extensions": {{"sluggish": true, "not_there": true}}}}}}' \
    > /opt/conda/etc/jupyter/jupyter_server_config.d/lab.json \
 && mv "$site"/jupyterhub-*.dist-info "$site/jupyterhub-5.4.0.dist-info" \
 && sed -i 's/^Version: .*/Version: 5.4.0/' "$site/jupyterhub-5.4.0.dist-info/METADATA" \
 && echo machine example.org > /home/jovyan/.netrc && chmod 644 /home/jovyan/.netrc \
 && head -c 110M /dev/zero > /home/jovyan/data && echo x > /usr/lib/libcuda.so.1 \
 && printf 'channels:\\n  - defaults\\n' > /home/jovyan/.condarc
ENV NVIDIA_VISIBLE_DEVICES=all API_TOKEN=tk123 HOME=/home/jovyan
VOLUME /scratch
ENTRYPOINT ["start.sh"]
HEALTHCHECK NONE
"""
EXPECTED = {
    "root-user", "no-pyc", "rfc3987-syntax", "heavy-extension", "broken-extension", "slow-import",
    "jupyterhub-version", "secret-files", "large-home", "driver-inside", "conda-defaults",
    "nvidia-visible-devices", "secret-in-environment", "declared-volumes", "no-init",
    "no-health-check",
}  # fmt: skip


@pytest.fixture
def check(
    docker_client: docker.DockerClient, engine: Any, capsys: Said
) -> Callable[[str], tuple[int, dict[str, Any]]]:
    """Run the command on an image: exit code and JSON. No container may be left."""

    def run(image: str) -> tuple[int, dict[str, Any]]:
        code = main(["image", "check", image, "--engine", engine.base_url, "--json"])
        said = capsys.readouterr()
        assert docker_client.api.containers(all=True, filters={"label": image_facts.LABEL}) == []
        return code, json.loads(said.out) if said.out else {"said": said.err}

    return run


def test_faults_in_an_image_are_found_and_the_shipped_one_has_none(
    docker_client: docker.DockerClient, singleuser_image: str, check: Any
) -> None:
    code, said = check(singleuser_image)
    # how long a start takes is the machine's matter too
    found = [one for one in said["findings"] if "slow" not in one["check"]]
    assert found == []
    assert said["measured"]["modules_without_pyc"] == 0
    assert code == FINE or len(said["findings"]) > 0
    dockerfile = io.BytesIO(FAULTY.format(base=singleuser_image).encode())
    image, _ = docker_client.images.build(fileobj=dockerfile, rm=True, forcerm=True)
    try:
        code, said = check(str(image.id))
    finally:
        docker_client.images.remove(str(image.id), force=True)
    assert code == FOUND
    names = {one["check"].removeprefix("image.") for one in said["findings"]}
    assert names - {"slow-start"} == EXPECTED
    text = json.dumps(said)
    assert "tk123" not in text
    assert said["measured"]["extensions_cpu_seconds"]["sluggish"] >= 1.0


def test_an_image_without_python_is_judged_as_far_as_it_can_be_seen(
    docker_client: docker.DockerClient, stub_image: str, check: Any
) -> None:
    code, said = check("debian:bookworm-slim")
    assert code == FOUND
    (unseen,) = [one for one in said["findings"] if one["level"] == "unknown"]
    assert "no Python" in unseen["what"]


def test_an_image_that_is_not_there_is_one_line(check: Any) -> None:
    code, said = check("lab/none:1")
    assert code == 1
    assert "image lab/none:1 is not on the engine; docker pull lab/none:1" in said["said"]
