"""Container Device Interface: names of devices, and the spec files that define them.

A fully qualified name is ``<kind>=<device>``, here ``nvidia.com/gpu=<UUID>``
(CDI specification 0.5.0, cncf-tags/container-device-interface, SPEC.md).
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import DiscoveryError


def names_in(directories: Iterable[Path | str], without: Path | None = None) -> frozenset[str]:
    """Fully qualified names that the spec files in ``directories`` define, ``without`` one.

    For engines 25 to 28.1, which use CDI but don't list what they found. The directories are
    those of the engine's ``/info``; the answer is right only where the engine sees the same
    file system. A directory that does not exist holds nothing; a file that can't be parsed
    defines nothing, as for the engine.

    Raises
    ------
    DiscoveryError
        A directory or file exists but may not be read.
    """
    names: set[str] = set()
    for directory in directories:
        for path in _spec_files(Path(directory)):
            if path != without:
                names.update(_names(path))
    return frozenset(names)


def write_spec(path: Path, spec: Mapping[str, Any]) -> bool:
    """Write ``spec`` to ``path`` at once or not at all. True where the content changed.

    Engines watch the directory, so an unchanged file is left alone. The directory is made.

    Raises
    ------
    DiscoveryError
        The directory or file can't be written.
    """
    content = json.dumps(spec, indent=2, sort_keys=True) + "\n"
    temporary: str | None = None
    try:
        if path.is_file() and path.read_text() == content:
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        # the suffix keeps engines from reading the half-written file
        handle, temporary = tempfile.mkstemp(prefix=".", suffix=".tmp", dir=path.parent)
        with os.fdopen(handle, "w") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
        temporary = None
    except OSError as error:
        raise DiscoveryError(
            f"CDI spec {path} can't be written: {error}. Write it as root, or set the engine's "
            "'cdi-spec-dirs' to a directory that this user may write"
        ) from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
    return True


def _spec_files(directory: Path) -> list[Path]:
    try:
        entries = sorted(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise DiscoveryError(f"CDI directory {directory} can't be read: {error}") from error
    return [path for path in entries if path.suffix in (".json", ".yaml")]


def _names(path: Path) -> list[str]:
    try:
        text = path.read_text()
    except FileNotFoundError:
        return []  # replaced between the listing and now
    except OSError as error:
        raise DiscoveryError(f"CDI spec {path} can't be read: {error}") from error
    except UnicodeDecodeError:
        return []
    import yaml  # not where an agent runs: it has the standard library only

    try:
        spec = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError):
        return []
    if not isinstance(spec, dict) or not isinstance(spec.get("devices"), list):
        return []
    kind = spec.get("kind")
    return [
        f"{kind}={device['name']}"
        for device in spec["devices"]
        if isinstance(device, dict) and isinstance(device.get("name"), str)
    ]
