"""Facts of the engine: what it says about itself, and what a container reaches."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from typing import Any, cast

import docker
import docker.errors
import requests

from ..engine.faults import translate
from ..engine.owner import engine_owner
from ..errors import GPUSpawnerError, ImageMissing
from . import image_facts
from .finding import Unknown
from .gather_machine import listening

#: seconds for a container's attempt to reach the Hub
_REACH = 8
#: no bash in the image
_NO_BASH = 97
#: what Docker's SDK raises
TROUBLE = (docker.errors.DockerException, requests.RequestException, OSError)


def why(error: Exception) -> Unknown:
    """The reason in one line."""
    return Unknown(why=" ".join(str(translate(error)).split())[:300])


def ask(client: docker.DockerClient) -> dict[str, Any]:
    """What the engine says about itself."""
    found: dict[str, Any] = {}
    try:
        before = time.time()
        found["info"] = client.info()
        found["engine_clock"] = clock(found["info"], (before + time.time()) / 2)
        found["version"] = client.version()
        found["networks"] = client.api.networks()
    except TROUBLE as error:
        unknown = why(error)
        for name in ("info", "version", "networks", "engine_clock"):
            found.setdefault(name, unknown)
    try:
        found["owner"] = engine_owner(client)
    except (*TROUBLE, GPUSpawnerError) as error:
        found["owner"] = why(error)
    return found


def clock(info: dict[str, Any], now: float) -> float | Unknown:
    """The engine's clock minus ours, in seconds."""
    text = str(info.get("SystemTime") or "")
    try:
        # nine digits of a second are more than Python 3.10 reads
        return datetime.fromisoformat(f"{text[:19]}+00:00").timestamp() + 0.5 - now
    except ValueError:
        return Unknown(why=f"the engine says {text!r} for its time")


def look_at(
    client: docker.DockerClient, names: Iterable[str], *, hub: str, home_path: str
) -> dict[str, image_facts.ImageFacts | None] | Unknown:
    """Facts of images; None = it is not on the engine."""
    found: dict[str, image_facts.ImageFacts | None] = {}
    for name in names:
        try:
            found[name] = image_facts.gather(client, name, hub=hub, home_path=home_path)
        except ImageMissing:
            found[name] = None
        except (*TROUBLE, GPUSpawnerError) as error:
            return why(error)
    return found


def reach(client: docker.DockerClient, image: str | None, address: str, port: int) -> str | Unknown:
    """Why a container on Docker's bridge can't connect to an address; empty = it can.

    Where nothing listens there, something does for the time of the test.
    """
    if image is None:
        return Unknown(why="there is no image on the engine to try it with")
    door = listening(address, port)
    if isinstance(door, Unknown):
        return door
    name = f"gpus-reach-check-{uuid.uuid4().hex[:12]}"
    script = f'command -v bash >/dev/null || exit {_NO_BASH}; exec timeout {_REACH} bash -c "$0"'
    try:
        client.api.create_container(
            image,
            name=name,
            entrypoint=["sh", "-c", script],
            command=[f"exec 3<>/dev/tcp/{address}/{port}"],
            environment={"NVIDIA_VISIBLE_DEVICES": "void"},
            labels={image_facts.LABEL: "1"},
            host_config=client.api.create_host_config(network_mode="bridge", cap_drop=["ALL"]),
            healthcheck={"test": ["NONE"]},
            use_config_proxy=False,
        )
        client.api.start(name)
        ended = client.api.wait(name, timeout=_REACH + 30)
        said = cast("bytes", client.api.logs(name)).decode("utf-8", "replace")
    except TROUBLE as error:
        return why(error)
    finally:
        if door is not None:
            door.close()
        with suppress(docker.errors.NotFound):
            client.api.remove_container(name, force=True, v=True)
    return judge_reach(int(ended.get("StatusCode", -1)), said)


def judge_reach(code: int, said: str) -> str | Unknown:
    """What a container's attempt says."""
    if code == 0:
        return ""
    if code == _NO_BASH:
        return Unknown(why="the image has no bash to try it with")
    if code == 124:
        return f"no answer within {_REACH} s"
    last = [line for line in said.splitlines() if line.strip()]
    text = last[-1].rpartition(": ")[2] if last else f"exit code {code}"
    return text[:200]
