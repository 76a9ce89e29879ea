"""Kinds of option values that traitlets does not have."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from traitlets import TraitError, TraitType

from .. import units


class Seconds(TraitType[float, Any]):
    """A length of time: seconds, or text such as ``"30s"``, ``"5m"``, ``"1h"``."""

    info_text = 'seconds, or text such as "30s", "5m", "1h"'

    def validate(self, obj: Any, value: Any) -> float:
        try:
            return units.parse_duration(value)
        except ValueError as error:
            raise TraitError(f"{self.name}: {error}") from None


class Memory(TraitType[int, Any]):
    """An amount of memory above 0: bytes, or text such as ``"512M"``, ``"50G"``."""

    info_text = 'bytes, or text such as "512M", "50G"'

    def validate(self, obj: Any, value: Any) -> int:
        try:
            found = units.parse_memory(value)
        except ValueError as error:
            raise TraitError(f"{self.name}: {error}") from None
        if not found:
            raise TraitError(f"{self.name}: {value!r} is not above 0")
        return found


def parse_bind(url: str) -> tuple[str, int]:
    """(host, port) of ``http://host:port/…``. TraitError with what is allowed."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
        parts = urlsplit("")
    if parts.scheme != "http" or not host or port is None:
        raise TraitError(f"url is {url!r}; want http://ADDRESS:PORT, e.g. http://127.0.0.1:8750")
    return host, port
