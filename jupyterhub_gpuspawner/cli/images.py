"""``image check``: what slows or endangers the start of a server of an image."""

from __future__ import annotations

import argparse
from importlib import metadata
from typing import Any

import docker
import docker.errors

from ..doctor import image_checks, image_facts
from ..doctor.finding import Unknown, as_text, exit_code
from ..doctor.image_facts import ImageFacts
from ..engine.connect import connect
from ..engine.faults import translate
from ..units import format_memory
from .command import Argument, Command, note, say, say_json, table

#: seconds for an answer of the engine; the look from inside has a limit of its own
_TIMEOUT = 60.0

ENGINE = Argument(
    name="--engine URL",
    help="the Docker engine, such as unix:///var/run/docker.sock. Default: DOCKER_HOST, else the "
    "local socket",
)


def connected(arguments: argparse.Namespace) -> docker.DockerClient:
    """A client of the engine that the arguments name; an error is one of ours."""
    try:
        return connect(arguments.engine, _TIMEOUT)
    except (docker.errors.DockerException, OSError) as error:
        raise translate(error) from error


def _check(arguments: argparse.Namespace) -> int:
    hub = arguments.hub_version or metadata.version("jupyterhub")
    client = connected(arguments)
    try:
        note(f"{arguments.image}: looking inside, in a container without network")
        facts = image_facts.gather(
            client, arguments.image, hub=hub, home_path=arguments.home.rstrip("/") or "/"
        )
    finally:
        client.close()
    found = image_checks.judge(facts)
    code = exit_code(found)
    if arguments.json:
        say_json(
            {
                "image": arguments.image,
                "id": facts.inspect.get("Id"),
                "measured": measured(facts),
                "findings": [one.as_json() for one in found],
                "exit_code": code,
            }
        )
        return code
    say(table(("measured", ""), list(_rows(measured(facts)))))
    say("")
    say(as_text(found) if found else "nothing found that slows or endangers a start")
    return code


def measured(facts: ImageFacts) -> dict[str, Any]:
    """The numbers of an image; None = not known."""
    values: dict[str, Any] = {
        "bytes": facts.inspect.get("Size"),
        "layers": facts.layers,
        "architecture": facts.inspect.get("Architecture"),
        "user": facts.config.get("User") or "root",
        "hub": facts.hub,
    }
    inside = facts.inside
    if isinstance(inside, Unknown):
        return values
    began = inside["start"]
    return {
        **values,
        "python": inside["python"],
        **inside["versions"],
        "modules": inside["compiled"]["modules"],
        "modules_without_pyc": inside["compiled"]["missing"] + inside["compiled"]["stale"],
        "start_cpu_seconds": began.get("total"),
        "extensions_cpu_seconds": {n: e["seconds"] for n, e in began.get("extensions", {}).items()},
        "slowest_packages": began.get("packages", {}),
        "kernels": sorted(began.get("kernels", {})),
        "home_bytes": inside["home_bytes"],
        "set_user_id": inside["set_user_id"],
    }


def _rows(values: dict[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for name, value in values.items():
        label = name.removesuffix("_bytes") if name != "bytes" else "size"
        if name.endswith("bytes") and value is not None:
            shown = format_memory(value)
        elif isinstance(value, dict):
            shown = ", ".join(f"{key} {seconds:.2f}" for key, seconds in value.items()) or "-"
        elif isinstance(value, list):
            shown = ", ".join(map(str, value)) or "-"
        elif isinstance(value, float):
            shown = f"{value:.2f}"
        else:
            shown = "-" if value is None else str(value)
        rows.append((label.replace("_", " "), shown))
    return rows


COMMANDS = (
    Command(
        name="image check",
        help="Say what slows or endangers a start of an image, and the fix for each.\n\n"
        "The image has to be on the engine. It is started once, without network, GPUs, "
        "capabilities or volumes, and the container is removed in the end. What can't be looked "
        "at is said too. Exit code 0: nothing found; 3: something found; 4: nothing found, but "
        "not everything could be looked at.",
        arguments=(
            Argument(name="IMAGE", help="name or id of the image"),
            Argument(
                name="--hub-version VERSION",
                help="JupyterHub of the Hub. Default: the one that is installed here",
            ),
            Argument(
                name="--home PATH",
                help="where homes are mounted: home_path of the spawner",
                more={"default": "/home/jovyan"},
            ),
            ENGINE,
        ),
        run=_check,
    ),
)
