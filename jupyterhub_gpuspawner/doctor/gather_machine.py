"""Facts of this machine: disks, clock, addresses, CDI files, NVIDIA's parts."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from ..discovery.facts import nvidia_hardware
from ..discovery.nvml import NvmlAbsent, NvmlSource
from ..discovery.toolkit import CONFIG, version_in
from ..engine.subnets import Route, parse_routes
from ..errors import GPUSpawnerError
from .facts import CDISpec, Disk
from .finding import Unknown

#: seconds for a program that says its version
_LIMIT = 20.0
_TOOLKIT_CONFIG = Path("/") / CONFIG
#: adjtimex(2): the state of a clock that nothing sets
_TIME_ERROR = 5


def said(words: list[str]) -> str | Unknown | None:
    """What a program prints; None = it is not installed."""
    if shutil.which(words[0]) is None:
        return None
    try:
        ran = subprocess.run(words, capture_output=True, text=True, timeout=_LIMIT, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return Unknown(why=f"{' '.join(words)}: {error}")
    return ran.stdout.strip()


def proxy_version() -> str | Unknown | None:
    """Of configurable-http-proxy."""
    return said(["configurable-http-proxy", "--version"])


def toolkit() -> str | Unknown | None:
    """Version of NVIDIA's container toolkit on this machine."""
    text = said(["nvidia-ctk", "--version"])
    if not isinstance(text, str):
        return text
    try:
        return version_in(text)
    except ValueError as error:
        return Unknown(why=f"nvidia-ctk: {error}")


def toolkit_config() -> str | Unknown:
    """Text of the toolkit's configuration; empty = there is none."""
    try:
        return _TOOLKIT_CONFIG.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        return Unknown(why=f"{_TOOLKIT_CONFIG}: {error}")


def nvml() -> Mapping[str, Any] | Unknown | None:
    """What NVIDIA's driver says, asked in another process; None = there is none."""
    source = NvmlSource("here", lambda: ())
    try:
        return source.document()
    except NvmlAbsent as error:
        if not nvidia_hardware():
            return None
        return {"error": {"call": "NVML", "text": str(error)}, "gpus": []}
    except GPUSpawnerError as error:
        return Unknown(why=str(error))


def addresses() -> frozenset[str] | Unknown:
    """The addresses of this machine's interfaces."""
    text = said(["ip", "-json", "address"])
    if not isinstance(text, str):
        return text or Unknown(why="the program ip is not installed")
    try:
        found = json.loads(text)
    except ValueError:
        return Unknown(why="ip -json address gives no JSON")
    return frozenset(str(a.get("local")) for link in found for a in link.get("addr_info", ()))


def routes() -> tuple[Route, ...] | Unknown:
    """The machine's routes, without those of Docker's own bridges."""
    try:
        table = Path("/proc/net/route").read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        return Unknown(why=f"/proc/net/route: {error}")
    return tuple(
        one
        for one in parse_routes(table)
        if not one.interface.startswith(("docker", "br-", "gpus"))
    )


def mtus(root: Path = Path("/sys/class/net")) -> dict[str, int] | Unknown:
    """Interface -> the largest packet that it takes."""
    try:
        return {one.name: int((one / "mtu").read_text()) for one in root.iterdir()}
    except (OSError, ValueError) as error:
        return Unknown(why=f"{root}: {error}")


def clock_set() -> bool | Unknown:
    """Whether the kernel knows its clock to be set from elsewhere (adjtimex)."""
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(256))
    except (OSError, AttributeError) as error:
        return Unknown(why=f"adjtimex: {error}")
    if state < 0:
        return Unknown(why=f"adjtimex: {os.strerror(ctypes.get_errno())}")
    return bool(state != _TIME_ERROR)


def systemd() -> bool:
    """Whether systemd runs the machine."""
    return Path("/run/systemd/system").is_dir()


def disks(paths: Iterable[str]) -> dict[str, Disk]:
    """The file systems below paths that are there."""
    kinds = _mounts()
    found = {}
    for path in paths:
        try:
            about = os.statvfs(path)
        except OSError:
            continue
        found[path] = Disk(
            total=about.f_blocks * about.f_frsize,
            free=about.f_bavail * about.f_frsize,
            inodes=about.f_files,
            free_inodes=about.f_favail,
            kind=_kind(os.path.realpath(path), kinds),
        )
    return found


def _mounts() -> dict[str, str]:
    try:
        lines = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    return {words[1]: words[2] for words in (line.split() for line in lines) if len(words) > 2}


def _kind(path: str, kinds: Mapping[str, str]) -> str:
    for folder in (path, *map(str, Path(path).parents)):
        if folder in kinds:
            return kinds[folder]
    return ""


def modes(paths: Iterable[Path]) -> dict[str, int | None]:
    """Path -> mode; None = it is not there."""
    found: dict[str, int | None] = {}
    for path in paths:
        try:
            found[str(path)] = path.stat().st_mode
        except OSError:
            found[str(path)] = None
    return found


# -- CDI ---------------------------------------------------------------------------------------


def cdi(folders: Iterable[str]) -> tuple[dict[str, bool], dict[str, CDISpec] | Unknown]:
    """Which folders are there, and what the files in them are."""
    there = {folder: os.path.isdir(folder) for folder in folders}
    specs: dict[str, CDISpec] = {}
    for folder in (name for name, is_there in there.items() if is_there):
        try:
            paths = sorted(p for p in Path(folder).iterdir() if p.suffix in (".json", ".yaml"))
        except OSError as error:
            return there, Unknown(why=f"{folder}: {error.strerror}")
        for path in paths:
            specs[str(path)] = read_spec(path)
    return there, specs


def read_spec(path: Path, exists: Callable[[str], bool] = os.path.exists) -> CDISpec:
    """What a CDI file defines, and which paths of the machine it wants."""
    try:
        text = path.read_text(encoding="utf-8")
        spec = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except OSError as error:
        return CDISpec(error=error.strerror or str(error))
    except (ValueError, yaml.YAMLError) as error:
        return CDISpec(error=" ".join(str(error).split())[:200])
    devices = spec.get("devices") if isinstance(spec, dict) else None
    if not isinstance(devices, list) or not all(isinstance(d, dict) for d in devices):
        return CDISpec(error="it has no list of devices")
    edits = [spec.get("containerEdits"), *(d.get("containerEdits") for d in devices)]
    wanted = [path for edit in edits if isinstance(edit, dict) for path in _host_paths(edit)]
    return CDISpec(
        names=tuple(f"{spec.get('kind')}={d['name']}" for d in devices if "name" in d),
        missing=tuple(dict.fromkeys(p for p in wanted if p and not exists(p))),
    )


def _host_paths(edit: Mapping[str, Any]) -> list[str]:
    nodes = edit.get("deviceNodes") or ()
    mounts = edit.get("mounts") or ()
    hooks = edit.get("hooks") or ()
    return [
        *(str(one.get("hostPath") or one.get("path") or "") for one in nodes),
        *(str(one.get("hostPath") or "") for one in mounts),
        *(str(one.get("path") or "") for one in hooks),
    ]


def listening(address: str, port: int) -> socket.socket | Unknown | None:
    """A socket that listens there for the time of a test; None = somebody does already."""
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, port))
        made.listen()
    except OSError as error:
        made.close()
        if error.errno == 98:  # EADDRINUSE
            return None
        return Unknown(why=f"nothing can listen at {address}:{port}: {error.strerror}")
    return made
