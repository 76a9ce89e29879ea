"""What an image is like: what the engine says about it, and what a look from inside finds.

The look from inside is a container of the image without network, GPUs, capabilities or volumes,
removed by its id on every path.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from typing import Any, cast

import docker
import docker.errors
import requests

from ..engine.faults import explain, translate
from ..errors import EngineUnknown, GPUSpawnerError, ImageMissing
from . import image_probe
from .finding import Unknown

#: says what the container is for, to somebody who meets it
LABEL = "jupyterhub-gpuspawner.image-check"
#: seconds for the look from inside
LIMIT = 300.0
_MEMORY = 2 * 1024**3
#: The Python of the launcher, else the first that there is; its number is no exit code of Python's.
_NO_PYTHON = 97
_SHELL = """
l=$(command -v jupyterhub-singleuser)
[ -z "$l" ] || own=$(sed -n '1s,^#! *\\(/[^ ]*python[0-9.]*\\).*,\\1,p' "$l" 2>/dev/null)
for p in "$own" /opt/conda/bin/python python3 python; do
  [ -z "$p" ] || ! command -v "$p" >/dev/null || exec "$p" -c "$0" "$@"
done
exit 97
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageFacts:
    """What is known of an image."""

    #: as the configuration or the admin calls it
    name: str
    #: what ``docker image inspect`` says
    inspect: Mapping[str, Any]
    #: the number of its layers that hold files
    layers: int
    #: what :mod:`image_probe` found inside, or why it could not look
    inside: Mapping[str, Any] | Unknown
    #: the engine's architecture in Docker's words, such as ``amd64``; empty = not known
    engine_architecture: str
    #: version of the JupyterHub that starts it
    hub: str
    #: where a home is mounted
    home_path: str = "/home/jovyan"

    @property
    def config(self) -> Mapping[str, Any]:
        """The part of ``inspect`` that containers inherit."""
        return self.inspect.get("Config") or {}

    @property
    def environment(self) -> dict[str, str]:
        """The variables that are set in the image."""
        lines = self.config.get("Env") or ()
        return {name: value for name, _, value in (str(line).partition("=") for line in lines)}


#: Docker's architectures by what ``/info`` calls them
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "ppc64le": "ppc64le"}


def gather(
    client: docker.DockerClient, name: str, *, hub: str, home_path: str = "/home/jovyan"
) -> ImageFacts:
    """Look at an image that is on the engine. Takes seconds.

    Raises
    ------
    ImageMissing
        It is not on the engine.
    EngineUnknown
        The engine did not answer.
    """
    try:
        inspect = cast("dict[str, Any]", client.api.inspect_image(name))
        history = client.api.history(name)
        machine = str(client.info().get("Architecture") or "")
    except docker.errors.ImageNotFound:
        raise ImageMissing(f"image {name} is not on the engine; docker pull {name}") from None
    except (docker.errors.DockerException, requests.RequestException, OSError) as error:
        raise translate(error) from error
    architecture = _ARCHITECTURES.get(machine, machine)
    facts = ImageFacts(
        name=name,
        inspect=inspect,
        layers=sum(1 for layer in history if layer.get("Size")),
        inside=Unknown(why="it is for another kind of machine"),
        engine_architecture=architecture,
        hub=hub,
        home_path=home_path,
    )
    if architecture and inspect.get("Architecture") not in (architecture, "", None):
        return facts
    return _with(facts, look_inside(client, str(inspect["Id"]), home_path))


def _with(facts: ImageFacts, inside: Mapping[str, Any] | Unknown) -> ImageFacts:
    values = {name: getattr(facts, name) for name in ImageFacts.__slots__}
    return ImageFacts(**{**values, "inside": inside})


def look_inside(
    client: docker.DockerClient, image: str, home_path: str
) -> Mapping[str, Any] | Unknown:
    """Run the probe in a container of the image. EngineUnknown where the engine fell silent."""
    source = resources.files(__package__).joinpath("image_probe.py").read_text(encoding="utf-8")
    # a name of its own, so that it can be removed too where the answer with its id was lost
    container = name = f"gpus-image-check-{uuid.uuid4().hex[:12]}"
    try:
        container = _create(client, image, name, [source, home_path])
        client.api.start(container)
        ended = client.api.wait(container, timeout=LIMIT)
        said = cast("bytes", client.api.logs(container)).decode("utf-8", "replace")
        return read(said, int(ended.get("StatusCode", -1)))
    except requests.exceptions.ReadTimeout:
        return Unknown(why=f"the look from inside did not end within {LIMIT:.0f} s")
    except docker.errors.APIError as error:
        if "executable file not found" in explain(error) or "no such file" in explain(error):
            return Unknown(why="the image has no shell (sh)")
        translated = translate(error)
        if isinstance(translated, EngineUnknown | GPUSpawnerError):
            return Unknown(why=str(translated))
        raise
    except (docker.errors.DockerException, requests.RequestException, OSError) as error:
        raise translate(error) from error
    finally:
        with suppress(docker.errors.NotFound):
            client.api.remove_container(container, force=True, v=True)


def _create(client: docker.DockerClient, image: str, name: str, arguments: list[str]) -> str:
    api = client.api
    host = api.create_host_config(
        network_mode="none",
        mem_limit=_MEMORY,
        memswap_limit=_MEMORY,
        pids_limit=512,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        init=True,
        log_config={"type": "json-file", "config": {}},
    )
    made = api.create_container(
        image,
        name=name,
        entrypoint=["sh", "-c", _SHELL],
        command=arguments,
        # the image's own .pyc are what is measured, and no engine's default gives it GPUs
        environment={"PYTHONDONTWRITEBYTECODE": "1", "NVIDIA_VISIBLE_DEVICES": "void"},
        labels={LABEL: "1"},
        host_config=host,
        healthcheck={"test": ["NONE"]},
        use_config_proxy=False,
    )
    return str(made["Id"])


def read(said: str, code: int) -> Mapping[str, Any] | Unknown:
    """What the probe said, or why there is nothing to read."""
    for line in reversed(said.splitlines()):
        if line.startswith(image_probe.MARK):
            try:
                return cast("dict[str, Any]", json.loads(line[len(image_probe.MARK) :]))
            except ValueError:
                break
    if code == _NO_PYTHON:
        return Unknown(why="the image has no Python")
    last = [line.strip() for line in said.splitlines() if line.strip()][-1:]
    more = f", the last line: {last[0][:200]}" if last else ""
    return Unknown(why=f"the look from inside ended with exit code {code}{more}")
