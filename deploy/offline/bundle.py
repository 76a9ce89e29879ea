"""Makes the bundle: wheels, npm packages, images, the site's files, a manifest with checksums."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from deploy import node_packages
from deploy.offline import install
from deploy.quickstart.progress import step
from jupyterhub_gpuspawner.engine.connect import connect
from jupyterhub_gpuspawner.images import context_files

ROOT = Path(__file__).resolve().parents[2]
#: what of this repository a site needs beside the package
SITE = ("jupyterhub_config.py", ".env.example", "deploy", "README.md", "LICENSE")
#: seconds for pip, which may have to build a wheel, and between two parts of an image
PIP_LIMIT, ENGINE_LIMIT = 1200.0, 600.0
_DISTRIBUTION = "jupyterhub-gpuspawner"


class BundleError(Exception):
    """The bundle can't be made; the text is for people."""


def make(folder: Path, images: Sequence[str]) -> None:
    """Make the bundle in ``folder``, which must not be there; it appears whole or not at all.

    ``images`` are names of images on the engine.

    Raises
    ------
    BundleError
        Something is missing, or a program failed.
    """
    if folder.exists():
        raise BundleError(f"{folder} is there already; name a folder that is not")
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        facts = _facts()
        facts["images"] = _save_images(partial, images)
        facts["npm"] = _pack_npm(partial / "npm")
        _collect_wheels(partial / "wheels")
        _copy_site(partial / "site")
        shutil.copy2(Path(install.__file__), partial / "install")
        (partial / "install").chmod(0o755)
        _write_manifest(partial, facts)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    step(f"the bundle is in {folder}: {size / 1e6:.0f} MB. On the other machine: {folder}/install")


def _facts() -> dict[str, Any]:
    """What the other machine has to be like."""
    return {
        "format": install.FORMAT,
        "version": version(_DISTRIBUTION),
        "jupyterhub": version("jupyterhub"),
        "python": f"{sys.version_info[0]}.{sys.version_info[1]}",
        "platform": sysconfig.get_platform(),
    }


def _collect_wheels(folder: Path) -> None:
    """The package, JupyterHub and all that they need, as wheels for this Python."""
    step("wheels, by pip")
    folder.mkdir()
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"),
            *("--progress-bar", "off", "--wheel-dir", str(folder)),
            # pip builds in its folder: ours must not get a build/ of it
            _copy_of_source(folder.parent / ".source"),
            f"jupyterhub=={version('jupyterhub')}",
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PIP_LIMIT,
        check=False,
    )
    shutil.rmtree(folder.parent / ".source")
    if done.returncode != 0:
        last = " | ".join(done.stderr.strip().splitlines()[-3:])
        raise BundleError(f"pip could not collect the wheels: {last}")


def _copy_of_source(folder: Path) -> str:
    folder.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    _copy_tree(ROOT / "jupyterhub_gpuspawner", folder / "jupyterhub_gpuspawner")
    return f"{folder}[postgresql,idle]"


def _copy_site(folder: Path) -> None:
    folder.mkdir()
    for name in SITE:
        source = ROOT / name
        if source.is_dir():
            _copy_tree(source, folder / name)
        else:
            shutil.copy(source, folder / name)


def _copy_tree(source: Path, target: Path) -> None:
    """The files of a folder without caches, and without the settings of this machine's site."""
    for path in context_files(source):
        place = target / path.relative_to(source)
        if path.name != ".env":
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, place)


def _pack_npm(folder: Path) -> list[dict[str, str]]:
    """configurable-http-proxy and what it needs, each as npm itself packs it."""
    step("npm packages of the proxy")
    folder.mkdir()
    found = []
    with node_packages.installed() as proxy:
        if proxy is None:
            raise BundleError(
                f"there is neither {node_packages.PROXY} nor npm in PATH: install one of them"
            )
        for package in node_packages.closure(proxy):
            plain = package.name.lstrip("@").replace("/", "-")
            name = f"npm/{plain}-{package.version}.tgz"
            _pack_package(package.folder, folder.parent / name)
            found.append({"place": package.place, "file": name})
    return found


def _pack_package(source: Path, target: Path) -> None:
    """A tarball as npm makes it: all below ``package/``; the same bytes each time."""
    with (
        target.open("wb") as raw,
        gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        for path in sorted(source.rglob("*")):
            inner = path.relative_to(source)
            if path.is_file() and "node_modules" not in inner.parts:
                archive.add(path, f"package/{inner.as_posix()}", False, filter=_plain)


def _plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = info.mtime = 0
    info.uname = info.gname = ""
    info.mode = 0o755 if info.mode & 0o100 else 0o644
    return info


def _save_images(folder: Path, names: Sequence[str]) -> list[dict[str, str]]:
    """``docker save`` of each image."""
    found = []
    if names:
        (folder / "images").mkdir()
        client = connect(None, ENGINE_LIMIT)
        for name in names:
            step(f"image {name}")
            file = f"images/{name.replace('/', '-').replace(':', '-')}.tar"
            image = client.images.get(name)
            with (folder / file).open("wb") as out:
                for part in image.save(named=name):
                    out.write(part)
            found.append({"name": name, "id": str(image.id), "file": file})
        client.close()
    return found


def _write_manifest(folder: Path, facts: dict[str, Any]) -> None:
    """Names, sizes and SHA-256 of all files, and the checksum of that list itself."""
    step("checksums")
    facts["files"] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            digest = install.sha256(path)
            facts["files"][name] = {"size": path.stat().st_size, "sha256": digest}
    text = json.dumps(facts, indent=1, sort_keys=True) + "\n"
    (folder / install.MANIFEST).write_text(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    (folder / install.CHECKSUM).write_text(f"{digest}  {install.MANIFEST}\n")
    os.sync()
