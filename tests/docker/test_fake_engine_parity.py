"""The fake engine and a real one answer the same calls alike: a difference is a failure here.

Each scenario runs on both. What is compared: the status of every answer, Docker's words (ids
blanked), the state afterwards, the sequence of events, and the shape of bodies: every field that
the fake has is there in the real answer, with a value of the same kind.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any

import docker
import docker.errors
import pytest
import requests

from tests.fake_engine import FakeEngine
from tests.testbed.engine import Engine
from tests.testbed.images import ensure_stub

#: names and labels of everything here, so that a real engine's other contents don't matter
TAG = "parity"
SUBNET = "10.213.8.0/24"
#: ends at once when it is asked to
SLEEP = ["sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait"]


class Side:
    """One of the two engines, and what was seen on it."""

    def __init__(self, base_url: str, image: str) -> None:
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


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeEngine]:
    path = tmp_path_factory.mktemp("engine") / "sock"
    with FakeEngine(path, cdi=["nvidia.com/gpu=SIMULATED-testbed-0"]) as engine:
        yield engine


@pytest.fixture
def sides(
    engine: Engine, process: FakeEngine, docker_client: docker.DockerClient
) -> Iterator[tuple[Side, Side]]:
    stub = ensure_stub(docker_client)
    process.reset()
    pair = (Side(process.base_url, "stub"), Side(engine.base_url, stub))
    for side in pair:
        side.clean()
    yield pair
    for side in pair:
        side.clean()
        side.api.close()


Compare = Callable[[Callable[[Side], Any]], Any]


@pytest.fixture
def both(sides: tuple[Side, Side]) -> Compare:
    """Run a scenario on both and compare all that was seen; the results have to be equal too."""

    def compare(scenario: Callable[[Side], Any]) -> Any:
        fake, real = sides
        results = [scenario(side) for side in sides]
        assert fake.seen == real.seen
        assert results[0] == results[1]
        assert fake.events() == real.events()
        for name, body in fake.bodies.items():
            assert shape_errors(body, real.bodies[name], name) == []
        return results[0]

    return compare


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


def test_a_whole_life(both: Compare) -> None:
    def life(side: Side) -> list[str]:
        one = side.create(ExposedPorts={"8888/tcp": {}})
        states = [side.status(one)]
        side.keep("created", side.call("GET", f"/containers/{one}/json"))
        for verb in ("start", "start", "stop", "stop", "start", "kill", "kill"):
            side.call("POST", f"/containers/{one}/{verb}")
            states.append(_settled(side, one))
            if verb == "start":
                side.keep("running", side.call("GET", f"/containers/{one}/json"))
                side.keep("row", side.call("GET", "/containers/json", filters=_label())[0])
        side.keep("exited", side.call("GET", f"/containers/{one}/json"))
        side.call("DELETE", f"/containers/{one}")
        side.call("DELETE", f"/containers/{one}")
        return states

    assert both(life)[0] == "created"


def _settled(side: Side, one: str) -> str:
    """The state of a container; a kill is answered before the process is gone."""
    until = time.monotonic() + 10
    while (status := side.api.inspect_container(one)["State"]["Status"]) == "running":
        if side.api.inspect_container(one)["State"]["Running"] and (
            not side.seen[-1][0].endswith("kill") or time.monotonic() > until
        ):
            break
    return str(status)


def _label() -> str:
    return json.dumps({"label": [TAG]})


def test_what_is_not_there(both: Compare) -> None:
    def ask(side: Side) -> None:
        side.call("GET", "/containers/nobody/json")
        for verb in ("start", "stop", "kill"):
            side.call("POST", f"/containers/nobody/{verb}")
        side.call("DELETE", "/containers/nobody")
        side.call("DELETE", "/containers/nobody", force="1")
        side.call("GET", "/containers/nobody/logs", stdout="1")
        side.call("GET", "/images/parity-none/json")
        side.call("POST", "/containers/create", {"Image": "parity-none"}, name="parity-x")
        side.call("GET", "/volumes/parity-none")
        side.call("DELETE", "/volumes/parity-none")
        side.call("GET", "/networks/parity-none")
        side.call("DELETE", "/networks/parity-none")
        side.call("GET", "/no/such/route")

    both(ask)


def test_a_name_is_taken_once(both: Compare) -> None:
    def twice(side: Side) -> None:
        side.create()
        side.create()
        side.call("POST", "/containers/create", {"Image": side.image}, name="-bad")

    both(twice)


def test_a_running_container_is_removed_by_force_only(both: Compare) -> None:
    def remove(side: Side) -> str:
        one = side.create()
        side.call("POST", f"/containers/{one}/start")
        side.call("DELETE", f"/containers/{one}")
        side.call("POST", f"/containers/{one}/pause")
        side.call("POST", f"/containers/{one}/pause")
        side.call("DELETE", f"/containers/{one}")
        side.call("POST", f"/containers/{one}/unpause")
        side.call("DELETE", f"/containers/{one}", force="1", v="1")
        return side.status(one)

    assert both(remove) == "none"


def test_lists_by_label_and_state(both: Compare) -> None:
    def lists(side: Side) -> list[Any]:
        one, two = side.create("one"), side.create("two")
        side.call("POST", f"/containers/{one}/start")
        found = []
        for filters in (
            {"label": [TAG]},
            {"label": [f"{TAG}=two"]},
            {"label": [TAG, f"{TAG}=none"]},
            {"label": [TAG], "status": ["created"]},
            {"label": [TAG], "name": ["parity-t"]},
        ):
            for everything in ("0", "1"):
                rows = side.call(
                    "GET", "/containers/json", all=everything, filters=json.dumps(filters)
                )
                found.append([row["Names"] for row in rows])
        assert two
        return found

    both(lists)


def test_volumes_are_made_or_returned_with_their_labels(both: Compare) -> None:
    def volumes(side: Side) -> list[Any]:
        made = side.call("POST", "/volumes/create", {"Name": "parity-v", "Labels": {"a": "1"}})
        again = side.call("POST", "/volumes/create", {"Name": "parity-v", "Labels": {"a": "2"}})
        side.keep("volume", made)
        found = side.call("GET", "/volumes", filters=json.dumps({"label": ["a=1"]}))
        none = side.call("GET", "/volumes", filters=json.dumps({"label": ["a=2"]}))
        one = side.create(HostConfig={"Binds": ["parity-v:/data:rw", "parity-w:/more:rw"]})
        side.keep("mounts", side.call("GET", f"/containers/{one}/json")["Mounts"])
        side.call("DELETE", "/volumes/parity-v")
        side.call("DELETE", f"/containers/{one}", v="1")
        side.call("GET", "/volumes/parity-w")
        side.call("DELETE", "/volumes/parity-v")
        return [made["Labels"], again["Labels"], len(found["Volumes"]), len(none["Volumes"] or ())]

    assert both(volumes) == [{"a": "1"}, {"a": "1"}, 1, 0]


def test_networks_and_their_endpoints(both: Compare) -> None:
    def networks(side: Side) -> list[Any]:
        body = {
            "Name": "parity-n",
            "Labels": {TAG: "n"},
            "IPAM": {"Config": [{"Subnet": SUBNET}]},
        }
        made = side.call("POST", "/networks/create", body)
        side.call("POST", "/networks/create", body)
        side.call("POST", "/networks/create", {**body, "Name": "parity-m"})
        one = side.create(HostConfig={"NetworkMode": "parity-n"})
        before = side.keep("network", side.call("GET", "/networks/parity-n"))
        side.call("POST", f"/containers/{one}/start")
        during = side.keep("busy network", side.call("GET", f"/networks/{made['Id']}"))
        side.call("DELETE", "/networks/parity-n")
        listed = side.call("GET", "/networks", filters=_label())
        two = side.create("two")
        side.call("POST", f"/containers/{two}/start")
        join = {"Container": two}
        side.call("POST", "/networks/parity-n/connect", join)
        side.call("POST", "/networks/parity-n/connect", join)
        both_in = side.call("GET", "/networks/parity-n")
        joined = side.call("GET", f"/containers/{two}/json")["NetworkSettings"]["Networks"]
        side.call("POST", "/networks/parity-n/disconnect", join)
        side.call("DELETE", f"/containers/{one}", force="1")
        side.call("DELETE", f"/containers/{two}", force="1")
        side.call("DELETE", "/networks/parity-n")
        return [
            [len(n["Containers"] or ()) for n in (before, during, both_in)],
            [n["Name"] for n in listed],
            sorted(joined),
            before["IPAM"]["Config"][0]["Subnet"],
        ]

    assert both(networks)[0] == [0, 1, 2]


def test_a_network_that_is_not_there(both: Compare) -> None:
    def start(side: Side) -> str:
        one = side.create(HostConfig={"NetworkMode": "parity-none"})
        if not one:
            return "refused"
        side.call("POST", f"/containers/{one}/start")
        return side.status(one)

    both(start)


def test_a_network_removed_under_a_stopped_container(both: Compare) -> None:
    def start(side: Side) -> str:
        side.call("POST", "/networks/create", {"Name": "parity-n", "Labels": {TAG: "n"}})
        one = side.create(HostConfig={"NetworkMode": "parity-n"})
        side.call("DELETE", "/networks/parity-n")
        side.call("POST", f"/containers/{one}/start")
        return side.status(one)

    both(start)


def test_cdi_devices(both: Compare) -> None:
    def start(side: Side) -> list[str]:
        states = []
        for number in (0, 99):
            request = {"Driver": "cdi", "DeviceIDs": [f"nvidia.com/gpu=SIMULATED-testbed-{number}"]}
            one = side.create(f"cdi{number}", HostConfig={"DeviceRequests": [request]})
            response = side.api.post(side.api._url("/containers/{0}/start", one))
            states += [str(response.status_code), side.status(one)]
            if response.status_code != 204:
                assert "unresolvable cdi devices" in response.text.lower()
        return states

    assert both(start) == ["204", "running", "500", "created"]


def test_what_the_engine_says_of_itself(both: Compare) -> None:
    def ask(side: Side) -> None:
        for path in ("/version", "/info"):
            side.keep(path, side.call("GET", path))
        side.keep("image", side.call("GET", f"/images/{side.image}/json"))

        # the images' names differ
        side.seen.clear()

    both(ask)


def test_a_client_that_hangs_up_does_not_stop_its_create(
    sides: tuple[Side, Side], process: FakeEngine
) -> None:
    for side in sides:
        if side is sides[0]:
            process.fault("POST /containers/create", "slow", seconds=0.2)
        body = {"Image": side.image, "Labels": {TAG: "late"}}
        with pytest.raises(requests.exceptions.ReadTimeout):
            side.api.post(
                f"{side.api.base_url}/v1.45/containers/create",
                params={"name": "parity-late"},
                json=body,
                timeout=0.001,
            )
        until = time.monotonic() + 20
        while not side.api.containers(all=True, filters={"label": f"{TAG}=late"}):
            assert time.monotonic() < until
