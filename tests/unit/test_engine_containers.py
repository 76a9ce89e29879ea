"""The verbs against an engine that loses answers: repeating them is safe."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import docker
import docker.errors
import pytest

from jupyterhub_gpuspawner.engine import connect, containers, labels, owner, volumes
from jupyterhub_gpuspawner.engine.containers import ContainerSpec
from jupyterhub_gpuspawner.engine.faults import translate
from jupyterhub_gpuspawner.errors import EngineConflict, EngineUnknown, ImageMissing
from tests.unit.engine_fakes import Answer, ReplayEngine

# real sockets, files or processes
pytestmark = pytest.mark.slow

ALICE = labels.Identity(ledger="l1", lease="a1", user="alice")
SPEC = ContainerSpec(name="gpus-alice", image="lab:1", labels=labels.server_labels(ALICE))
NEVER = "0001-01-01T00:00:00Z"
TAKEN = Answer(
    status=409,
    body={"message": 'Conflict. The container name "/gpus-alice" is already in use by "c1"'},
)
GONE = Answer(status=404, body={"message": "No such container: c1"})
LATER = Answer(status=500, body={"message": "try later"})


def container(identity: labels.Identity | None = ALICE, started: str = NEVER) -> Answer:
    state = {"Status": "created" if started == NEVER else "exited", "StartedAt": started}
    found = labels.server_labels(identity) if identity else {"a": "b"}
    return Answer(body={"Id": "c1", "State": state, "Config": {"Labels": found, "Tty": True}})


@contextmanager
def engine_with(
    table: dict[str, Any],
) -> Iterator[tuple[ReplayEngine, docker.DockerClient]]:
    with ReplayEngine(table) as engine:
        # long enough for a machine that has a lot to do; nothing here is silent on purpose
        client = connect.connect(engine.url, 10)
        try:
            yield engine, client
        finally:
            client.close()


def test_create_sends_name_labels_and_limits() -> None:
    spec = ContainerSpec(
        name="gpus-alice",
        image="lab:1",
        labels=SPEC.labels,
        host={"mem_limit": 10**9},
        options={"environment": {"A": "1"}},
    )
    with engine_with({"POST /containers/create": Answer(body={"Id": "c1"})}) as (engine, client):
        assert containers.create(client, spec) == "c1"
    query, body = engine.details[-1]
    sent = json.loads(body)
    assert query == "name=gpus-alice"
    assert sent["Labels"] == SPEC.labels
    assert sent["HostConfig"]["Memory"] == 10**9
    assert sent["Env"] == ["A=1"]


def test_create_after_a_lost_answer_takes_the_container_that_is_there() -> None:
    table = {"POST /containers/create": TAKEN, "GET /containers/gpus-alice/json": container()}
    with engine_with(table) as (_, client):
        assert containers.create(client, SPEC) == "c1"


OTHER_LEASE = labels.Identity(ledger="l1", lease="a2", user="alice")
OTHER_LEDGER = labels.Identity(ledger="l2", lease="a1", user="alice")


@pytest.mark.parametrize(
    ("holder", "words"),
    [
        (container(None), "something that is not ours"),
        (container(OTHER_LEASE), "lease a2 of alice"),
        (container(OTHER_LEDGER), "lease a1 of alice"),
        (container(ALICE, started="2026-01-02T03:04:05Z"), "exited"),
    ],
    ids=["foreign", "other lease", "other ledger", "started before"],
)
def test_create_refuses_a_taken_name_and_touches_nothing(holder: Answer, words: str) -> None:
    table = {"POST /containers/create": TAKEN, "GET /containers/gpus-alice/json": holder}
    with engine_with(table) as (engine, client):
        with pytest.raises(EngineConflict, match=f"gpus-alice is taken by c1 .*{words}"):
            containers.create(client, SPEC)
        assert {request.split()[0] for request in engine.requests[2:]} == {"GET"}


def test_a_name_that_is_free_again_after_a_conflict_is_still_a_conflict() -> None:
    table = {"POST /containers/create": TAKEN, "GET /containers/gpus-alice/json": GONE}
    with engine_with(table) as (_, client), pytest.raises(docker.errors.APIError) as caught:
        containers.create(client, SPEC)
    assert isinstance(translate(caught.value), EngineConflict)


def test_start_starts_what_was_never_started() -> None:
    table = {
        "GET /containers/c1/json": container(),
        "POST /containers/c1/start": Answer(status=204),
    }
    with engine_with(table) as (engine, client):
        containers.start(client, "c1")
        assert engine.requests[-1] == "POST /containers/c1/start"


def test_start_never_starts_a_container_again() -> None:
    table = {"GET /containers/c1/json": container(ALICE, started="2026-01-02T03:04:05Z")}
    with engine_with(table) as (engine, client):
        containers.start(client, "c1")
        assert "POST /containers/c1/start" not in engine.requests


def test_starting_a_container_that_is_gone_is_not_found() -> None:
    table = {"GET /containers/c1/json": GONE, "POST /containers/c1/start": GONE}
    with engine_with(table) as (_, client), pytest.raises(docker.errors.NotFound):
        containers.start(client, "c1")


@pytest.mark.parametrize("answer", [Answer(status=204), Answer(status=304), GONE])
def test_stop_may_be_repeated(answer: Answer) -> None:
    with engine_with({"POST /containers/c1/stop": answer}) as (engine, client):
        containers.stop(client, "c1", grace=3)
        assert engine.details[-1][0] == "t=3"


@pytest.mark.parametrize("answer", [Answer(status=204), GONE])
def test_remove_may_be_repeated(answer: Answer) -> None:
    with engine_with({"DELETE /containers/c1": answer}) as (engine, client):
        containers.remove(client, "c1")
        assert "force=True" in engine.details[-1][0]


IN_PROGRESS = Answer(status=409, body={"message": "removal of container c1 is already in progress"})


def test_remove_waits_for_a_removal_that_is_in_progress() -> None:
    pauses: list[float] = []
    table = {
        "DELETE /containers/c1": IN_PROGRESS,
        "GET /containers/c1/json": [container(), container(), GONE],
    }
    with engine_with(table) as (_, client):
        containers.remove(client, "c1", sleep=pauses.append)
    assert len(pauses) == 2


def test_a_removal_that_does_not_end_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "REMOVAL_LIMIT", 0.05)
    table = {"DELETE /containers/c1": IN_PROGRESS, "GET /containers/c1/json": container()}
    with (
        engine_with(table) as (_, client),
        pytest.raises(EngineUnknown, match=r"still being removed after 0.05 s"),
    ):
        # by the clock, however long each look takes
        containers.remove(client, "c1")


NO_ROUTE = Answer(status=404, body=b"page not found")
VERBS: dict[str, tuple[str, Callable[[docker.DockerClient], object]]] = {
    "create": ("POST /containers/create", lambda c: containers.create(c, SPEC)),
    "start": ("POST /containers/c1/start", lambda c: containers.start(c, "c1")),
    "stop": ("POST /containers/c1/stop", lambda c: containers.stop(c, "c1", grace=0)),
    "remove": ("DELETE /containers/c1", lambda c: containers.remove(c, "c1")),
    "report": ("GET /containers/c1/json", lambda c: containers.exit_report(c, "c1")),
    "name": ("GET /containers/c1/json", lambda c: containers.name_taken(c, "c1")),
    "home": (
        "GET /volumes",
        lambda c: volumes.ensure_home(c, username="a", owner="o", ledger="l"),
    ),
    "claim": ("POST /volumes/create", lambda c: owner.claim_engine(c, "l1")),
}


@pytest.mark.parametrize(
    "fault", [LATER, NO_ROUTE, Answer(reset=True)], ids=["500", "no route", "reset"]
)
@pytest.mark.parametrize("verb", VERBS)
def test_no_verb_takes_a_fault_for_success(verb: str, fault: Answer) -> None:
    request, act = VERBS[verb]
    with engine_with({"GET /containers/c1/json": container(), request: fault}) as (_, client):
        with pytest.raises(Exception) as caught:
            act(client)
        assert isinstance(translate(caught.value), EngineUnknown)


def test_an_exit_report_has_code_reason_and_the_last_lines() -> None:
    state = {
        "Status": "exited",
        "ExitCode": 137,
        "OOMKilled": True,
        "StartedAt": "2026-01-02T03:04:05Z",
        "FinishedAt": "2026-01-02T03:05:05Z",
        "Error": "",
    }
    config = {"Labels": None, "Tty": True}
    table = {
        "GET /containers/c1/json": Answer(body={"Id": "c1", "State": state, "Config": config}),
        "GET /containers/c1/logs": Answer(body=b"first\nlast \xff\n"),
    }
    with engine_with(table) as (engine, client):
        report = containers.exit_report(client, "c1", lines=5)
        query = engine.details[engine.requests.index("GET /containers/c1/logs")][0]
        assert "tail=5" in query
    assert report == containers.ExitReport(
        exit_code=137,
        oom=True,
        finished_at="2026-01-02T03:05:05Z",
        log_tail="first\nlast \ufffd",
        error="",
    )


def test_an_exit_report_goes_without_a_log_that_can_not_be_read() -> None:
    unreadable = {"message": "configured logging driver does not support reading"}
    table = {
        "GET /containers/c1/json": container(ALICE, started="2026-01-02T03:04:05Z"),
        "GET /containers/c1/logs": Answer(status=501, body=unreadable),
    }
    with engine_with(table) as (_, client):
        report = containers.exit_report(client, "c1")
    assert report is not None
    assert (report.exit_code, report.log_tail) == (0, "")


def test_there_is_no_exit_report_of_a_container_that_is_gone() -> None:
    with engine_with({"GET /containers/c1/json": GONE}) as (_, client):
        assert containers.exit_report(client, "c1") is None


def test_a_pull_counts_layers_and_says_so_once() -> None:
    lines = (
        {"status": "Pulling from lab", "id": "1"},
        {"status": "Pulling fs layer", "id": "aa"},
        {"status": "Pulling fs layer", "id": "bb"},
        {"status": "Downloading", "id": "aa"},
        {"status": "Already exists", "id": "cc"},
        {"status": "Pull complete", "id": "aa"},
        {"status": "Pull complete", "id": "bb"},
        {"status": "Status: Downloaded newer image"},
    )
    said: list[str] = []
    with engine_with({"POST /images/create": Answer(stream=lines, ends=True)}) as (engine, client):
        containers.pull(client, "registry.example:5000/lab", said.append)
        assert "tag=latest" in engine.details[-1][0]
    assert said == [
        "0 of 1 layers",
        "0 of 2 layers",
        "1 of 3 layers",
        "2 of 3 layers",
        "3 of 3 layers",
    ]


@pytest.mark.parametrize(
    "answer",
    [
        Answer(status=404, body={"message": "pull access denied for lab"}),
        Answer(status=500, body={"message": "pull access denied for lab"}),
        Answer(stream=({"error": "pull access denied for lab"},), ends=True),
    ],
    ids=["404", "500", "in the stream"],
)
def test_a_pull_that_fails_is_a_missing_image(answer: Answer) -> None:
    with (
        engine_with({"POST /images/create": answer}) as (_, client),
        pytest.raises(ImageMissing, match=r"image lab:1: .* pull access denied for lab"),
    ):
        containers.pull(client, "lab:1")


def test_a_pull_that_is_cut_off_is_unknown() -> None:
    cut = Answer(stream=({"status": "Pulling fs layer", "id": "aa"},), cut=0)
    with engine_with({"POST /images/create": cut}) as (_, client):
        with pytest.raises(Exception) as caught:
            containers.pull(client, "lab:1")
        assert isinstance(translate(caught.value), EngineUnknown)


def test_a_pull_in_which_docker_falls_silent_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "PULL_PATIENCE", 0.01)
    stuck = Answer(stream=({"status": "Pulling fs layer", "id": "aa"},))
    with engine_with({"POST /images/create": stuck}) as (_, client):
        with pytest.raises(Exception) as caught:
            containers.pull(client, "lab:1")
        assert isinstance(translate(caught.value), EngineUnknown)


@pytest.mark.parametrize(
    ("found", "whose"),
    [
        (labels.owner_labels("l2"), "ledger l2"),
        ({}, "something that is not"),
        (None, "something that is not"),
    ],
)
def test_an_engine_that_is_claimed_is_refused_with_the_holders_id(
    found: dict[str, str] | None, whose: str
) -> None:
    volume = Answer(body={"Name": "gpus-owner", "Labels": found})
    table = {"POST /volumes/create": volume, "GET /volumes/gpus-owner": volume}
    with (
        engine_with(table) as (_, client),
        pytest.raises(EngineConflict, match=f"belongs to {whose}.*docker volume rm gpus-owner"),
    ):
        owner.claim_engine(client, "l1")


def test_a_404_that_is_not_dockers_own_says_nothing_about_who_owns_the_engine() -> None:
    lost = Answer(status=404, body={"message": "page not found"})
    absent = Answer(status=404, body={"message": "get gpus-owner: no such volume"})
    with engine_with({"GET /volumes/gpus-owner": [lost, absent]}) as (_, client):
        with pytest.raises(EngineUnknown):
            owner.engine_owner(client)
        assert owner.engine_owner(client) is None
