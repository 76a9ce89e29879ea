"""The Debian image below ours: pulled, or made of a root file system."""

from __future__ import annotations

import sys

import docker

from deploy.quickstart.progress import step, ticking
from jupyterhub_gpuspawner import images
from jupyterhub_gpuspawner.engine.connect import connect
from jupyterhub_gpuspawner.errors import ImageMissing

#: seconds for one answer of the engine
TIME_LIMIT = 60.0


def fetch(client: docker.DockerClient, name: str) -> bool:
    """Have the image on the engine; False where no registry gives it, which is said."""
    if images.present(client, name):
        return True
    step(f"pulling {name}")
    try:
        images.pull(client, name, step)
    except ImageMissing as error:
        step(str(error))
        return False
    return True


def import_base(name: str) -> int:
    """Make the image of a root file system (tar on stdin). An exit code."""
    labels = {"jupyterhub-gpuspawner.bootstrap": "debootstrap"}
    with ticking():
        images.import_tar(connect(None, TIME_LIMIT), name, sys.stdin.buffer, labels=labels)
    step(f"image {name} imported")
    return 0
