"""How NVIDIA's container toolkit of a node gets exactly the leased GPUs into a service.

A service on a Swarm has no device requests: the toolkit, as the node's default runtime, reads
which GPUs a container gets, in one of two ways that name them exactly:

* from files in ``/var/run/nvidia-container-devices``, which a server has for each leased GPU
  (its option ``accept-nvidia-visible-devices-as-volume-mounts``);
* from the variables that Swarm itself sets for what it assigned (its option ``swarm-resource``).

Versions 1.18.0 to 1.19.0-rc.1 take no notice of the second (nvidia-container-toolkit#1599). The
agent of a node looks (:class:`Looker`), the scheduler judges (:func:`judge`).
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

from ..scheduler.models import Health, Text
from ..swarm_nodes import variable_of
from .base import Report

#: where it is on a machine, below the root
CONFIG, PROGRAM = "etc/nvidia-container-runtime/config.toml", "usr/bin/nvidia-ctk"
MOUNTS = "accept-nvidia-visible-devices-as-volume-mounts"
VARIABLES = "accept-nvidia-visible-devices-envvar-when-unprivileged"
RESOURCES = "swarm-resource"
#: the one line that makes any version name devices exactly
FIX = f"nvidia-ctk config --set {MOUNTS}=true --in-place"
#: seconds for it to say its version, and characters of its configuration
_LIMIT, _LONGEST = 20.0, 65536
#: the first version that ignores swarm-resource, and the first after them; 10**6: no candidate
_IGNORES, _HONOURS = (1, 18, 0, 0), (1, 19, 0, 2)

_VERSION = re.compile(r"v?(\d+)\.(\d+)\.(\d+)(?:[-~]rc\.?(\d+))?")
_LINE = re.compile(r"""^\s*(\[.*\]|"?([A-Za-z0-9_-]+)"?\s*=\s*(".*?"|'.*?'|[^#\s]+))""")


class Way(Text):
    """How a node's toolkit is told which GPUs a server gets."""

    MOUNTS = "volume-mounts"
    RESOURCE = "swarm-resource"
    NONE = "none"


@dataclass(frozen=True, kw_only=True, slots=True)
class Toolkit:
    """What a node's toolkit is, and how it is set up."""

    #: as it says; empty = not installed
    version: str = ""
    #: it takes devices from files that are mounted
    mounts: bool = False
    #: it takes devices from variables of containers without privileges
    variables: bool = True
    #: variables of Swarm's that it takes devices from
    resources: tuple[str, ...] = ()
    #: why it can't be looked at; empty = it can
    error: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What follows for a node's GPUs."""

    way: Way
    #: as the toolkit says it; empty = not known
    version: str = ""
    #: one sentence: what that keeps, and what not
    enforces: str = ""
    #: why none of its GPUs is given out; empty = they are
    trouble: str = ""


def settings_of(config: str) -> Toolkit:
    """The toolkit of a configuration's text, without its version; what is not said is default."""
    found: dict[str, str] = {}
    for line in config.splitlines():
        match = _LINE.match(line)
        if match and match[1].startswith("["):
            break  # ours stand before the first table
        if match:
            found[match[2]] = match[3].strip("\"'")
    names = (name.strip() for name in found.get(RESOURCES, "").split(","))
    return Toolkit(
        mounts=found.get(MOUNTS) == "true",
        variables=found.get(VARIABLES, "true") == "true",
        resources=tuple(name for name in names if name),
    )


def ignores_resources(version: str) -> bool:
    """Whether a version takes no notice of ``swarm-resource``. One that can't be read may."""
    match = _VERSION.match(version.strip())
    if match is None:
        return True
    candidate = 10**6 if match[4] is None else int(match[4])
    return _IGNORES <= (int(match[1]), int(match[2]), int(match[3]), candidate) < _HONOURS


def judge(toolkit: Toolkit, kinds: Collection[str]) -> Verdict:
    """What a toolkit makes of GPUs that are resources of these kinds. Pure."""
    trouble = _trouble(toolkit, kinds)
    if trouble:
        fix = f"{FIX}, then systemctl restart docker"
        return Verdict(way=Way.NONE, version=toolkit.version, trouble=f"{trouble}; {fix}")
    if toolkit.mounts:
        more = (
            "a container that is started past the Hub gets what its variable names"
            if toolkit.variables
            else "no container gets one by a variable"
        )
        enforces = f"a server gets the leased GPUs alone; {more}"
        return Verdict(way=Way.MOUNTS, version=toolkit.version, enforces=enforces)
    return Verdict(
        way=Way.RESOURCE,
        version=toolkit.version,
        enforces="a server gets what Swarm assigned; a container that is started past the Hub "
        "gets what its variable names",
    )


def _trouble(toolkit: Toolkit, kinds: Collection[str]) -> str:
    """Why it names no GPU exactly; empty = it does."""
    if toolkit.error:
        return f"the node's NVIDIA toolkit can't be looked at: {toolkit.error}"
    if not toolkit.version:
        return "NVIDIA's container toolkit is not installed on the node"
    if toolkit.mounts:
        return ""
    if ignores_resources(toolkit.version):
        return f"NVIDIA's toolkit {toolkit.version} takes no notice of {RESOURCES}"
    if not toolkit.resources:
        return f"NVIDIA's toolkit there is set up neither for {MOUNTS} nor {RESOURCES}"
    missing = sorted({variable_of(kind) for kind in kinds} - set(toolkit.resources))
    if missing:
        return f"{RESOURCES} there does not name {', '.join(missing)}"
    if not toolkit.variables:
        return f"{VARIABLES} is false there, so that {RESOURCES} does not count"
    return ""


def checked(report: Report, verdict: Verdict | None) -> Report:
    """A node's report, with none of its GPUs fine where its toolkit is not. Pure.

    ``None``: nobody has looked at the toolkit.
    """
    if verdict is None or not verdict.trouble:
        return report
    devices = []
    for device, status in report.devices:
        health = Health.SUSPECT if status.health is Health.OK else status.health
        note = "; ".join(filter(None, (status.note, verdict.trouble)))
        devices.append((device, replace(status, health=health, note=note)))
    return replace(report, devices=tuple(devices))


class Looker:
    """Looks at the toolkit of the machine whose root is ``root``, again when it has changed."""

    def __init__(self, root: Path, ask: Callable[[Path], str] | None = None) -> None:
        self._config, self._program = root / CONFIG, root / PROGRAM
        self._ask = ask or says_version
        self._seen: object = None
        self._found = Toolkit()

    def look(self) -> Toolkit:
        """What is there now."""
        stamp = (_stamp(self._config), _stamp(self._program))
        if stamp != self._seen:
            self._found, self._seen = self._look(), stamp
        return self._found

    def _look(self) -> Toolkit:
        try:
            text = self._config.read_text(encoding="utf-8")[:_LONGEST]
        except FileNotFoundError:
            text = ""
        except (OSError, UnicodeDecodeError) as error:
            return Toolkit(error=f"{CONFIG}: {getattr(error, 'strerror', None) or error}")
        found = settings_of(text)
        if not self._program.exists():
            return replace(found, error=f"no {PROGRAM}") if text else found
        try:
            return replace(found, version=self._ask(self._program))
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            return replace(found, error=" ".join(f"nvidia-ctk: {error}".split())[:200])


def says_version(program: Path) -> str:
    """What ``nvidia-ctk --version`` says. ValueError where it says none."""
    words = [str(program), "--version"]
    ran = subprocess.run(words, capture_output=True, text=True, timeout=_LIMIT, check=True)
    return version_in(ran.stdout)


def version_in(text: str) -> str:
    """The version in what the program prints. ValueError."""
    match = re.search(r"version v?(\d\S*)", text)
    if match is None:
        raise ValueError(f"it says {text[:80]!r}")
    return match[1]


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_ino, found.st_mtime_ns, found.st_size)
