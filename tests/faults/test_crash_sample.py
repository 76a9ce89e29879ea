"""A fixed sample of the crash matrix on the real engine: same harness, other socket.

The points are recorded on the fake engine; the kills, the containers and the kernel are real.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import docker
import pytest

from tests.crash import matrix
from tests.crash.engines import RealCaseEngine
from tests.crash.matrix import Workshop
from tests.testbed.engine import Engine
from tests.testbed.images import ensure_stub

#: operations of the sample: those in which containers come and go
SAMPLED = ("start", "stop", "grant", "cancel", "poll", "adopt-mid-start")
CASES = 64
#: each test plays one part
PARTS = 4


@pytest.fixture(scope="module")
def sample() -> list[matrix.Case]:
    with Workshop() as shop:
        return matrix.sample(shop.record(SAMPLED), SAMPLED, CASES)


@pytest.fixture(scope="module")
def shop(engine: Engine, docker_client: docker.DockerClient) -> Iterator[Workshop]:
    image = ensure_stub(docker_client)

    def make(folder: Path) -> RealCaseEngine:
        return RealCaseEngine(
            engine.base_url, str(engine.socket), image, str(engine.folder / "cdi"), engine.node
        )

    with Workshop([make]) as made:
        yield made
        made.empty()


def test_the_sample_is_large_enough_and_holds_every_fault(sample: list[matrix.Case]) -> None:
    assert len(sample) >= 60
    assert {case.scenario for case in sample} == set(SAMPLED)
    assert len({case.fault for case in sample}) == 6


@pytest.mark.timeout(900)
@pytest.mark.parametrize("part", range(PARTS))
def test_nothing_is_doubled_lost_leaked_or_stopped_on_a_real_engine(
    part: int,
    shop: Workshop,
    sample: list[matrix.Case],
    record_property: Callable[[str, str], None],
) -> None:
    outcome = shop.play(sample[part::PARTS])
    record_property("crash_real", json.dumps(asdict(outcome.counts)))
    print(outcome.counts)
    assert not outcome.failed, matrix.report(outcome.failed)
