"""``python -m deploy.quickstart COMMAND``: the parts of ``./quickstart`` that need Python.

engine                is a Docker engine there? (4: there, but not for this user)
images                the images, built where missing; prints the name (3: no Debian image and
                      no registry: bootstrap one and give it to import-base)
import-base           a Debian root file system (tar on stdin) becomes the Debian image
settings              shell lines with GPUs, bridge address and password for the hub
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import requests
from docker.errors import DockerException

from deploy import debian_image
from deploy.quickstart import recipes, settings
from deploy.quickstart.progress import step, ticking
from jupyterhub_gpuspawner import images
from jupyterhub_gpuspawner.engine.connect import connect
from jupyterhub_gpuspawner.errors import GPUSpawnerError

#: Exit codes that the shell understands.
NO_REGISTRY, NOT_ALLOWED = 3, 4


def engine() -> int:
    """0 with an engine that answers, 4 where its socket is not for this user, else 1."""
    try:
        client = connect(None, 10.0)
        client.ping()
    except (DockerException, requests.RequestException, OSError) as error:
        text = str(error)
        print(text, file=sys.stderr)
        return NOT_ALLOWED if "Permission denied" in text else 1
    return 0


def ensure_images() -> int:
    """The images; prints the single-user image's name."""
    client = connect(None, debian_image.TIME_LIMIT)
    with ticking():
        if not debian_image.fetch(client, recipes.debian(os.environ)):
            return NO_REGISTRY
        wanted = recipes.singleuser_tag(os.environ)
        if not wanted.startswith(f"{recipes.SINGLEUSER}:"):
            # The admin's own image: theirs to build; here it must only be on the engine.
            if not images.present(client, wanted):
                images.pull(client, wanted, step)
            print(wanted)
            return 0
        image = recipes.ensure_singleuser(client)
    if image.seconds:
        step(f"image {image.tag} built in {image.seconds:.0f} s")
    print(f"{recipes.SINGLEUSER}:latest")
    return 0


def import_base() -> int:
    """The Debian image from a root file system on stdin."""
    return debian_image.import_base(recipes.debian(os.environ))


def show_settings(arguments: argparse.Namespace) -> int:
    """Lines for the shell to evaluate."""
    state = Path(arguments.state)
    for name, value in settings.gather(state, arguments.simulate, arguments.port).items():
        print(settings.shell_line(name, value))
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.quickstart")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("engine", "images", "import-base"):
        commands.add_parser(name)
    show = commands.add_parser("settings")
    show.add_argument("--state", required=True)
    show.add_argument("--port", type=int, required=True)
    show.add_argument("--simulate", type=int, default=0)
    arguments = parser.parse_args()
    try:
        if arguments.command == "settings":
            return show_settings(arguments)
        return {"engine": engine, "images": ensure_images, "import-base": import_base}[
            arguments.command
        ]()
    except (GPUSpawnerError, DockerException, requests.RequestException, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
