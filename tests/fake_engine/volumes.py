"""Volumes: made or returned in one step."""

from __future__ import annotations

from typing import Any

from tests.fake_engine.events import Events
from tests.fake_engine.rules import Refused, labels_fit, new_id, stamp


class Volumes:
    """All volumes, by name."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self.by_name: dict[str, dict[str, Any]] = {}
        #: volume name -> ids of the containers that have it
        self.users: dict[str, set[str]] = {}

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        """Make a volume, or return the one that has this name, with the labels it has."""
        name = body.get("Name") or new_id()
        if name in self.by_name:
            return self.by_name[name]
        labels = dict(body.get("Labels") or {})
        if not body.get("Name"):
            labels["com.docker.volume.anonymous"] = ""
        self.by_name[name] = {
            "CreatedAt": stamp()[:19] + "Z",
            "Driver": body.get("Driver") or "local",
            "Labels": labels or None,
            "Mountpoint": f"/var/lib/docker/volumes/{name}/_data",
            "Name": name,
            "Options": body.get("DriverOpts") or None,
            "Scope": "local",
        }
        self._events.tell("volume", "create", name, {"driver": "local"})
        return self.by_name[name]

    def list(self, filters: dict[str, list[str]]) -> dict[str, Any]:
        """As ``GET /volumes``."""
        found = [
            volume
            for volume in self.by_name.values()
            if labels_fit(volume["Labels"] or {}, filters.get("label", []))
            and any(name in volume["Name"] for name in filters.get("name", [""]))
        ]
        return {"Volumes": found, "Warnings": None}

    def get(self, name: str) -> dict[str, Any]:
        """One volume."""
        if name not in self.by_name:
            raise Refused(404, f"get {name}: no such volume")
        return self.by_name[name]

    def remove(self, name: str, force: bool) -> None:
        """Remove one that no container has."""
        if name not in self.by_name:
            if force:
                return
            raise Refused(404, f"get {name}: no such volume")
        users = self.users.get(name)
        if users:
            listed = ", ".join(sorted(users))
            raise Refused(409, f"remove {name}: volume is in use - [{listed}]")
        del self.by_name[name]
        self._events.tell("volume", "destroy", name, {"driver": "local"})

    def use(self, name: str, container: str) -> dict[str, Any]:
        """A container gets a volume, made where it is not there."""
        volume = self.create({"Name": name})
        self.users.setdefault(volume["Name"], set()).add(container)
        return volume

    def drop(self, container: str, anonymous_too: bool) -> None:
        """A container is gone; with ``v`` its anonymous volumes go with it."""
        for name, users in list(self.users.items()):
            if container not in users:
                continue
            users.discard(container)
            anonymous = "com.docker.volume.anonymous" in (self.by_name[name]["Labels"] or {})
            if anonymous_too and anonymous and not users:
                self.remove(name, force=True)
