"""A conda channel in a folder, of this machine's Python: where no channel can be reached."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

from deploy.quickstart.hostpython import HostPython, pack

Files = dict[str, tuple[bytes, int]]


def make(folder: Path, python: HostPython) -> Path:
    """A channel with Python, pip, and two versions of a package called ``toy``."""
    library: Files = {}
    links: dict[str, str] = {}
    packed = io.BytesIO()
    pack(python, packed)
    packed.seek(0)
    with tarfile.open(fileobj=packed) as archive:
        for member in archive:
            name = member.name.partition("/")[2]
            if member.issym():
                links[name] = member.linkname
            elif member.isfile():
                source = archive.extractfile(member)
                assert source is not None
                library[name] = (source.read(), member.mode)
    channel = Channel(folder)
    channel.add("linux-64", "python", python.version, library, links)
    channel.add("noarch", "pip", "24.0", pip_of(python), depends=["python"])
    for version in ("1.0", "2.0"):
        text = f"version = {version!r}\n".encode()
        files: Files = {"site-packages/toy.py": (text, 0o644)}
        channel.add("noarch", "toy", version, files, depends=["python"])
    channel.write()
    return folder


def add_light(folder: Path, *versions: str) -> Path:
    """A channel with a package ``python`` that leads to the image's own, and no library.

    For tests of what is around an environment. An ``ipykernel`` without content is in it too.
    """
    channel = Channel(folder)
    own = b"home = /opt/conda/bin\ninclude-system-site-packages = false\n"
    for version in versions:
        minor = ".".join(version.split(".")[:2])
        links = {"bin/python": "/opt/conda/bin/python"}
        if minor != "3.10":
            # it is the image's 3.10 in truth
            links["lib/python3.10"] = f"python{minor}"
        channel.add("linux-64", "python", version, {"pyvenv.cfg": (own, 0o644)}, links)
    for name in ("ipykernel", "toy"):
        files: Files = {f"site-packages/{name}.py": (b"version = '1.0'\n", 0o644)}
        channel.add("noarch", name, "1.0", files, depends=["python"])
    channel.write()
    return folder


def pip_of(python: HostPython) -> Files:
    """pip as it comes with Python."""
    major, minor = python.version.split(".")[:2]
    bundled = python.prefix / "lib" / f"python{major}.{minor}" / "ensurepip" / "_bundled"
    (wheel,) = bundled.glob("pip-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return {
            f"site-packages/{name}": (archive.read(name), 0o644)
            for name in archive.namelist()
            if not name.endswith("/")
        }


class Channel:
    """Packages below a folder, and the index that tells of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._index: dict[str, dict[str, Any]] = {"linux-64": {}, "noarch": {}}

    def add(
        self,
        subdir: str,
        name: str,
        version: str,
        files: Files,
        links: dict[str, str] | None = None,
        *,
        depends: list[str] | None = None,
    ) -> None:
        index: dict[str, Any] = {
            "name": name,
            "version": version,
            "build": "0",
            "build_number": 0,
            "subdir": subdir,
            "depends": depends or [],
            "timestamp": 1700000000000,
        }
        about: dict[str, bytes] = {}
        if subdir == "noarch":
            index["noarch"] = "python"
            link = {"noarch": {"type": "python"}, "package_metadata_version": 1}
            about["info/link.json"] = json.dumps(link).encode()
        about["info/index.json"] = json.dumps(index).encode()
        paths = [
            {
                "_path": path,
                "path_type": "hardlink",
                "sha256": hashlib.sha256(content).hexdigest(),
                "size_in_bytes": len(content),
            }
            for path, (content, _) in files.items()
        ]
        # of a link conda wants the sum of what it leads to
        paths += [
            {
                "_path": path,
                "path_type": "softlink",
                "sha256": hashlib.sha256(b"").hexdigest(),
                "size_in_bytes": 0,
            }
            for path in links or {}
        ]
        listed = {"paths": paths, "paths_version": 1}
        about["info/paths.json"] = json.dumps(listed).encode()
        about["info/files"] = "\n".join(one["_path"] for one in paths).encode()
        target = self._folder / subdir / f"{name}-{version}-0.tar.bz2"
        target.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(target, "w:bz2", compresslevel=1) as archive:
            for path, content in about.items():
                _put(archive, path, content, 0o644)
            for path, (content, mode) in files.items():
                _put(archive, path, content, mode)
            for path, goal in (links or {}).items():
                info = tarfile.TarInfo(path)
                info.type, info.linkname = tarfile.SYMTYPE, goal
                archive.addfile(info)
        raw = target.read_bytes()
        sums = {
            "sha256": hashlib.sha256(raw).hexdigest(),
            "md5": hashlib.md5(raw, usedforsecurity=False).hexdigest(),
        }
        self._index[subdir][target.name] = {**index, **sums, "size": len(raw)}

    def write(self) -> None:
        for subdir, packages in self._index.items():
            folder = self._folder / subdir
            folder.mkdir(parents=True, exist_ok=True)
            text = {"info": {"subdir": subdir}, "packages": packages, "packages.conda": {}}
            (folder / "repodata.json").write_text(json.dumps(text))


def _put(archive: tarfile.TarFile, path: str, content: bytes, mode: int) -> None:
    info = tarfile.TarInfo(path)
    info.size, info.mode = len(content), mode
    archive.addfile(info, io.BytesIO(content))
