"""The auditor on a real engine: it sees through the engine and through the kernel."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import docker
import pytest

from tests.auditor import Auditor
from tests.auditor.history import PREFIX
from tests.testbed.engine import Engine
from tests.testbed.images import ensure_base

SLEEP = ["sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait"]
LEDGER = "auditors-own"


@pytest.fixture
def serve(
    docker_client: docker.DockerClient, run_container: Callable[..., Any]
) -> Callable[..., Any]:
    image = ensure_base(docker_client)

    def run(name: str, device: str, **options: Any) -> Any:
        labels = {
            PREFIX + "ledger": LEDGER,
            PREFIX + "kind": "server",
            PREFIX + "name": name,
            PREFIX + "devices": device,
        }
        binds = [f"/dev/null:/run/gpus/{device}:ro"]
        return run_container(image, SLEEP, labels=labels, **{"volumes": binds, **options})

    return run


def test_a_clean_day_is_clean_and_a_shared_device_is_seen(
    engine: Engine, serve: Callable[..., Any]
) -> None:
    auditor = Auditor([engine.socket], LEDGER)
    with auditor.watching():
        first = serve("alice", "S-0")
        first.remove(force=True)
        second = serve("bob", "S-0")
        auditor.protect("bob")
        assert auditor.judge(running={"bob"}).ok, auditor.judge(running={"bob"})
        serve("carol", "S-0")
    verdict = auditor.judge(running={"bob", "carol"})
    assert verdict.double_grants == len(verdict.details) == 1, verdict
    second.stop(timeout=1)
    verdict = auditor.judge(running={"carol"})
    assert (verdict.stopped_running, verdict.leaked_containers) == (1, 1), verdict


def test_what_the_kernel_shows_counts_although_the_label_is_silent(
    engine: Engine, serve: Callable[..., Any]
) -> None:
    auditor = Auditor([engine.socket], LEDGER)
    cdi = docker.types.DeviceRequest(
        driver="cdi", device_ids=[f"nvidia.com/gpu={engine.device_ids[1]}"]
    )
    with auditor.watching():
        serve("alice", engine.device_ids[0], volumes=[], device_requests=[cdi])
    verdict = auditor.judge(running={"alice"})
    assert verdict.wrong_devices == 2, verdict
    assert engine.device_ids[1] in str(verdict)


def test_a_life_between_two_looks_is_heard_in_the_events(
    engine: Engine, serve: Callable[..., Any]
) -> None:
    auditor = Auditor([engine.socket], LEDGER)
    begun = time.time()
    serve("alice", "S-0")
    short = serve("bob", "S-0")
    short.remove(force=True)
    auditor.replay(begun)
    assert auditor.judge(running={"alice"}).double_grants == 1
