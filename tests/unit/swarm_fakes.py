"""A Swarm's manager with Swarm's rules, as far as a server's service meets them.

Versions guard updates, a name is unique, a task that shall end is ended by its node
(:meth:`Manager.step`) and forgotten a moment later, a node that is down does nothing.
"""

from __future__ import annotations

import copy
import itertools
from types import SimpleNamespace
from typing import Any

import docker.errors

CREATED = "2026-01-01T00:00:00.5Z"


def answered(status: int) -> Any:
    return SimpleNamespace(status_code=status, url="/services", reason="")


def node(
    number: int,
    *,
    state: str = "ready",
    availability: str = "active",
    gpus: tuple[tuple[str, str], ...] = (),
    **more: Any,
) -> dict[str, Any]:
    """``/nodes`` of one node: id ``n<number>``, host name ``node<number>``."""
    named = [{"NamedResourceSpec": {"Kind": kind, "Value": value}} for kind, value in gpus]
    return {
        "ID": f"n{number}",
        "CreatedAt": CREATED,
        "UpdatedAt": CREATED,
        "Spec": {"Availability": availability, "Labels": more.pop("labels", {})},
        "Description": {
            "Hostname": more.pop("hostname", f"node{number}"),
            "Resources": {"NanoCPUs": 4 * 10**9, "MemoryBytes": 2**34, "GenericResources": named},
        },
        "Status": {"State": state},
        **more,
    }


class Manager:
    """The part of docker's ``APIClient`` that the verbs of services use."""

    def __init__(self, *nodes: dict[str, Any]) -> None:
        self.nodes_by_id = {one["ID"]: one for one in nodes}
        self.services_by_id: dict[str, dict[str, Any]] = {}
        self.tasks_by_id: dict[str, dict[str, Any]] = {}
        self.configs_by_name: dict[str, dict[str, Any]] = {}
        self.api = self
        self._ids = itertools.count(1)
        self._index = itertools.count(100)

    # -- the API ---------------------------------------------------------------------------

    def create_service(self, task_template: Any, **spec: Any) -> dict[str, str]:
        if any(one["Spec"]["Name"] == spec["name"] for one in self.services_by_id.values()):
            words = f"name conflicts with an existing object: service {spec['name']} already exists"
            raise docker.errors.APIError("409", answered(409), words)
        key = f"s{next(self._ids)}"
        self.services_by_id[key] = {
            "ID": key,
            "CreatedAt": CREATED,
            "UpdatedAt": CREATED,
            "Version": {"Index": next(self._index)},
            "Spec": {
                "Name": spec["name"],
                "Labels": spec["labels"],
                "TaskTemplate": {**task_template, "ForceUpdate": 0},
                "Mode": spec["mode"],
                "EndpointSpec": spec["endpoint_spec"],
            },
        }
        return {"ID": key}

    def inspect_service(self, which: str) -> dict[str, Any]:
        for key, one in self.services_by_id.items():
            if which in (key, one["Spec"]["Name"]):
                return copy.deepcopy(one)
        raise docker.errors.NotFound("404", answered(404), f"service {which} not found")

    def update_service(self, which: str, version: int, **spec: Any) -> None:
        one = self.services_by_id[which]
        if one["Version"]["Index"] != version:
            words = "rpc error: code = Unknown desc = update out of sequence"
            raise docker.errors.APIError("500", answered(500), words)
        again = spec["task_template"]["ForceUpdate"] != one["Spec"]["TaskTemplate"]["ForceUpdate"]
        one["Version"]["Index"] = next(self._index)
        one["Spec"].update(TaskTemplate=spec["task_template"], Mode=spec["mode"])
        if again:
            for task in self._of(which):
                task["DesiredState"] = "remove"
        if spec["mode"]["ReplicatedJob"]["TotalCompletions"] and not self._of(which):
            self.task(which, "pending", node="")

    def remove_service(self, which: str) -> bool:
        self.inspect_service(which)
        # seen with 26.1.5: the service's removal meets the task's own, and dockerd panics
        ended = ("shutdown", "complete", "failed", "rejected")
        for task in self._of(which):
            forgotten = task["DesiredState"] == "remove" and task["Status"]["State"] in ended
            assert not forgotten, "a service is removed while Swarm forgets its task"
        del self.services_by_id[which]
        for task in self._of(which):
            task["DesiredState"] = "remove"
        return True

    def services(self, filters: Any = None) -> list[dict[str, Any]]:
        wanted = [text.partition("=")[::2] for text in (filters or {}).get("label", ())]
        return [
            copy.deepcopy(one)
            for one in self.services_by_id.values()
            if all(one["Spec"]["Labels"].get(key) == value for key, value in wanted)
        ]

    def tasks(self) -> list[dict[str, Any]]:
        return copy.deepcopy(list(self.tasks_by_id.values()))

    def create_config(self, name: str, data: bytes, labels: Any = None) -> dict[str, str]:
        if name in self.configs_by_name:
            words = f"config {name} already exists"
            raise docker.errors.APIError("409", answered(409), words)
        spec = {"Name": name, "Labels": dict(labels or {})}
        self.configs_by_name[name] = {"ID": f"c-{name}", "Spec": spec}
        return {"ID": f"c-{name}"}

    def remove_config(self, name: str) -> None:
        self.inspect_config(name)
        del self.configs_by_name[name]

    def inspect_config(self, name: str) -> dict[str, Any]:
        if name not in self.configs_by_name:
            raise docker.errors.NotFound("404", answered(404), f"config {name} not found")
        return copy.deepcopy(self.configs_by_name[name])

    def configs(self, filters: Any = None) -> list[dict[str, Any]]:
        wanted = [text.partition("=")[::2] for text in [(filters or {}).get("label")] if text]
        return [
            copy.deepcopy(one)
            for one in self.configs_by_name.values()
            if all(one["Spec"]["Labels"].get(key) == value for key, value in wanted)
        ]

    def nodes(self) -> list[dict[str, Any]]:
        return copy.deepcopy(list(self.nodes_by_id.values()))

    def service_logs(self, which: str, **_: Any) -> list[bytes]:
        return [b"its last ", b"words\n"]

    # -- what happens in the Swarm -----------------------------------------------------------

    def task(self, service: str, state: str, *, node: str = "n2", **more: Any) -> dict[str, Any]:
        key = f"t{next(self._ids)}"
        self.tasks_by_id[key] = {
            "ID": key,
            "ServiceID": service,
            "NodeID": node,
            "CreatedAt": CREATED,
            "DesiredState": "complete",
            "Status": {"State": state, **more.pop("status", {})},
            **more,
        }
        return self.tasks_by_id[key]

    def run(self, service: str, state: str = "running", **more: Any) -> None:
        """Move the service's task on."""
        for task in self._of(service):
            task.update(NodeID="n2", **more)
            task["Status"]["State"] = state

    def step(self, _: float = 0) -> None:
        """Nodes end what shall end; Swarm forgets what has ended and shall go."""
        for key, task in list(self.tasks_by_id.items()):
            there = self.nodes_by_id.get(task["NodeID"])
            if task["DesiredState"] != "remove":
                continue
            if task["Status"]["State"] in ("shutdown", "complete", "failed", "rejected"):
                del self.tasks_by_id[key]
            elif there is None or there["Status"]["State"] == "ready":
                task["Status"]["State"] = "shutdown"

    def _of(self, service: str) -> list[dict[str, Any]]:
        return [task for task in self.tasks_by_id.values() if task["ServiceID"] == service]
