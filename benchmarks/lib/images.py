"""The images that benchmarks start: ours, plain pip's, and the stub that starts in 0.1 s."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import docker

from deploy.quickstart import recipes
from deploy.quickstart.progress import step
from jupyterhub_gpuspawner.images import Recipe, ensure, present
from tests.testbed import images as testbed_images

STOCK_FOLDER = Path(__file__).resolve().parents[1] / "images" / "stock"


@dataclass(frozen=True, kw_only=True, slots=True)
class Images:
    """Names of images on one engine."""

    #: the project's single-user image
    own: str
    #: plain ``pip install jupyterhub jupyterlab``
    plain: str
    #: a stand-in for a server, on the standard library alone
    stub: str


def ensure_all(client: docker.DockerClient) -> Images:
    """Build what is missing. Minutes on an empty engine, a second on one that has them."""
    if not present(client, recipes.debian(os.environ)):
        testbed_images.ensure_base(client)
    own = recipes.ensure_singleuser(client)
    base = recipes.ensure_base(client)
    plain = Recipe(
        repository="gpus-bench-plain",
        context=STOCK_FOLDER,
        arguments={"BASE": base.tag, "JUPYTERHUB_VERSION": version("jupyterhub")},
        salt=base.id,
    )
    if not present(client, plain.tag, plain.digest()):
        with recipes.with_files(plain, None) as full:
            ensure(client, full, step)
    return Images(own=own.tag, plain=plain.tag, stub=testbed_images.ensure_stub(client))
