"""The images of ``deploy/compose.yml``, and what they are made of on this machine."""

from __future__ import annotations

import hashlib
import os
import re
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import docker

from deploy import node_packages
from deploy.quickstart.progress import step
from jupyterhub_gpuspawner import ways
from jupyterhub_gpuspawner.images import Image, Recipe, context_files, ensure

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
REPOSITORY = "jupyterhub-gpuspawner"
#: beside the one that they stand on
PARTS = ("hub", "proxy", "database", "gate")
#: what of this repository goes into the Hub's image
SOURCE = (
    *("pyproject.toml", "README.md", "LICENSE", "jupyterhub_config.py"),
    *("jupyterhub_gpuspawner", "deploy/compose/scheduler_config.py"),
)
PROJECT = ROOT / "pyproject.toml"
HEALTHY = HERE / "healthy"
SOCKET_PROXY = ROOT / "deploy" / "socket-proxy" / "haproxy.cfg"


def base(environ: Mapping[str, str]) -> str:
    """The Debian image below ours: ``SITE_BASE_IMAGE``."""
    return environ.get("SITE_BASE_IMAGE") or "debian:trixie-slim"


def ensure_all(
    client: docker.DockerClient, *, release: str = "", latest: bool = True
) -> dict[str, Image]:
    """All images by part, built where missing; needs the Debian image on the engine.

    ``release`` names this build of the Hub; ``latest`` also moves the tags that compose.yml names.
    """
    name = base(os.environ)
    made: dict[str, Image] = {}
    with ExitStack() as stack:
        system = _recipe("system", name, str(client.images.get(name).id))
        made["system"] = ensure(client, stack.enter_context(_with_ways(system)), step)
        for part in PARTS:
            recipe = stack.enter_context(recipe_of(part, made["system"], release=release))
            made[part] = ensure(client, recipe, step, latest=latest)
    return made


@contextmanager
def recipe_of(part: str, system: Image, *, release: str = "") -> Iterator[Recipe]:
    """The recipe of one part on the common image, with the files that it needs."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        recipe = _recipe(part, system.tag, system.id)
        if part in ("hub", "proxy"):
            recipe = _with_file(recipe, "healthy", HEALTHY)
        if part == "hub":
            recipe = _hub(recipe, folder, release)
        elif part == "proxy":
            proxy = stack.enter_context(node_packages.installed())
            recipe = _proxy(recipe, proxy, folder / "node_modules.tar")
        elif part == "gate":
            recipe = _with_file(recipe, "engine.cfg", SOCKET_PROXY)
        yield stack.enter_context(_with_ways(recipe))


def _recipe(part: str, base_name: str, base_id: str) -> Recipe:
    return Recipe(
        repository=f"{REPOSITORY}/{part}",
        context=HERE / part,
        arguments={"BASE": base_name},
        salt=base_id,
    )


def _hub(recipe: Recipe, folder: Path, release: str) -> Recipe:
    arguments = {
        **recipe.arguments,
        "JUPYTERHUB_VERSION": version("jupyterhub"),
        "RELEASE": release,
    }
    requirements, source = folder / "requirements.txt", folder / "source.tar"
    requirements.write_text("\n".join(needs()) + "\n")
    digest = pack_source(source)
    return replace(
        recipe,
        arguments=arguments,
        salt=f"{recipe.salt} {digest}",
        extra_files={
            **recipe.extra_files,
            requirements.name: requirements,
            source.name: source,
        },
    )


def needs() -> list[str]:
    """What the package needs beside JupyterHub, whose version is the Hub's own."""
    table = re.findall(
        r"^(dependencies|postgresql|idle) = \[(.*?)\]$", PROJECT.read_text(), re.M | re.S
    )
    found = [need for _, text in table for need in re.findall(r'"([^"]+\b.*?)"', text)]
    return [need for need in found if not re.match(r"jupyterhub\W*[><=]", need)]


def _proxy(recipe: Recipe, proxy: Path | None, archive: Path) -> Recipe:
    arguments = {**recipe.arguments, "CHP_VERSION": node_packages.WANTED}
    if proxy is None:
        return replace(recipe, arguments=arguments)
    packages = node_packages.closure(proxy)
    with archive.open("wb") as out:
        node_packages.pack(packages, out)
    text = " ".join(f"{package.place}@{package.version}" for package in packages)
    recipe = replace(recipe, arguments=arguments, salt=f"{recipe.salt} {text}")
    return replace(recipe, extra_files={**recipe.extra_files, "node_modules.tar": archive})


def _with_file(recipe: Recipe, name: str, path: Path) -> Recipe:
    """One more file of the context, that counts for the digest."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return replace(recipe, extra_files={name: path}, salt=f"{recipe.salt} {digest}")


def pack_source(archive: Path) -> str:
    """Write what of this repository the Hub's image is made of; SHA-256 of names and contents."""
    digest = hashlib.sha256()
    with tarfile.open(archive, "w") as tar:
        for name in SOURCE:
            path = ROOT / name
            for file in context_files(path) if path.is_dir() else [path]:
                inner = file.relative_to(ROOT).as_posix()
                digest.update(f"{inner}\0".encode() + file.read_bytes() + b"\0")
                tar.add(file, inner, recursive=False, filter=node_packages.as_root)
    return digest.hexdigest()


@contextmanager
def _with_ways(recipe: Recipe) -> Iterator[Recipe]:
    """The recipe with the way of this machine: mirrors, proxies, a private CA."""
    settings = ways.pip_settings()
    transport = ways.transport(os.environ, settings)
    if os.environ.get("NPM_CONFIG_REGISTRY"):
        transport["NPM_CONFIG_REGISTRY"] = os.environ["NPM_CONFIG_REGISTRY"]
    files = dict(recipe.extra_files)
    bundle = ways.certificates(os.environ, settings)
    if bundle is not None:
        files["ca.crt"] = bundle
    yield replace(recipe, transport=transport, extra_files=files)
