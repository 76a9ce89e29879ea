"""``image check`` says what slows a start of an image, ``image build`` makes one."""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from importlib import metadata
from typing import Any

import docker
import docker.errors

from ..doctor import image_checks, image_facts
from ..doctor.finding import Unknown, as_text, exit_code
from ..doctor.image_facts import ImageFacts
from ..engine.connect import connect
from ..engine.faults import translate
from ..environments import build, spec
from ..errors import EngineError
from ..units import format_memory
from .command import FAILED, OK, Argument, Command, CommandError, note, say, say_json, table

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


def _build(arguments: argparse.Namespace) -> int:
    plan = build.plan_of(arguments.profile, python=arguments.python, base=arguments.base)
    transport, ca = build.transport(
        os.environ, index=arguments.index_url, proxy=arguments.proxy, ca=arguments.ca
    )
    channels = dict(_channel(text) for text in arguments.channel or ())
    plan = replace(plan, channels=channels, transport=transport, ca=ca, cuda=arguments.cuda)
    client = connected(arguments)
    try:
        made = build.build(client, plan, note)
    except EngineError as error:
        # with the last lines of the build, each on a line of its own
        note(f"image build: {error}")
        return FAILED
    finally:
        client.close()
    written = _write_locks(plan, made) if arguments.lock else []
    if arguments.json:
        say_json({"image": made.tag, "id": made.id, "lock": made.lock, "locks": written})
        return OK
    for path in written:
        note(f"written: {path}")
    done = f"built in {made.seconds:.0f} s" if made.seconds else "is there already"
    say(f"{made.tag} {done}; {build.LOCK_LABEL}={made.lock}")
    return OK


def _channel(text: str) -> tuple[str, str]:
    name, equals, where = text.partition("=")
    if not (name and equals and where):
        raise CommandError(f"--channel {text}: want NAME=URL, or NAME=/FOLDER")
    return name, where


def _write_locks(plan: build.Plan, made: build.Built) -> list[str]:
    """Write all of them, or none: pip would refuse one with a package that has no hash."""
    for file, environment in plan.environments:
        loose = spec.without_hash(made.locks[environment.name])
        if loose:
            raise CommandError(
                f"{file}: no lock is written, {made.tag} is built: {', '.join(loose)} came from a "
                "repository and has no hash; name a release of an index in the pip section"
            )
    written = []
    for file, environment in plan.environments:
        path = spec.lock_of(file, plan.python)
        path.write_bytes(made.locks[environment.name])
        written.append(str(path))
    return written


COMMANDS = (
    Command(
        name="image build",
        help="Build an image from environment.yml files: an environment and a kernel for each.\n\n"
        "PROFILE is a folder, a file, or a name below images/. Where NAME.lock.json lies beside "
        "NAME.yml, exactly what it says is installed; --lock writes it. The image is called "
        "jupyterhub-gpuspawner/FOLDER, with the digest of its locks as tag and label. What has "
        "not changed is not built again. Mirrors and proxies come from the usual variables and "
        "pip's settings, or from the options.",
        arguments=(
            Argument(name="PROFILE", help="such as images/pytorch, or environment.yml"),
            Argument(name="--lock", help="write what was installed beside the files"),
            Argument(name="--python VERSION", help="another version of Python, such as 3.12"),
            Argument(
                name="--base IMAGE",
                help="the image below",
                more={"default": "jupyterhub-gpuspawner/singleuser:latest"},
            ),
            Argument(
                name="--channel NAME=URL",
                help="where a channel of the files is: a mirror, or a folder of this machine; "
                "may be repeated",
                more={"action": "append"},
            ),
            Argument(
                name="--cuda VERSION",
                help="CUDA that the machines' driver can do; empty = choose packages without CUDA",
                more={"default": "12.8"},
            ),
            Argument(name="--index-url URL", help="the index for the pip section"),
            Argument(name="--proxy URL", help="the proxy for all downloads"),
            Argument(name="--ca FILE", help="certificate authorities that downloads trust"),
            ENGINE,
        ),
        run=_build,
    ),
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
