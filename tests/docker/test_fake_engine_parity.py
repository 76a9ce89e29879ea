"""The fake engine and a real one answer the same calls alike: a difference is a failure here.

Each scenario runs on both. What is compared: the status of every answer, Docker's words (ids
blanked), the state afterwards, the sequence of events, and the shape of bodies: every field that
the fake has is there in the real answer, with a value of the same kind.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import docker
import docker.errors
import pytest
import requests

from tests.docker.parity import SUBNET, TAG, Side, blank, shape_errors
from tests.fake_engine import FakeEngine
from tests.testbed.engine import Engine
from tests.testbed.images import ensure_stub

#: who remove one container at the same time
REMOVERS = 4


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


def test_a_removal_that_is_in_progress_refuses_a_second_one(
    sides: tuple[Side, Side], process: FakeEngine
) -> None:
    """The other 409: who asks while it goes on is refused, and it goes on."""
    process.slow_removal(0.5)
    try:
        fake, real = (refused_removal(side) for side in sides)
    finally:
        process.slow_removal(0)
    assert fake == real == "removal of container ID is already in progress"


def refused_removal(side: Side) -> str:
    """Docker's words for all but the first of some who remove a container at the same time."""
    gate = threading.Barrier(REMOVERS)

    def remove(which: str) -> tuple[int, str]:
        with docker.APIClient(base_url=side.base_url, version="1.45") as api:
            gate.wait(30)
            url = f"{api.base_url}/v1.45/containers/{which}"
            answer = api.delete(url, params={"force": "1"}, timeout=60)
        return answer.status_code, blank(answer.json()["message"]) if answer.text else ""

    for _ in range(20):  # the first may be done before the others have asked
        one = side.create()
        side.call("POST", f"/containers/{one}/start")
        with ThreadPoolExecutor(REMOVERS) as pool:
            answers = list(pool.map(remove, [one] * REMOVERS))
        assert side.status(one) == "none"
        assert [status for status, _ in answers].count(204) == 1
        # 404: asked after the end
        assert {status for status, _ in answers} <= {204, 404, 409}
        words = {text for status, text in answers if status == 409}
        if words:
            return words.pop() if len(words) == 1 else str(words)
    return "never refused"


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
