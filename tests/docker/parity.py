"""Two engines side by side: what is called and seen on each, and how answers are compared."""

from __future__ import annotations

import json
import re
import time
from itertools import groupby
from typing import Any

import docker

#: names and labels of everything here, so that a real engine's other contents don't matter
TAG = "parity"
SUBNET = "10.213.8.0/24"
#: ends at once when it is asked to
SLEEP = ["sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait"]


class Side:
    """One of the two engines, and what was seen on it."""

    def __init__(self, base_url: str, image: str) -> None:
        self.base_url = base_url
        self.api = docker.APIClient(base_url=base_url, version="1.45", timeout=60)
        self.image = image
        #: (call, status, message)
        self.seen: list[tuple[str, int, str]] = []
        self.bodies: dict[str, Any] = {}
        self.begun = time.time()

    def call(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """One exchange, recorded; its JSON."""
        response = self.api.request(
            method, f"{self.api.base_url}/v1.45{path}", json=body, params=query, timeout=60
        )
        text = response.text
        data = json.loads(text) if text.strip().startswith(("{", "[")) else None
        words = data.get("message", "") if response.status_code >= 400 and data else ""
        self.seen.append((f"{method} {blank(path)}", response.status_code, blank(words)))
        return data

    def keep(self, name: str, body: Any) -> Any:
        """A body whose shape is compared."""
        self.bodies[name] = body
        return body

    def create(self, name: str = "one", **more: Any) -> str:
        body = {"Image": self.image, "Labels": {TAG: name}, "Cmd": SLEEP, **more}
        answer = self.call("POST", "/containers/create", body, name=f"{TAG}-{name}")
        return str((answer or {}).get("Id", ""))

    def status(self, which: str) -> str:
        info = self.call("GET", f"/containers/{which}/json")
        return str(info["State"]["Status"]) if "State" in info else "none"

    def events(self) -> list[str]:
        """Actions of our containers, volumes and networks, in order."""
        found = self.api.events(since=self.begun, until=time.time() + 0.01, decode=True)
        names = [
            f"{event['Type']} {event['Action']}"
            for event in found
            if event["Type"] in ("container", "volume", "network")
            and event["Action"] in ("create", "start", "kill", "stop", "die", "destroy", "oom")
            and TAG in json.dumps(event["Actor"]["Attributes"]) + event["Actor"]["ID"]
        ]
        # the end of a process is heard before or after the word about the call that ended it
        ends = ("container die", "container kill", "container stop")
        runs = groupby(names, lambda name: name in ends)
        return [name for over, run in runs for name in (sorted(run) if over else run)]

    def clean(self) -> None:
        for row in self.api.containers(all=True, filters={"label": TAG}):
            self.api.remove_container(row["Id"], force=True, v=True)
        for network in self.api.networks(names=[TAG]):
            self.api.remove_network(network["Id"])
        for volume in self.api.volumes(filters={"name": TAG})["Volumes"] or ():
            self.api.remove_volume(volume["Name"])


def blank(text: str) -> str:
    """Ids, and quotes that differ between versions."""
    return re.sub(r"[0-9a-f]{64}", "ID", text).replace('"', "")


def shape_errors(fake: Any, real: Any, where: str) -> list[str]:
    """Where the fake has a field that the real answer has not, or one of another kind."""
    if isinstance(fake, dict):
        if not isinstance(real, dict):
            return [] if not fake and real is None else [f"{where}: real {type(real).__name__}"]
        found = []
        for key, value in fake.items():
            if key in real:
                found += shape_errors(value, real[key], f"{where}.{key}")
            elif not re.fullmatch(r"[0-9a-f]{64}", key):
                found.append(f"{where}.{key} is not there")
        return found
    if isinstance(fake, list):
        if fake and isinstance(real, list) and real:
            return shape_errors(fake[0], real[0], f"{where}[0]")
        return [] if isinstance(real, (list, type(None))) else [f"{where}: no list"]
    if fake is None or real is None or type(fake) is type(real):
        return []
    return [f"{where}: {type(fake).__name__}, real {type(real).__name__}"]
