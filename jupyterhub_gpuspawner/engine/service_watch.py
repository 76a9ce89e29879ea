"""Which servers run in a Swarm, for all pollers at once: lists, and the manager's events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import docker
import requests

from . import pulls
from .events import ContainerEvent, EngineEvents, Item, Reconnected
from .services import observe_all
from .watch import EngineWatch


class SwarmEvents(EngineEvents):
    """Changes of services and nodes; of a task's end Docker sends no event.

    A service's event has its id as ``container_id``; a node's change means: look at everything.
    """

    def filters(self) -> dict[str, list[str]]:
        """What the manager is asked for. Events of services carry no labels to choose by."""
        return {"type": ["service", "node"]}

    def read(self, response: requests.Response) -> Iterator[Item]:
        """Read events from an answer, one JSON object a line. ValueError for a broken one."""
        for line in response.iter_lines():
            if line:
                yield parse_event(json.loads(line))


class SwarmWatch(EngineWatch):
    """A picture of one ledger's services."""

    def events(self) -> EngineEvents:
        """The manager's events."""
        return SwarmEvents(
            self._ledger_id, self._pool.base_url, self._pool.options, silence=12 * self._interval
        )

    def _list_states(self, client: docker.DockerClient) -> dict[str, str]:
        """Service id -> state in the words of containers."""
        words = {"created": "created", "exited": "exited"}
        return {
            seen.container_id: words.get(seen.state, "running")
            for seen in observe_all(client, self._ledger_id)
        }


def parse_event(data: dict[str, Any]) -> Item:
    """Read one event. ValueError if it is broken."""
    try:
        if data.get("Type") != "service":
            return Reconnected(why="node")
        action, about = str(data["Action"]), data["Actor"].get("Attributes") or {}
        if str(about.get("name")).startswith(pulls.PREFIX):
            return Reconnected(why="pull")  # of images: they are shown, and counted upon
        return ContainerEvent(
            action="destroy" if action == "remove" else action,
            container_id=str(data["Actor"]["ID"]),
            labels={},
            exit_code=None,
            time=float(data["time"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"an event of Docker is broken: {error!r}") from error
