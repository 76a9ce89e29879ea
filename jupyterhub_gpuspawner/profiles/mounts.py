"""What a profile mounts into its servers: ``volumes`` and ``mounts``, as DockerSpawner has them.

Both are the admin's words alone: no text of a user's may name what is mounted, or where.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator

from ..units import parse_memory

#: what Docker takes behind the last colon of a bind
MODES = ("rw", "ro", "z", "Z")
#: settings that hold mounts
WORDS = ("volumes", "mounts")

_TYPES = ("volume", "bind", "tmpfs")
_ALLOWED = {
    "volume": {"read_only", "driver_config", "no_copy", "labels"},
    "bind": {"read_only", "propagation"},
    "tmpfs": {"tmpfs_size", "tmpfs_mode"},
}


def wrong_volume(source: object, target: object) -> str:
    """What is wrong with one entry of ``volumes``; empty = nothing."""
    mount = {"bind": target} if isinstance(target, str) else target
    if not isinstance(source, str) or not source:
        return "want the name of a volume or an absolute path"
    if not isinstance(mount, dict) or not {"bind"} <= set(mount) <= {"bind", "mode"}:
        return f'want a path in the container, or {{"bind": PATH, "mode": "ro"}}; not {target!r}'
    if not isinstance(mount["bind"], str) or not mount["bind"].startswith("/"):
        return f"want an absolute path in the container, not {mount['bind']!r}"
    if mount.get("mode", "rw") not in MODES:
        return f"mode is {mount['mode']!r}; allowed: {', '.join(MODES)}"
    return ""


def _volumes(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError('must be a mapping, such as {"datasets": {"bind": "/data", "mode": "ro"}}')
    for source, target in value.items():
        wrong = wrong_volume(source, target)
        if wrong:
            raise ValueError(f"{source!r}: {wrong}")
    return dict(value)


def _mounts(value: object) -> dict[str, Any]:
    """By their path in the container, so that a choice's replaces the profile's there."""
    found = list(value.values()) if isinstance(value, dict) else value
    if not isinstance(found, (list, tuple)):
        raise ValueError('must be a list, such as [{"type": "tmpfs", "target": "/scratch"}]')
    mounts = [_mount(one) for one in found]
    if len({one["target"] for one in mounts}) != len(mounts):
        raise ValueError("has two mounts at one path")
    return {one["target"]: one for one in mounts}


def _mount(value: object) -> dict[str, Any]:
    if not isinstance(value, dict) or not isinstance(value.get("target"), str):
        raise ValueError('must hold mappings with "type", "source" and "target"')
    mount, target = dict(value), value["target"]
    kind = mount.setdefault("type", "volume")
    if kind not in _TYPES:
        raise ValueError(f"{target}: type is {kind!r}; allowed: {', '.join(_TYPES)}")
    unknown = sorted(set(mount) - {"type", "source", "target"} - _ALLOWED[kind])
    if unknown:
        allowed = ", ".join(sorted(_ALLOWED[kind]))
        raise ValueError(f"{target}: a {kind} has no {unknown[0]!r}; allowed: {allowed}")
    if not target.startswith("/"):
        raise ValueError(f"{target}: want an absolute path in the container")
    source = mount.setdefault("source", "")
    if not isinstance(source, str) or (kind == "tmpfs") is bool(source):
        raise ValueError(f"{target}: a tmpfs has no source, and any other mount has one")
    if kind == "bind" and not source.startswith("/"):
        raise ValueError(f"{target}: {source!r} is no absolute path")
    if "tmpfs_size" in mount:
        mount["tmpfs_size"] = parse_memory(mount["tmpfs_size"])
    if "driver_config" in mount:
        _check_driver(target, mount["driver_config"])
    return mount


def _check_driver(target: str, value: object) -> None:
    if not isinstance(value, Mapping) or not {"Name"} <= set(value) <= {"Name", "Options"}:
        raise ValueError(f'{target}: driver_config: want {{"Name": …, "Options": {{…}}}}')
    options = value.get("Options", {})
    if not isinstance(options, Mapping) or not all(
        isinstance(text, str) for pair in options.items() for text in pair
    ):
        raise ValueError(f"{target}: driver_config: Options are a mapping of texts")


Volumes = Annotated[dict[str, Any], BeforeValidator(_volumes)]
Mounts = Annotated[dict[str, Any], BeforeValidator(_mounts)]
