"""Death and faults at each await and each exchange; then a restart, and the auditor's verdict.

Which cases run is a fixed share (``matrix.SHARE``); ``./run-tests long`` plays every one.
A single case: ``python -m tests.crash case SCENARIO 'ROLE|POINT' FAULT``.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.crash import matrix
from tests.crash.matrix import Workshop
from tests.crash.points import FAULTS
from tests.crash.scenarios import SCENARIOS

#: the cases are dealt out to this many tests, for pytest-xdist and for the patience of people
PARTS = 12
#: the processes that are killed
ROLES = ("hub", "scheduler")
#: percent of the chosen cases that may miss their point: what comes first is left to chance
MISSED = 10


@pytest.fixture(scope="session")
def shop() -> Iterator[Workshop]:
    with Workshop() as made:
        yield made


@pytest.fixture(scope="session")
def points(shop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Scenario -> its points; recorded once for all workers, so that all deal the same cases."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    file = shared / "crash-points.json"
    with open(shared / "crash-points.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not file.exists():
            file.write_text(json.dumps(shop.record(list(SCENARIOS))))
            print_points(file)
    found: dict[str, list[str]] = json.loads(file.read_text())
    return found


def print_points(file: Path) -> None:
    """The list, for whoever wants to read it; pytest shows it for a failed test."""
    for name, found in json.loads(file.read_text()).items():
        for point in found:
            print(name, point)


@pytest.fixture(scope="session")
def chosen(points: dict[str, list[str]]) -> list[matrix.Case]:
    return matrix.choose(points)


@pytest.mark.parametrize("name", SCENARIOS)
def test_an_operation_hits_the_points_that_it_must(name: str, points: dict[str, list[str]]) -> None:
    assert matrix.complaints(SCENARIOS[name], points[name]) == []


def test_points_are_found_in_every_module_that_waits(shop: Workshop) -> None:
    """Instrumentation reads the source: a module with a coroutine has points."""
    package = Path(matrix.__file__).parents[2] / "jupyterhub_gpuspawner"
    for path in package.rglob("*.py"):
        module = ".".join(path.relative_to(package).with_suffix("").parts)
        if module in shop.zygote.loaded and "await " in path.read_text():
            assert shop.zygote.found.get(module, 0) > 0, module
    assert len(shop.zygote.found) >= 20


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(PARTS))
def test_nothing_is_doubled_lost_leaked_or_stopped(
    part: int,
    shop: Workshop,
    chosen: list[matrix.Case],
    record_property: Callable[[str, str], None],
) -> None:
    mine = chosen[part::PARTS]
    outcome = shop.play(mine)
    record_property("crash", json.dumps(asdict(outcome.counts)))
    print(outcome.counts)
    assert not outcome.failed, matrix.report(outcome.failed)
    assert outcome.counts.missed <= max(2, len(mine) * MISSED // 100), [
        str(result.case) for result in outcome.results if not result.struck
    ]


def test_the_share_holds_the_kill_of_its_own_process_at_every_point(
    points: dict[str, list[str]], chosen: list[matrix.Case]
) -> None:
    every = {point for found in points.values() for point in found}
    for role in ROLES:
        own = {point for point in every if point.startswith(f"{role}|")}
        assert len(own) > 100
        assert own <= {case.point for case in chosen if case.fault == f"kill-{role}"}


def test_the_share_holds_a_part_of_all_other_faults(
    points: dict[str, list[str]], chosen: list[matrix.Case]
) -> None:
    """Which ones is up to a hash: the bounds are well below the share's percents."""
    every = {point for found in points.values() for point in found}
    for role, other in zip(ROLES, reversed(ROLES), strict=True):
        foreign = {point for point in every if point.startswith(f"{other}|")}
        killed = {case.point for case in chosen if case.fault == f"kill-{role}"} & foreign
        assert len(killed) > len(foreign) // 4
    assert {case.fault for case in chosen} == set(FAULTS)
    assert len(chosen) > 600
