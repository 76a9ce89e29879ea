"""A Python 3.10 of this machine, packed so that an image can have it at ``/opt/conda``.

For machines that reach no Miniconda installer. Only prefixes that hold a whole Python qualify
(pyenv, ``make install``, another conda): the distribution's own is spread over ``/usr`` and its
image gets Debian's package instead.
"""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from jupyterhub_gpuspawner.images import as_root

#: The minor version the image is made for.
WANTED = (3, 10)
#: Not needed to run: tests, headers of the build, graphical parts, other people's packages.
_LEFT_OUT_FOLDERS = {
    "__pycache__",
    "test",
    "tests",
    "idlelib",
    "tkinter",
    "turtledemo",
    "pkgs",
    "envs",
}
_SYSTEM_PREFIXES = {"/usr", "/"}
_PROBE = """
import json, os, sys, sysconfig
import bz2, ctypes, curses, ensurepip, lzma, readline, sqlite3, ssl, venv
print(json.dumps({"version": list(sys.version_info[:3]), "base": sys.base_prefix,
                  "platform": sysconfig.get_platform()}))
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class HostPython:
    """An interpreter with its library, below one prefix."""

    #: Such as ``/home/x/.pyenv/versions/3.10.13``.
    prefix: Path
    #: Such as ``3.10.13``.
    version: str


def candidates(environ: dict[str, str], home: Path) -> list[Path]:
    """Interpreters worth asking, best first; they may not exist."""
    major, minor = WANTED
    roots = [Path(environ["PYENV_ROOT"])] if environ.get("PYENV_ROOT") else []
    roots += [home / ".pyenv", Path("/opt/pyenv"), Path("/usr/local/pyenv")]
    found: list[Path] = []
    for root in roots:
        # newest patch release first
        versions = sorted(root.glob(f"versions/{major}.{minor}.*"), key=_patch, reverse=True)
        found += [version / "bin" / f"python{major}.{minor}" for version in versions]
    found += [
        Path(folder) / f"python{major}.{minor}" for folder in ("/usr/local/bin", "/opt/conda/bin")
    ]
    return list(dict.fromkeys(found))


def _patch(path: Path) -> int:
    tail = path.name.rpartition(".")[2]
    return int(tail) if tail.isdigit() else -1


def find(environ: dict[str, str] | None = None, home: Path | None = None) -> HostPython | None:
    """The first candidate that is complete; None where there is none."""
    environ = dict(os.environ) if environ is None else environ
    for program in candidates(environ, home or Path.home()):
        found = _ask(program)
        if found is not None:
            return found
    return None


def _ask(program: Path) -> HostPython | None:
    """Does it run, is it 3.10, has it every module that a server needs, is its prefix its own?"""
    if not os.access(program, os.X_OK):
        return None
    try:
        # -I: neither this environment's nor the user's packages count.
        answer = subprocess.run(
            [program, "-I", "-c", _PROBE], capture_output=True, text=True, timeout=30, check=True
        )
        facts = json.loads(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    prefix = Path(facts["base"])
    if tuple(facts["version"][:2]) != WANTED or str(prefix) in _SYSTEM_PREFIXES:
        return None
    return HostPython(prefix=prefix, version=".".join(map(str, facts["version"])))


def keep(name: str) -> bool:
    """Does a path below the prefix go into the image? ``name`` is relative, with ``/``."""
    parts = name.split("/")
    if parts[0] not in {"bin", "lib"} or _LEFT_OUT_FOLDERS & set(parts):
        return False
    if "site-packages" in parts[:-1] or name.endswith((".a", ".pyc")):
        return False
    if any(part.startswith("config-") for part in parts):
        return False
    # of the programs only the interpreter: pip and the rest name the old prefix in line 1
    return parts[0] != "bin" or len(parts) == 1 or _is_interpreter(parts[1])


def _is_interpreter(name: str) -> bool:
    major, minor = WANTED
    return name in {"python", f"python{major}", f"python{major}.{minor}"}


def pack(python: HostPython, out: IO[bytes]) -> None:
    """Write ``conda/…`` with what ``keep`` lets through, owned by root."""
    with tarfile.open(fileobj=out, mode="w") as archive:
        for path in _walk(python.prefix):
            name = path.relative_to(python.prefix).as_posix()
            if keep(name):
                archive.add(path, f"conda/{name}", recursive=False, filter=as_root)


def _walk(prefix: Path) -> Iterable[Path]:
    for folder, names, files in os.walk(prefix):
        names.sort()
        for name in sorted(names + files):
            yield Path(folder) / name
