"""``python -m deploy.compose COMMAND``: the parts of ``deploy/compose/up`` that need Python.

env [NAME=VALUE ...]  the env file, with a value for each secret; settings are for a new one
images                the images, built where missing (3: no Debian image and no registry:
                      bootstrap one and give it to import-base)
import-base           a Debian root file system (tar on stdin) becomes the Debian image
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import requests
from docker.errors import DockerException

from deploy import debian_image
from deploy.compose import envfile, recipes
from deploy.node_packages import NodeError
from deploy.quickstart.progress import step, ticking
from jupyterhub_gpuspawner.engine.connect import connect
from jupyterhub_gpuspawner.errors import GPUSpawnerError

#: exit code that the shell understands
NO_REGISTRY = 3


def ensure_env(arguments: argparse.Namespace) -> int:
    """The env file; says where it is new."""
    settings = dict(pair.partition("=")[::2] for pair in arguments.settings)
    path = Path(arguments.file)
    if envfile.ensure(path, **settings):
        step(f"settings and secrets are in {path}, which only you can read")
    return 0


def ensure_images(arguments: argparse.Namespace) -> int:
    """The images of compose.yml."""
    client = connect(None, debian_image.TIME_LIMIT)
    with ticking():
        if not debian_image.fetch(client, recipes.base(os.environ)):
            return NO_REGISTRY
        made = recipes.ensure_all(client, release=arguments.release)
    for part, image in made.items():
        if image.seconds:
            step(f"image {part}: {image.tag} built in {image.seconds:.0f} s")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.compose")
    commands = parser.add_subparsers(dest="command", required=True)
    env = commands.add_parser("env")
    env.add_argument("--file", required=True)
    env.add_argument("settings", nargs="*")
    build = commands.add_parser("images")
    build.add_argument("--release", default="")
    commands.add_parser("import-base")
    arguments = parser.parse_args()
    try:
        if arguments.command == "env":
            return ensure_env(arguments)
        if arguments.command == "images":
            return ensure_images(arguments)
        return debian_image.import_base(recipes.base(os.environ))
    except (
        *(envfile.EnvFileError, NodeError, GPUSpawnerError),
        *(DockerException, requests.RequestException, OSError),
    ) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
