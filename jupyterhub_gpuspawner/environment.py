"""Environment variables of a config file, read with one clear line where they are wrong.

Each function ends the program (``SystemExit``) with one line that names the variable, what it
holds and what is wanted. Secrets are named, never shown.
"""

from __future__ import annotations

import difflib
import ipaddress
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from . import units

#: variables of the shipped ``jupyterhub_config.py``
SITE = (
    *("GPUS_STATE_DIR", "GPUS_DB_URL", "GPUS_DB_URL_FILE", "GPUS_LEDGER_URL"),
    *("GPUS_LEDGER_URL_FILE", "GPUS_BIND", "GPUS_PORT", "GPUS_TLS_CERT", "GPUS_TLS_KEY"),
    *("GPUS_PUBLIC_URL", "GPUS_SUBDOMAINS", "GPUS_PROXY_API_PORT", "GPUS_HUB_PORT"),
    *("GPUS_SERVICE_PORT", "GPUS_BRIDGE_IP", "GPUS_LOGIN", "GPUS_PASSWORD", "GPUS_PASSWORD_FILE"),
    *("GPUS_ADMIN_PASSWORD", "GPUS_ADMIN_PASSWORD_FILE", "GPUS_ADMINS", "GPUS_ALLOWED_USERS"),
    *("GPUS_ALLOWED_GROUPS", "GPUS_ALLOW_ALL", "GPUS_ADMIN_GROUPS", "GPUS_GROUP_MAP"),
    *("GPUS_LOGIN_DAYS", "GPUS_LOGIN_NAME", "GPUS_CLIENT_ID", "GPUS_CLIENT_SECRET"),
    *("GPUS_CLIENT_SECRET_FILE", "GPUS_PROVIDER_URL", "GPUS_OIDC_AUTHORIZE_URL"),
    *("GPUS_OIDC_TOKEN_URL", "GPUS_OIDC_USERDATA_URL", "GPUS_OIDC_SCOPES"),
    *("GPUS_OIDC_USERNAME_CLAIM", "GPUS_OIDC_GROUPS_CLAIM", "GPUS_GOOGLE_DOMAIN"),
    *("GPUS_GOOGLE_KEY_FILE", "GPUS_GOOGLE_ADMIN", "GPUS_IMAGE", "GPUS_PROFILES_FILE"),
    *("GPUS_PROFILE_GROUPS", "GPUS_NAMED_SERVERS", "GPUS_USER_LIMIT", "GPUS_USER_LIMITS"),
    *("GPUS_GROUP_LIMITS", "GPUS_SHARES", "GPUS_IDLE_GPU", "GPUS_IDLE_CPU", "GPUS_IDLE_GROUPS"),
    *("GPUS_IDLE_WARNING", "GPUS_IDLE_MIN_RUNTIME", "GPUS_IDLE_EXTENSION", "GPUS_RECLAIM_WARNING"),
    *("GPUS_MEM_LIMIT", "GPUS_CPU_LIMIT", "GPUS_SCHEDULER_OPTIONS", "GPUS_SPAWNER_OPTIONS"),
    *("GPUS_VOLUMES", "GPUS_READ_ONLY_VOLUMES", "GPUS_GROUP_VOLUMES"),
    *("GPUS_HOME_DRIVER", "GPUS_HOME_OPTIONS", "GPUS_DELETE_HOMES", "GPUS_HOME_WARNING"),
    *("GPUS_SPAWNER", "GPUS_NETWORK", "GPUS_LOCAL_VOLUMES", "GPUS_VOLUME_NODES"),
    "GPUS_AGENT_KEY_FILE",
    *("GPUS_DISCOVERY", "GPUS_SIMULATE", "GPUS_NODE_NAME", "GPUS_PROXY_URL"),
    *("GPUS_SCHEDULER_URL", "GPUS_NETWORK_MEMBERS", "GPUS_HUB_TOKEN"),
    *("GPUS_METRICS_TOKEN", "GPUS_METRICS_TOKEN_FILE", "GPUS_METRICS_SHOW_USERS"),
)
#: variables of other programs here that look like one of them
_OTHERS = (
    *("GPUS_BASE_IMAGE", "GPUS_LONG", "GPUS_HUB_PID", "GPUS_STARTED"),
    *("GPUS_SERVICE_TOKEN", "GPUS_HUB_API_URL"),
    *("GPUS_NODE_ID", "GPUS_AGENT_INTERVAL", "GPUS_HOST_PROC", "GPUS_HOST_ROOT"),
    "GPUS_NETWORK_ID",
)
#: how alike two names are where one of them is taken for a slip
_ALIKE = 0.84

_YES_NO = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}


def check_names() -> None:
    """Refuse a misspelt variable: a limit that is not there must not be silence."""
    for name in sorted(os.environ):
        if not name.startswith("GPUS_") or name in SITE or name in _OTHERS:
            continue
        close = difflib.get_close_matches(name, SITE, 1, _ALIKE)
        if close:
            raise SystemExit(f"{name}: there is no such variable; did you mean {close[0]}?")


def text(name: str, default: str = "") -> str:
    """The text in a variable, without blanks around it; empty or not set: the default."""
    value = os.environ.get(name, "").strip()
    if not value.isprintable():
        raise SystemExit(f"{name} is {value[:60]!r}; want one line of text")
    return value or default


def number(name: str, default: int, least: int = 0, most: int = 10**6) -> int:
    """The whole number in a variable; empty or not set: the default."""
    value = os.environ.get(name, "").strip()
    if not value:
        return default
    if value.isascii() and value.isdecimal() and len(value) < 10 and least <= int(value) <= most:
        return int(value)
    raise SystemExit(f"{name} is {value!r}; want a whole number from {least} to {most}")


