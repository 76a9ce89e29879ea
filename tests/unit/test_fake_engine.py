"""The fake engine's own knobs: what only it has, so no real engine can be compared with it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import docker
import docker.errors
import pytest
import requests
from urllib3.util import Retry

from tests.auditor import Auditor
from tests.auditor.history import PREFIX
from tests.fake_engine import FakeEngine

# real sockets, files or processes
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeEngine]:
    with FakeEngine(tmp_path_factory.mktemp("engine") / "sock") as engine:
        yield engine


@pytest.fixture
def fake(process: FakeEngine) -> FakeEngine:
    process.reset()
    return process


@pytest.fixture
def api(fake: FakeEngine) -> Iterator[docker.APIClient]:
    client = docker.APIClient(base_url=fake.base_url, version="1.45", timeout=5)
    yield client
    client.close()


def create(api: docker.APIClient, name: str = "one", **more: Any) -> str:
    return str(api.create_container("stub", name=name, **more)["Id"])


def test_a_fault_strikes_the_call_it_names_and_only_as_often(
    fake: FakeEngine, api: docker.APIClient
) -> None:
    fake.fault("GET /containers/json", "status", status=503, message="busy", skip=1)
    assert api.containers() == []
    with pytest.raises(docker.errors.APIError, match="busy"):
        api.containers()
    assert api.containers() == []


def test_a_lost_answer_is_lost_after_the_effect(fake: FakeEngine, api: docker.APIClient) -> None:
    fake.fault("POST /containers/create", "lost")
    with pytest.raises(requests.ConnectionError):
        create(api)
    assert [row["Names"] for row in api.containers(all=True)] == [["/one"]]


def test_a_cut_call_has_no_effect(fake: FakeEngine, api: docker.APIClient) -> None:
    fake.fault("POST /containers/create", "cut")
    with pytest.raises(requests.ConnectionError):
        create(api)
    assert api.containers(all=True) == []


def test_a_slow_create_goes_on_when_its_client_has_hung_up(
    fake: FakeEngine, api: docker.APIClient
) -> None:
    fake.fault("POST /containers/create", "slow", seconds=0.3)
    impatient = docker.APIClient(base_url=fake.base_url, version="1.45", timeout=0.1)
    with pytest.raises(requests.ReadTimeout):
        create(impatient)
    impatient.close()
    until = time.monotonic() + 10
    while not api.containers(all=True):
        assert time.monotonic() < until


def test_a_broken_answer_is_no_json(fake: FakeEngine, api: docker.APIClient) -> None:
    fake.fault("GET /info", "broken")
    with pytest.raises(requests.JSONDecodeError):
        api.info()


def test_a_container_ends_when_the_test_says_so(fake: FakeEngine, api: docker.APIClient) -> None:
    one = create(api)
    api.start(one)
    fake.log(one, "last words")
    fake.die(one, 137, oom=True)
    state = api.inspect_container(one)["State"]
    assert (state["Status"], state["ExitCode"], state["OOMKilled"]) == ("exited", 137, True)
    assert api.logs(one) == b"last words"


def test_a_container_that_runs_answers_on_its_address(api: docker.APIClient) -> None:
    one = create(api, ports=[(8888, "tcp")])
    api.start(one)
    address = api.inspect_container(one)["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    session = requests.Session()
    patience = Retry(connect=10, backoff_factor=0.01)
    session.mount("http://", requests.adapters.HTTPAdapter(max_retries=patience))
    assert session.get(f"http://{address}:8888/user/a/api", timeout=5).json() == {"version": "stub"}
    session.close()
    api.stop(one)
    with pytest.raises(requests.ConnectionError):
        requests.get(f"http://{address}:8888/", timeout=5)


def test_the_auditor_reads_it_as_a_real_one(fake: FakeEngine, api: docker.APIClient) -> None:
    labels = {PREFIX + "ledger": "l", PREFIX + "kind": "server", PREFIX + "devices": "S-0"}
    auditor = Auditor([fake.socket], "l")
    for name in ("alice", "bob"):
        host = api.create_host_config(binds=["/dev/null:/run/gpus/S-0:ro"])
        api.start(create(api, name, labels={**labels, PREFIX + "name": name}, host_config=host))
    auditor.replay(0)
    verdict = auditor.judge(running={"alice", "bob"})
    assert verdict.double_grants == len(verdict.details) == 1, verdict


def test_it_tells_which_calls_it_got(fake: FakeEngine, api: docker.APIClient) -> None:
    api.containers()
    assert fake.calls() == ["GET /containers/json"]
