"""Observing: what the engine said is read, and what it did not say is not made up."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import docker
import docker.errors
import pytest

from jupyterhub_gpuspawner.engine import connect, labels, observe
from jupyterhub_gpuspawner.engine.faults import translate
from jupyterhub_gpuspawner.engine.observe import UNNAMED
from jupyterhub_gpuspawner.errors import EngineUnknown
from tests.unit.engine_fakes import Answer, ReplayEngine

# real sockets, files or processes
pytestmark = pytest.mark.slow

ALICE = labels.Identity(ledger="l1", lease="a1", user="alice", devices=("GPU-1",))


def description(**state: Any) -> dict[str, Any]:
    """The engine's words on a running container, shortened."""
    return {
        "Id": "c1",
        "Name": "/gpus-alice",
        "Created": "2026-01-02T03:04:05.5Z",
        "State": {
            "Status": "running",
            "ExitCode": 0,
            "OOMKilled": False,
            "StartedAt": "2026-01-02T03:04:06Z",
        }
        | state,
        "Config": {"Labels": labels.server_labels(ALICE), "Env": []},
        "HostConfig": {
            "Runtime": "runc",
            "DeviceRequests": [
                {"Driver": "cdi", "Count": 0, "DeviceIDs": ["nvidia.com/gpu=GPU-1"]}
            ],
        },
    }


NEVER = {"StartedAt": "0001-01-01T00:00:00Z"}


def test_a_running_container_is_read() -> None:
    seen = observe.from_inspect(description())
    assert seen.container_id == "c1"
    assert seen.name == "gpus-alice"
    assert seen.identity == ALICE
    assert (seen.state, seen.live, seen.started) == ("running", True, True)
    assert (seen.exit_code, seen.oom) == (None, False)
    assert seen.created_at == 1767323045.5
    assert seen.device_ids == seen.injected == ("GPU-1",)


@pytest.mark.parametrize(
    ("state", "live", "started", "exit_code"),
    [
        ({"Status": "created"} | NEVER, False, False, None),
        ({"Status": "created", "ExitCode": 127} | NEVER, False, False, None),
        ({"Status": "paused"}, True, True, None),
        ({"Status": "restarting", "ExitCode": 1}, True, True, None),
        ({"Status": "exited", "ExitCode": 137}, False, True, 137),
        ({"Status": "dead", "ExitCode": 1}, False, True, 1),
        ({"Status": "removing", "ExitCode": 0}, False, True, 0),
    ],
)
def test_each_state_says_whether_it_lives_and_how_it_ended(
    state: dict[str, Any], live: bool, started: bool, exit_code: int | None
) -> None:
    seen = observe.from_inspect(description(**state))
    assert (seen.live, seen.started, seen.exit_code) == (live, started, exit_code)


@pytest.mark.parametrize(
    ("host", "env", "injected"),
    [
        ({}, ["NVIDIA_VISIBLE_DEVICES=GPU-1"], ()),
        ({"Runtime": "nvidia"}, ["NVIDIA_VISIBLE_DEVICES=GPU-2,GPU-1"], ("GPU-1", "GPU-2")),
        ({"Runtime": "nvidia"}, ["NVIDIA_VISIBLE_DEVICES=all"], (UNNAMED,)),
        (
            {"Runtime": "nvidia"},
            ["NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_VISIBLE_DEVICES=void"],
            (),
        ),
        ({"Runtime": "nvidia"}, [], ()),
        ({"DeviceRequests": [{"Driver": "nvidia", "DeviceIDs": ["GPU-1"]}]}, [], ("GPU-1",)),
        ({"DeviceRequests": [{"Driver": "nvidia", "Count": -1}]}, [], (UNNAMED,)),
        (
            {"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=all"]}]},
            [],
            (UNNAMED,),
        ),
        (
            {"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["amd.com/gpu=0"]}]},
            [],
            ("amd.com/gpu=0",),
        ),
        (
            {
                "Binds": ["/dev/null:/run/gpus/SIMULATED-n-1:ro", "home:/home/jovyan:rw"],
                "Mounts": [{"Type": "bind", "Target": "/run/gpus/SIMULATED-n-0"}],
            },
            [],
            ("SIMULATED-n-0", "SIMULATED-n-1"),
        ),
        (
            {"Devices": [{"PathOnHost": "/dev/nvidia3"}, {"PathOnHost": "/dev/nvidiactl"}]},
            [],
            ("/dev/nvidia3",),
        ),
        ({"DeviceRequests": None, "Binds": None, "Mounts": None, "Devices": None}, [], ()),
    ],
)
def test_injected_devices_are_read_from_what_injects_them(
    host: dict[str, Any], env: list[str], injected: tuple[str, ...]
) -> None:
    assert observe.injected_devices(host, {"Env": env}) == injected


@pytest.mark.parametrize("missing", ["Id", "State", "Config"])
def test_a_broken_description_proves_nothing(missing: str) -> None:
    broken = deepcopy(description())
    del broken[missing]
    with pytest.raises(EngineUnknown, match="broken"):
        observe.from_inspect(broken)


def test_a_container_of_somebody_else_has_no_identity() -> None:
    foreign = description()
    foreign["Config"]["Labels"] = None
    seen = observe.from_inspect(foreign)
    assert seen.identity is None
    assert seen.device_ids == ()
    assert seen.injected == ("GPU-1",)


def look(answer: Answer) -> observe.Observation | None:
    with ReplayEngine({"GET /containers/c1/json": answer}) as engine:
        client = connect.connect(engine.url, 0.2)
        try:
            return observe.observe(client, "c1")
        finally:
            client.close()


def test_absence_is_the_engines_own_no_such_container() -> None:
    assert look(Answer(status=404, body={"message": "No such container: c1"})) is None


@pytest.mark.parametrize(
    "answer",
    [
        Answer(status=404, body=b"page not found"),
        Answer(status=404, body={"message": "not here"}),
        Answer(status=500, body={"message": "No such container: c1"}),
        Answer(status=503, body=b""),
        Answer(body=b"{}"),
        Answer(body=b"null"),
        Answer(body=b"{", cut=1),
        Answer(silent=True),
        Answer(reset=True),
    ],
    ids=repr,
)
def test_no_other_answer_is_taken_for_absence(answer: Answer) -> None:
    with pytest.raises(Exception) as caught:
        look(answer)
    assert isinstance(translate(caught.value), EngineUnknown)


def test_one_failed_look_fails_the_whole_survey() -> None:
    rows = [{"Id": "c1"}, {"Id": "c2"}]
    table = {
        "GET /containers/json": Answer(body=rows),
        "GET /containers/c1/json": Answer(body=description()),
        "GET /containers/c2/json": [
            Answer(status=404, body={"message": "No such container: c2"}),
            Answer(status=500, body={"message": "later"}),
        ],
    }
    with ReplayEngine(table) as engine:
        client: docker.DockerClient = connect.connect(engine.url, 1)
        seen = observe.observe_all(client, "l1")
        assert [one.container_id for one in seen] == ["c1"]
        with pytest.raises(docker.errors.APIError):
            observe.observe_all(client, "l1")
        client.close()
        query = engine.details[engine.requests.index("GET /containers/json")][0]
        assert "jupyterhub-gpuspawner.ledger%3Dl1" in query
        assert "all=1" in query
