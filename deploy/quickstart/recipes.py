"""Which images ``./quickstart`` needs, and what they are made of on this machine."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import docker
from docker.errors import ImageNotFound

from deploy.quickstart import hostpython
from deploy.quickstart.progress import step
from jupyterhub_gpuspawner import ways
from jupyterhub_gpuspawner.errors import ConfigError
from jupyterhub_gpuspawner.images import Image, Recipe, ensure, present

ROOT = Path(__file__).resolve().parents[2]
BASE = "jupyterhub-gpuspawner/base"
SINGLEUSER = "jupyterhub-gpuspawner/singleuser"
SOURCE_LABEL = "jupyterhub-gpuspawner.python-source"
VERSION_LABEL = "jupyterhub-gpuspawner.python-version"
SOURCES = ("miniconda", "host", "debian")


def debian(environ: Mapping[str, str]) -> str:
    """The image below ours: ``GPUS_BASE_IMAGE``."""
    return environ.get("GPUS_BASE_IMAGE") or "debian:bookworm-slim"


def singleuser_tag(environ: Mapping[str, str]) -> str:
    """The name that the hub uses."""
    return environ.get("GPUS_IMAGE") or f"{SINGLEUSER}:latest"


def dockerfile_default(text: str, name: str) -> str:
    """The default of ``ARG name=…`` in a Dockerfile; raises ``ConfigError`` without one."""
    match = re.search(rf"^ARG {re.escape(name)}=(.+)$", text, re.MULTILINE)
    if match is None:
        raise ConfigError(f"the Dockerfile has no 'ARG {name}=…'")
    return match[1].strip()


def base_recipe(source: str, python_version: str, debian_name: str, debian_id: str) -> Recipe:
    """The base image with Python from ``source`` (one of ``SOURCES``)."""
    arguments = {"BASE": debian_name, "PYTHON_SOURCE": source, "PYTHON_VERSION": python_version}
    for name in ("MINICONDA_VERSION", "MINICONDA_SHA256", "CONDA_CHANNEL"):
        if os.environ.get(name) and source == "miniconda":
            arguments[name] = os.environ[name]
    return Recipe(
        repository=BASE, context=ROOT / "images" / "base", arguments=arguments, salt=debian_id
    )


def singleuser_recipe(base: Image) -> Recipe:
    """The single-user image on a base image, with the hub's own version of JupyterHub."""
    return Recipe(
        repository=SINGLEUSER,
        context=ROOT / "images" / "singleuser",
        arguments={"BASE": base.tag, "JUPYTERHUB_VERSION": version("jupyterhub")},
        salt=base.id,
    )


def installer_url(recipe_text: str, environ: Mapping[str, str]) -> str:
    """Where the pinned Miniconda installer of this machine's kind is."""
    mirror = environ.get("MINICONDA_MIRROR") or dockerfile_default(recipe_text, "MINICONDA_MIRROR")
    release = environ.get("MINICONDA_VERSION") or dockerfile_default(
        recipe_text, "MINICONDA_VERSION"
    )
    return f"{mirror.rstrip('/')}/Miniconda3-{release}-Linux-{os.uname().machine}.sh"


def choose_source(environ: Mapping[str, str]) -> tuple[str, str, hostpython.HostPython | None]:
    """Where /opt/conda's Python comes from: (source, version, the host's Python if it is that).

    Tried in order: Miniconda's installer answers within 5 s; a Python 3.10 of this machine;
    Debian's. ``GPUS_PYTHON_SOURCE`` decides instead.
    """
    forced = environ.get("GPUS_PYTHON_SOURCE", "")
    if forced and forced not in SOURCES:
        raise ConfigError(f"GPUS_PYTHON_SOURCE={forced}: use one of {', '.join(SOURCES)}")
    if forced in {"", "miniconda"}:
        text = (ROOT / "images" / "base" / "Dockerfile").read_text(encoding="utf-8")
        url = installer_url(text, environ)
        if forced or ways.answers(url):
            step("Python of the image: Miniconda, Python 3.10")
            return "miniconda", "3.10", None
        step("Python of the image: the Miniconda installer can't be reached")
    if forced in {"", "host"}:
        found = hostpython.find()
        if found is not None:
            step(f"Python of the image: this machine's Python {found.version} ({found.prefix})")
            return "host", found.version, found
        if forced:
            raise ConfigError("GPUS_PYTHON_SOURCE=host: no whole Python 3.10 below a prefix found")
    step("Python of the image: Debian's own (no Miniconda, no Python 3.10 on this machine)")
    return "debian", "debian", None


def remembered_base(client: docker.DockerClient, debian_name: str, debian_id: str) -> Image | None:
    """The base image that is there already and still fits, so that nothing has to be probed."""
    try:
        labels = client.images.get(f"{BASE}:latest").labels or {}
    except ImageNotFound:
        return None
    source, python = labels.get(SOURCE_LABEL, ""), labels.get(VERSION_LABEL, "")
    forced = os.environ.get("GPUS_PYTHON_SOURCE", "")
    if source not in SOURCES or (forced and forced != source):
        return None
    recipe = base_recipe(source, python, debian_name, debian_id)
    if not present(client, recipe.tag, recipe.digest()):
        return None
    return Image(id=str(client.images.get(recipe.tag).id), tag=recipe.tag, seconds=0.0)


@contextmanager
def with_files(recipe: Recipe, python: hostpython.HostPython | None) -> Iterator[Recipe]:
    """The recipe with the way of this machine: mirrors, proxies, CA, and the packed Python."""
    settings = ways.pip_settings()
    files: dict[str, Path] = {}
    bundle = ways.certificates(os.environ, settings)
    if bundle is not None:
        files["ca.crt"] = bundle
    with tempfile.TemporaryDirectory() as folder:
        if python is not None:
            archive = Path(folder) / "python.tar"
            with archive.open("wb") as out:
                hostpython.pack(python, out)
            files["python.tar"] = archive
        transport = ways.transport(os.environ, settings)
        yield replace(recipe, transport=transport, extra_files=files)


def ensure_base(client: docker.DockerClient) -> Image:
    """The base image; needs the Debian image on the engine."""
    name = debian(os.environ)
    debian_id = str(client.images.get(name).id)
    known = remembered_base(client, name, debian_id)
    if known is not None:
        return known
    source, python_version, python = choose_source(os.environ)
    recipe = base_recipe(source, python_version, name, debian_id)
    with with_files(recipe, python) as full:
        return ensure(client, full, step)


def ensure_singleuser(client: docker.DockerClient) -> Image:
    """The single-user image and what it stands on."""
    recipe = singleuser_recipe(ensure_base(client))
    if present(client, recipe.tag, recipe.digest()):
        return ensure(client, recipe, step)
    with with_files(recipe, None) as full:
        return ensure(client, full, step)
