"""Small things that all parts of the fake engine share."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

NEVER = "0001-01-01T00:00:00Z"


class Refused(Exception):
    """Docker's answer to a call that it does not do: a status and a message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def new_id() -> str:
    """64 hex digits."""
    return secrets.token_hex(32)


def stamp(when: float | None = None) -> str:
    """A time as Docker writes it."""
    moment = time.time() if when is None else when
    text = datetime.fromtimestamp(moment, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")
    return f"{text}000Z"


def read_filters(text: str | None) -> dict[str, list[str]]:
    """The ``filters`` query: ``{"label": ["a=b"]}``, or the older ``{"label": {"a=b": true}}``."""
    data: dict[str, Any] = json.loads(text) if text else {}
    return {
        name: [key for key, on in value.items() if on] if isinstance(value, dict) else list(value)
        for name, value in data.items()
    }


def labels_fit(labels: Mapping[str, str], wanted: list[str]) -> bool:
    """Whether ``labels`` have all of ``name`` or ``name=value``."""
    for selector in wanted:
        name, equals, value = selector.partition("=")
        if name not in labels or (equals and labels[name] != value):
            return False
    return True
