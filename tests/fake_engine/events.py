"""Events: remembered as Docker does (the last 256), and told to who listens."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from tests.fake_engine.rules import labels_fit

REMEMBERED = 256


class Events:
    """What happened, and who wants to hear of it."""

    def __init__(self) -> None:
        self.past: deque[dict[str, Any]] = deque(maxlen=REMEMBERED)
        self.listeners: set[asyncio.Queue[dict[str, Any] | None]] = set()

    def tell(self, kind: str, action: str, id: str, attributes: Mapping[str, Any]) -> None:
        """Something happened now."""
        nano = time.time_ns()
        event = {
            "Type": kind,
            "Action": action,
            "Actor": {"ID": id, "Attributes": {k: str(v) for k, v in attributes.items()}},
            "scope": "local",
            "time": nano // 1_000_000_000,
            "timeNano": nano,
        }
        if kind == "container":
            # the form of old clients, which is still sent
            event.update(status=action, id=id, **{"from": str(attributes.get("image", ""))})
        self.past.append(event)
        for listener in self.listeners:
            listener.put_nowait(event)

    def hang_up(self) -> None:
        """Cut all streams, as an engine that ends does."""
        for listener in self.listeners:
            listener.put_nowait(None)


def fits(event: Mapping[str, Any], filters: Mapping[str, list[str]]) -> bool:
    """Whether an event passes the filters ``type``, ``event``, ``container`` and ``label``."""
    actor = event["Actor"]
    return (
        event["Type"] in filters.get("type", [event["Type"]])
        and event["Action"] in filters.get("event", [event["Action"]])
        and actor["ID"] in filters.get("container", [actor["ID"]])
        and labels_fit(actor["Attributes"], filters.get("label", []))
    )
