"""The images that tests run: a Debian base and a stub of a single-user server."""

from __future__ import annotations

import sys
from pathlib import Path

import docker

from jupyterhub_gpuspawner.images import Recipe, ensure, import_tar, present
from tests.testbed import rootfs

#: The name under which Dockerfiles ask for it; made here, as no registry answers.
BASE = "debian:bookworm-slim"
STUB_FOLDER = Path(__file__).parent / "stub"


def ensure_base(client: docker.DockerClient) -> str:
    """Import the Debian base where it is missing (about 2 s once the file system exists)."""
    if not present(client, BASE):
        with rootfs.ensure_base_tar().open("rb") as archive:
            import_tar(client, BASE, archive, labels={})
    return BASE


def ensure_stub(client: docker.DockerClient) -> str:
    """Build the stub image where it is missing (about 20 s), and return its name.

    The name carries a hash of its source, so a change in ``stub/`` makes a new image;
    ``gpus-stub:latest`` is the same.
    """
    ensure_base(client)
    return ensure(client, _stub(), lambda text: print(text, file=sys.stderr)).tag


def stub_tag() -> str:
    """The name that :func:`ensure_stub` returns."""
    return _stub().tag


def copy(source: docker.DockerClient, target: docker.DockerClient, tag: str) -> None:
    """Load an image from one engine into another, where it is missing."""
    if not present(target, tag):
        for answer in target.api.load_image(source.images.get(tag).save(named=tag)):
            if "error" in answer:
                raise RuntimeError(f"{tag}: {answer['error']}")


def _stub() -> Recipe:
    return Recipe(repository="gpus-stub", context=STUB_FOLDER, transport=rootfs.proxies())
