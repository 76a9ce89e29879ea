"""What an ``environment.yml`` says, read strictly: a mistake is one line that names it. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from ..errors import ConfigError

_FIELDS = {"name", "channels", "dependencies", "platforms", "variables", "prefix"}
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}", re.ASCII)
#: a package, and what else a match specification has behind it
_SPEC = re.compile(r"(?:[\w./:-]+::)?([a-z0-9_][a-z0-9_.-]*)\s*(?:[=<>!~ \[].*)?", re.IGNORECASE)
#: the channels of Anaconda's own company
_PAID = ("defaults", "main", "r", "anaconda", "pkgs/main", "pkgs/r", "msys2")
#: where a channel without address is
_CONDA = "https://conda.anaconda.org"


@dataclass(frozen=True, kw_only=True, slots=True)
class Environment:
    """One environment of an image."""

    #: of the environment and its kernel, such as ``tensorflow-2.18``
    name: str
    #: as the file names them, ``nodefaults`` left out
    channels: tuple[str, ...]
    #: match specifications for conda
    conda: tuple[str, ...]
    #: requirements for pip
    pip: tuple[str, ...] = ()

    def digest(self) -> str:
        """SHA-256 (hex) of what it asks for: a lock belongs to exactly this."""
        parts = [self.name, self.channels, self.conda, self.pip]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def read(path: Path, *, python: str | None = None) -> Environment:
    """Read a file. ``python`` (``3.12``) replaces the version of Python that it asks for.

    Raises
    ------
    ConfigError
        With the file, and the line where YAML itself is broken.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not text in UTF-8") from None
    try:
        found = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{path}{where}: broken YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: broken YAML: {' '.join(str(error).split())}") from None
    try:
        return parse(found, python=python)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def parse(found: Any, *, python: str | None = None) -> Environment:
    """The environment of a file's content. ConfigError without the file's name."""
    if not isinstance(found, Mapping):
        raise ConfigError("it is no environment: it wants name, channels and dependencies")
    unknown = sorted(map(str, set(found) - _FIELDS))
    if unknown:
        raise ConfigError(f"unknown field {unknown[0]!r}; there are: {', '.join(sorted(_FIELDS))}")
    for field in ("variables", "prefix"):
        if found.get(field):
            raise ConfigError(f"{field} is not taken into an image; leave it out")
    name = found.get("name")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ConfigError(f"name is {name!r}; want small letters, digits, '.', '_' and '-'")
    conda, pip = _dependencies(found.get("dependencies"))
    if python is not None:
        conda = _with_python(conda, python)
    names = {package(one) for one in conda}
    for needed in ("python", "ipykernel"):
        if needed not in names and not (needed == "ipykernel" and _has(pip, needed)):
            raise ConfigError(f"dependencies have no {needed}: add '- {needed}', for the kernel")
    if pip and "pip" not in names:
        raise ConfigError("there is a pip section, and dependencies have no pip: add '- pip'")
    return Environment(name=name, channels=_channels(found.get("channels")), conda=conda, pip=pip)


def package(spec: str) -> str:
    """The name of the package that a match specification is about."""
    match = _SPEC.fullmatch(spec.strip())
    return match[1].lower() if match else ""


def _has(requirements: tuple[str, ...], name: str) -> bool:
    return any(re.match(rf"{name}\b", one.strip(), re.IGNORECASE) for one in requirements)


def _channels(found: Any) -> tuple[str, ...]:
    if not isinstance(found, list) or not all(isinstance(one, str) and one for one in found):
        raise ConfigError("channels want a list of names: [conda-forge, nodefaults]")
    for one in found:
        last = urlsplit(one).path.strip("/") or one
        if one in _PAID or ("anaconda.com" in one and last.startswith("pkgs/")):
            raise ConfigError(
                f"the channel {one} asks for terms, and is paid for in organisations of more than "
                "200 people; use conda-forge with nodefaults"
            )
    kept = tuple(one for one in found if one != "nodefaults")
    if not kept:
        raise ConfigError("channels has no channel but nodefaults; add conda-forge")
    return kept


def _dependencies(found: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if not isinstance(found, list) or not found:
        raise ConfigError("dependencies want a list: [python=3.12, ipykernel]")
    conda: list[str] = []
    pip: list[str] = []
    for one in found:
        if isinstance(one, str) and package(one):
            # conda reads toy=1.* as toy=1; not every solver takes the first
            conda.append(
                re.sub(r"(?<![=<>!~])=([\w.]+?)\.\*(?==|$)", r"=\1", " ".join(one.split()))
            )
        elif isinstance(one, Mapping) and list(one) == ["pip"] and isinstance(one["pip"], list):
            pip += [_requirement(line) for line in one["pip"]]
        else:
            raise ConfigError(f"dependencies have {one!r}; want 'package=version', or pip: [...]")
    return tuple(conda), tuple(pip)


def _requirement(line: Any) -> str:
    if not isinstance(line, str) or not line.strip():
        raise ConfigError(f"the pip section has {line!r}; want 'package==version'")
    if line.lstrip().startswith("-") or "file:" in line or line.startswith((".", "/")):
        raise ConfigError(
            f"the pip section has {line!r}: options and local files are not taken; give mirrors "
            "to the command"
        )
    return line.strip()


def _with_python(conda: tuple[str, ...], python: str) -> tuple[str, ...]:
    if not re.fullmatch(r"3\.\d{1,2}(\.\d{1,2})?", python):
        raise ConfigError(f"Python {python!r} is no version; want such as 3.12")
    return (f"python={python}", *(one for one in conda if package(one) != "python"))


def folder(path: Path, *, python: str | None = None) -> list[tuple[Path, Environment]]:
    """The environments of a profile: of its ``*.yml`` files, or of the one file. ConfigError."""
    files = [path] if path.is_file() else sorted([*path.glob("*.yml"), *path.glob("*.yaml")])
    if not files:
        raise ConfigError(f"{path}: there is no environment.yml")
    found = [(file, read(file, python=python)) for file in files]
    names = [one.name for _, one in found]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(
                f"{path}: two files are called {name!r}; each wants a name of its own"
            )
    return found


def channel_url(channel: str, given: Mapping[str, str]) -> str:
    """Where a channel is: as the command says, as the file says, or conda's own place."""
    where = given.get(channel, channel)
    return where if "://" in where or where.startswith("/") else f"{_CONDA}/{where}"


def lock_of(file: Path, python: str | None) -> Path:
    """The lock beside a file: ``environment.lock.json``, ``environment-py3.12.lock.json``."""
    variant = f"-py{python}" if python else ""
    return file.with_name(f"{file.stem}{variant}.lock.json")


def read_lock(path: Path, environment: Environment) -> bytes | None:
    """A lock's content; None = there is none. ConfigError for one of something else."""
    try:
        content = path.read_bytes()
        found = json.loads(content)
        wanted = found["environment"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(f"{path} is no lock; remove it, and build with --lock") from None
    if wanted != environment.digest():
        raise ConfigError(
            f"{path} is of another state of the file beside it; remove it, and build with --lock"
        )
    return content


def without_hash(lock: bytes) -> list[str]:
    """``name==version`` of the pip packages of a lock that have no hash: none came as a file."""
    return [line for line in json.loads(lock)["pip"] if "--hash=" not in line]
