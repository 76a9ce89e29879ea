"""configurable-http-proxy and the packages it needs, as npm has installed them on this machine."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from jupyterhub_gpuspawner import images

PROXY = "configurable-http-proxy"
#: the release line that the Hub is tested with
WANTED = "5"
#: seconds for npm
LIMIT = 300.0


class NodeError(Exception):
    """npm did not do as asked, or a package is missing; the text is for people."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Package:
    """One package, as installed."""

    name: str
    version: str
    #: its folder on this machine
    folder: Path
    #: its place below a ``node_modules`` of its own: ``a``, or ``a/node_modules/b``
    place: str


def find(path: str | None = None) -> Path | None:
    """Folder of the proxy whose program is in ``path`` (default: PATH); None: not there."""
    program = shutil.which(PROXY, path=path)
    if program is None:
        return None
    for folder in Path(program).resolve().parents:
        if folder.name == PROXY and (folder / "package.json").is_file():
            return folder
    return None


@contextmanager
def installed(path: str | None = None) -> Iterator[Path | None]:
    """The proxy's folder: the one in PATH, else a new one by npm; None without both."""
    found = find(path)
    npm = shutil.which("npm", path=path)
    if found is not None or npm is None:
        yield found
        return
    with tempfile.TemporaryDirectory() as folder:
        options = ("--no-save", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error")
        done = subprocess.run(
            [npm, "install", "--prefix", folder, *options, f"{PROXY}@{WANTED}"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        if done.returncode != 0:
            raise NodeError(f"npm could not install {PROXY}: {done.stderr.strip()[-500:]}")
        yield Path(folder) / "node_modules" / PROXY


def closure(proxy: Path) -> list[Package]:
    """The proxy and all that it needs, and nothing else that lies beside it. ``NodeError``."""
    top = proxy.parent
    found: dict[Path, Package] = {}
    waiting = [proxy]
    while waiting:
        folder = waiting.pop()
        if folder in found:
            continue
        facts = _facts(folder)
        found[folder] = Package(
            name=str(facts["name"]),
            version=str(facts["version"]),
            folder=folder,
            place=folder.relative_to(top).as_posix(),
        )
        wanted: Mapping[str, str] = facts.get("dependencies") or {}
        waiting += [_resolve(name, folder, top) for name in wanted]
    return sorted(found.values(), key=lambda package: package.place)


def _facts(folder: Path) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads((folder / "package.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise NodeError(f"{folder}: no package is there: {error}") from None
    return facts


def _resolve(name: str, folder: Path, top: Path) -> Path:
    """Where node finds ``name`` for code in ``folder``: the nearest ``node_modules`` upwards."""
    for place in (folder, *folder.parents):
        candidate = place / "node_modules" / name
        if (candidate / "package.json").is_file():
            return candidate
        if place == top.parent:
            break
    raise NodeError(f"{folder.name}: the package {name} is not installed")


def pack(packages: list[Package], out: IO[bytes]) -> None:
    """Write ``node_modules/…`` with these packages and the proxy's command, owned by root."""
    with tarfile.open(fileobj=out, mode="w") as archive:
        for package in packages:
            for path in sorted(package.folder.rglob("*")):
                inner = path.relative_to(package.folder)
                if path.is_file() and "node_modules" not in inner.parts:
                    name = f"node_modules/{package.place}/{inner.as_posix()}"
                    archive.add(path, name, recursive=False, filter=as_root)
        link = tarfile.TarInfo(f"node_modules/.bin/{PROXY}")
        link.type, link.linkname = tarfile.SYMTYPE, f"../{PROXY}/bin/{PROXY}"
        archive.addfile(link)


def as_root(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """A member of an archive without what differs from machine to machine: also the time."""
    # the engine's cache of build steps goes by content
    info.mtime = 0
    return images.as_root(info)