def amount(name: str, default: float) -> float:
    """The number above 0 in a variable; empty or not set: the default."""
    value = os.environ.get(name, "").strip()
    try:
        found = float(value or default)
    except ValueError:
        found = 0.0
    if not 0 < found < 10**6:  # also False for nan
        raise SystemExit(f"{name} is {value!r}; want a number above 0, such as {default:g}")
    return found


def duration(name: str) -> str | None:
    """A length of time, as the admin has written it; None where the variable is not set."""
    return _measured(name, units.parse_duration)


def memory(name: str) -> str | None:
    """An amount of memory, as the admin has written it; None where the variable is not set."""
    return _measured(name, units.parse_memory)


def _measured(name: str, parse: Callable[[object], float]) -> str | None:
    value = text(name)
    if not value:
        return None
    try:
        parse(value)
    except ValueError as error:
        raise SystemExit(f"{name}: {error}") from None
    return value


def port(name: str, default: int) -> int:
    """The TCP port in a variable."""
    return number(name, default, 1, 65535)


def address(name: str, default: str) -> str:
    """The IP address in a variable."""
    value = os.environ.get(name, "").strip() or default
    try:
        return str(ipaddress.ip_address(value.strip("[]")))
    except ValueError:
        raise SystemExit(f"{name} is {value!r}; want an IP address, such as {default}") from None


def choice(name: str, allowed: tuple[str, ...]) -> str:
    """One of ``allowed``; the first is the default."""
    value = text(name, allowed[0])
    if value not in allowed:
        raise SystemExit(f"{name} is {value!r}; want one of {', '.join(allowed)}")
    return value


def flag(name: str) -> bool:
    """``yes`` or ``no``; empty or not set: no."""
    value = text(name, "no").lower()
    if value not in _YES_NO:
        raise SystemExit(f"{name} is {value!r}; want yes or no")
    return _YES_NO[value]


def names(name: str) -> set[str]:
    """Names with commas between them."""
    return {part.strip() for part in text(name).split(",") if part.strip()}


def secret(name: str, least: int = 1) -> str:
    """A secret, from the variable or from the file that ``NAME_FILE`` names; "" where neither is.

    ``least``: the fewest characters it may have.
    """
    value, path = os.environ.get(name, "").strip(), text(f"{name}_FILE")
    if value and path:
        raise SystemExit(f"{name} and {name}_FILE are both set; keep one")
    if path:
        try:
            value = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise SystemExit(f"{name}_FILE {path!r}: {_why(error)}") from None
        if not value:
            raise SystemExit(f"{name}_FILE {path!r}: the file is empty")
    if value and (len(value) < least or not value.isprintable()):
        raise SystemExit(f"{name} must have at least {least} characters, in one line")
    return value


def file(name: str) -> str:
    """The absolute path of a file that can be read; "" where the variable is not set."""
    path = text(name)
    if not path:
        return ""
    try:
        with open(path, "rb"):
            return str(Path(path).absolute())
    except OSError as error:
        raise SystemExit(f"{name} {path!r}: {_why(error)}") from None


def url(name: str, default: str = "", *, inside: bool = False) -> str:
    """A URL without a slash at its end. ``https``, because passwords and tokens travel over it.

    On loopback also ``http``: for trials, and for a provider on the same machine. So with
    ``inside``, for what is on a network that nobody else is on.
    """
    value = text(name).rstrip("/")
    if not value:
        return default
    try:
        parts = urlsplit(value)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host = ""
    if not host or parts.scheme not in ("http", "https") or parts.username or parts.fragment:
        raise SystemExit(f"{name} is {value!r}; want a URL, such as https://login.example.org")
    if parts.scheme == "http" and not inside and not _is_loopback(host):
        raise SystemExit(
            f"{name} is {value!r}; want https://, because passwords and tokens travel over it "
            "(http:// only on this machine's loopback)"
        )
    return value


def table(name: str, of: type | tuple[type, ...], example: str) -> dict[str, Any]:
    """A JSON object whose values are all of a type; empty or not set: ``{}``.

    ``example`` is what the line shows as right.
    """
    value = os.environ.get(name, "").strip()
    if not value:
        return {}
    try:
        found = json.loads(value)
    except ValueError as error:
        raise SystemExit(f"{name} is not JSON ({error}); want such as {example}") from None
    fits = isinstance(found, dict) and all(
        key and isinstance(item, of) and (of is object or not isinstance(item, bool))
        for key, item in found.items()
    )
    if not fits:
        raise SystemExit(f"{name} is {value[:200]!r}; want JSON such as {example}")
    result: dict[str, Any] = found
    return result


def more_options(name: str, section: Any, example: str) -> None:
    """Set in a section of a config what a JSON object says: option -> value.

    One that the section has already, by a variable of its own, is refused. Names and values are
    checked with all the others, by ``setup(c)`` or the scheduler.
    """
    for option, value in table(name, object, example).items():
        if option in section and section[option] != value:
            raise SystemExit(f"{name}: {option} has a variable of its own; use that")
        section[option] = value


def lists(name: str, example: str) -> dict[str, list[str]]:
    """A JSON object of names to one name or a list of names, always as lists."""
    found = table(name, (str, list), example)
    result = {key: [item] if isinstance(item, str) else item for key, item in found.items()}
    for key, items in result.items():
        if not items or not all(isinstance(item, str) and item for item in items):
            raise SystemExit(f"{name}: {key!r} has {items!r}; want names, such as {example}")
    return result


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
