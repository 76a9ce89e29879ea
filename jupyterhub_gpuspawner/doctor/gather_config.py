"""Facts of the Hub's configuration: it is run as the Hub runs it, and nothing is written."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from contextlib import redirect_stdout
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from traitlets.config import Config, LazyConfigValue, PyFileConfigLoader

from ..config_check import spawner_class
from ..errors import ConfigError
from ..hub import only_looking
from ..kinds import one_line
from ..profiles import parse_profiles
from ..service.options import GPUScheduler
from .facts import Certificate
from .finding import Unknown

#: where the Hub looks when nothing is said
DEFAULT = "jupyterhub_config.py"


def load(path: Path) -> Config:
    """Run a configuration. Raises ``ConfigError`` with what it says."""
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such file")
    try:
        with only_looking(), redirect_stdout(io.StringIO()):
            return PyFileConfigLoader(path.name, path=str(path.absolute().parent)).load_config()
    except SystemExit as error:
        raise ConfigError(one_line(error)) from None
    except Exception as error:  # noqa: BLE001 - it is somebody's program
        raise ConfigError(f"{path}: {type(error).__name__}: {one_line(error)}") from None


def plain(config: Config) -> dict[str, dict[str, Any]]:
    """Section -> option -> value."""
    return {
        section: {
            name: value.get_value([]) if isinstance(value, LazyConfigValue) else value
            for name, value in values.items()
        }
        for section, values in config.items()
    }


def facts(config: Config) -> dict[str, Any]:
    """The facts that a configuration gives."""
    found: dict[str, Any] = {"config": plain(config)}
    try:
        found["spawner"] = spawner_class(config)(config=config)
    except Exception as error:  # noqa: BLE001 - any class of the site's
        found["spawner"] = Unknown(why=f"the spawner can't be made: {one_line(error)}")
    try:
        values = dict(found["config"].get("GPUScheduler", {}))
        found["options"] = GPUScheduler(config=Config({"GPUScheduler": values}))
    except Exception as error:  # noqa: BLE001 - a wrong value of any kind
        found["options"] = Unknown(why=f"c.GPUScheduler: {one_line(error)}")
    return found


def images(spawner: Any) -> list[str]:
    """The images that users may get: the spawner's, its profiles' and those on its list."""
    found = [str(spawner.image)]
    allowed = getattr(spawner, "allowed_images", None)
    if isinstance(allowed, Mapping):
        found += [str(one) for one in allowed.values()]
    elif isinstance(allowed, list | tuple):
        found += [str(one) for one in allowed]
    profiles = spawner.profile_list
    if profiles and not callable(profiles):
        for profile in parse_profiles(profiles).items:
            found += _images_in(profile.model_dump() if hasattr(profile, "model_dump") else {})
    return list(dict.fromkeys(name for name in found if name))


def _images_in(value: Any) -> list[str]:
    """Every ``image`` below a profile: its own, and those of its options' choices."""
    if isinstance(value, Mapping):
        own = value.get("image")
        rest = [name for one in value.values() for name in _images_in(one)]
        return [own, *rest] if isinstance(own, str) else rest
    if isinstance(value, list | tuple):
        return [name for one in value for name in _images_in(one)]
    return []


def bind_sources(spawner: Any) -> dict[str, bool]:
    """Folders of the machine that servers mount, without those with a part for each user."""
    mounts = [spawner.volumes, spawner.read_only_volumes, *spawner.group_volumes.values()]
    paths = [str(path) for one in mounts for path in one]
    fixed = [path for path in paths if path.startswith("/") and "{" not in path]
    return {path: Path(path).exists() for path in dict.fromkeys(fixed)}


def docker_proxies(home: Path) -> dict[str, Any] | Unknown:
    """What ``~/.docker/config.json`` gives to every container."""
    path = home / ".docker" / "config.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        return Unknown(why=f"{path}: {error}")
    proxies = values.get("proxies") if isinstance(values, dict) else None
    default = proxies.get("default") if isinstance(proxies, dict) else None
    return default if isinstance(default, dict) else {}


def certificate(cert: str, key: str, now: datetime | None = None) -> Certificate | Unknown | None:
    """The certificate that the Hub's proxy shows; None = it shows none."""
    if not cert:
        return None
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    try:
        found = x509.load_pem_x509_certificate(Path(cert).read_bytes())
        private = serialization.load_pem_private_key(Path(key).read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        return Unknown(why=f"{cert}, {key}: {one_line(error)}")
    left = found.not_valid_after_utc - (now or datetime.now(timezone.utc))

    def raw(public: Any) -> bytes:
        kind = serialization.PublicFormat.SubjectPublicKeyInfo
        return bytes(public.public_bytes(serialization.Encoding.DER, kind))

    return Certificate(
        days=left.total_seconds() / 86400,
        fits_key=raw(found.public_key()) == raw(private.public_key()),
    )
