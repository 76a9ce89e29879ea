"""The images that tests run: a Debian base and a stub of a single-user server."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import docker
from docker.errors import ImageNotFound

from tests.testbed import rootfs

#: The name under which Dockerfiles ask for it; made here, as no registry answers.
BASE = "debian:bookworm-slim"
STUB_FOLDER = Path(__file__).parent / "stub"

#: What an image build needs to know of the way to the packages.
_MIRROR_VARIABLES = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "NPM_CONFIG_REGISTRY", "CONDA_MIRROR")


def build_arguments() -> dict[str, str]:
    """Mirrors and proxies of this environment, as build arguments."""
    found = {name: os.environ[name] for name in _MIRROR_VARIABLES if os.environ.get(name)}
    return {**rootfs.proxies(), **found}


def _present(client: docker.DockerClient, name: str) -> bool:
    try:
        client.images.get(name)
    except ImageNotFound:
        return False
    return True


def ensure_base(client: docker.DockerClient) -> str:
    """Import the Debian base where it is missing (about 2 s once the file system exists)."""
    if not _present(client, BASE):
        repository, _, tag = BASE.partition(":")
        client.api.import_image(
            src=str(rootfs.ensure_base_tar()),
            repository=repository,
            tag=tag,
            changes=['CMD ["bash"]', "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"],
        )
    return BASE


def ensure_stub(client: docker.DockerClient) -> str:
    """Build the stub image where it is missing (about 20 s), and return its name.

    The name carries a hash of its source, so a change in ``stub/`` makes a new image.
    """
    digest = hashlib.sha256()
    for path in sorted(STUB_FOLDER.iterdir()):
        if path.is_file():
            digest.update(path.name.encode() + path.read_bytes())
    name = f"gpus-stub:{digest.hexdigest()[:12]}"
    if not _present(client, name):
        ensure_base(client)
        client.images.build(
            path=str(STUB_FOLDER),
            tag=name,
            # The bridge of an engine leads to no mirror; the host's network does.
            network_mode="host",
            buildargs=build_arguments(),
            rm=True,
        )
    return name
