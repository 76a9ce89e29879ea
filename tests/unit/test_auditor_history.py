"""The auditor's history: intervals from events and looks, in whatever order they come."""

from __future__ import annotations

from typing import Any

from tests.auditor.history import ANY, OPEN, History, injected, seconds

E = "/engine"


def event(action: str, when: float, id: str = "c1", **labels: str) -> dict[str, Any]:
    actor = {"ID": id, "Attributes": {"name": id, **labels}}
    return {"Type": "container", "Action": action, "Actor": actor, "timeNano": int(when * 1e9)}


def stamp(when: float) -> str:
    return f"1970-01-01T00:00:{when:012.9f}Z"


def inspect(state: str, started: float = 0, finished: float = 0, id: str = "c1") -> dict[str, Any]:
    never = "0001-01-01T00:00:00Z"
    return {
        "Id": id,
        "Name": f"/{id}",
        "Config": {"Labels": {}},
        "HostConfig": {},
        "State": {
            "Status": state,
            "StartedAt": stamp(started) if started else never,
            "FinishedAt": stamp(finished) if finished else never,
        },
    }


def runs(history: History, id: str = "c1") -> list[tuple[float, float]]:
    return history.containers[id].intervals()


def test_start_and_die_make_an_interval() -> None:
    history = History()
    for action, when in (("create", 1), ("start", 2), ("die", 5), ("destroy", 6)):
        history.event(event(action, when), E)
    assert runs(history) == [(2, 5)]
    assert history.containers["c1"].gone == 6


def test_a_container_that_was_created_only_never_ran() -> None:
    history = History()
    history.event(event("create", 1), E)
    history.look(inspect("created"), E, None)
    assert runs(history) == []


def test_one_that_runs_has_an_open_end() -> None:
    history = History()
    history.look(inspect("running", 3), E, None)
    assert runs(history) == [(3, OPEN)]


def test_events_heard_twice_change_nothing() -> None:
    history = History()
    heard = [event(*one) for one in (("start", 2), ("die", 5), ("start", 7), ("die", 9))]
    for data in [*heard, *heard]:
        history.event(data, E)
    assert runs(history) == [(2, 5), (7, 9)]


def test_a_start_heard_again_while_it_runs_a_second_time_keeps_it_running() -> None:
    history = History()
    heard = [event(*one) for one in (("start", 2), ("die", 5), ("start", 7))]
    for data in [*heard, *heard]:
        history.event(data, E)
    assert runs(history) == [(2, 5), (7, OPEN)]


def test_a_look_makes_good_a_die_that_was_not_heard() -> None:
    history = History()
    history.event(event("start", 2), E)
    history.look(inspect("exited", 2, 4), E, None)
    assert runs(history) == [(2, 4)]


def test_a_look_makes_good_a_start_that_was_not_heard() -> None:
    history = History()
    history.look(inspect("exited", 2, 4), E, None)
    assert runs(history) == [(2, 4)]


def test_a_look_from_before_its_end_does_not_bring_it_back() -> None:
    history = History()
    for action, when in (("start", 2), ("die", 5), ("destroy", 6)):
        history.event(event(action, when), E)
    # another thread asked the engine at 4, and takes the answer in now
    history.look(inspect("running", 2), E, None)
    assert runs(history) == [(2, 5)]
    assert history.containers["c1"].gone == 6


def test_a_look_after_it_was_started_again_has_it_running() -> None:
    history = History()
    for action, when in (("start", 2), ("die", 5)):
        history.event(event(action, when), E)
    history.look(inspect("running", 7), E, None)
    assert runs(history) == [(2, 5), (7, OPEN)]
    history.look(inspect("exited", 7, 9), E, None)
    assert runs(history) == [(2, 5), (7, 9)]


def test_missing_in_a_list_it_is_gone_at_that_time() -> None:
    history = History()
    history.event(event("start", 2), E)
    history.absent({"c1"}, E, 8)
    assert runs(history) == [(2, 8)]
    history.look(inspect("running", 2), E, None)
    assert runs(history) == [(2, OPEN)]


def test_devices_come_from_marker_files_and_device_requests_and_mapped_nodes() -> None:
    assert injected({"Binds": ["/dev/null:/run/gpus/S-0:ro", "/data:/data:rw"]}) == {"S-0"}
    assert injected({"Mounts": [{"Target": "/run/gpus/S-1"}]}) == {"S-1"}
    cdi = {"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=GPU-a"]}
    assert injected({"DeviceRequests": [cdi]}) == {"GPU-a"}
    assert injected({"DeviceRequests": [{"Driver": "nvidia", "Count": -1}]}) == {ANY}
    assert injected({"DeviceRequests": [{"DeviceIDs": ["all"]}]}) == {ANY}
    assert injected({"Devices": [{"PathOnHost": "/dev/nvidia3"}]}) == {"/dev/nvidia3"}
    assert injected({"Binds": None, "DeviceRequests": None, "Devices": None}) == frozenset()


def test_what_was_not_looked_at_has_the_devices_of_its_label() -> None:
    history = History()
    history.event(event("start", 2, **{"jupyterhub-gpuspawner.devices": "S-0,S-1"}), E)
    assert history.containers["c1"].devices == {"S-0", "S-1"}
    history.look(inspect("running", 2), E, frozenset({"S-3"}))
    assert history.containers["c1"].devices == {"S-3"}


def test_dockers_times_are_read_to_the_nanosecond() -> None:
    assert seconds("1970-01-01T00:01:00.500000000Z") == 60.5
    assert seconds("0001-01-01T00:00:00Z") is None
    assert seconds(None) is None
