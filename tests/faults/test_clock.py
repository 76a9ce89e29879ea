"""The machine's clock is moved by a day, forward and back, while servers run and others wait.

A small library (``movedclock.c``), preloaded into the service's processes alone, adds what stands
in a file to the time of day; the monotonic clock goes on as it is, as on a real machine.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.compiled import compiled
from tests.docker.service_process import wait_for
from tests.faults.cases import Bench, Case
from tests.faults.conftest import MakeService
from tests.faults.stories import auditor_of, tell, well
from tests.testbed.engine import Engine

SOURCE = Path(__file__).with_name("movedclock.c")
DAY = 86400


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library, compiled."""
    return compiled(SOURCE, tmp_path_factory.mktemp("clock") / "movedclock.so")


class Moved:
    """A service whose clock can be moved."""

    def __init__(self, bench: Bench, file: Path) -> None:
        self.bench = bench
        self._file = file

    def move(self, seconds: int) -> None:
        """Move the clock by so much from the real time, and wait until the service saw it."""
        draft = self._file.with_suffix(".draft")
        draft.write_text(f"{seconds}\n")
        draft.replace(self._file)
        said = f"the machine's clock was moved, by {'+' if seconds > 0 else '-'}"
        log = self.bench.service.log
        wait_for("the service sees the new time", lambda: said in log.read_text(), 30)


@pytest.fixture
def moved(
    engine: Engine, docker_client: Any, stub_image: str, make_service: MakeService, library: Path
) -> Iterator[Moved]:
    folder = Path(tempfile.mkdtemp(dir=library.parent))
    file = folder / "time"
    file.write_text("0\n")
    service = make_service(
        engine, "clock", reconcile_interval=1, exited_grace=3, claim_engine=False
    )
    service.start(LD_PRELOAD=str(library), MOVED_CLOCK=str(file))
    service.wait_serving()
    bench = Bench(
        service=service,
        client=docker_client,
        engine=engine.socket,
        folder=folder,
        image=stub_image,
    )
    yield Moved(bench, file)
    service.end()


@pytest.mark.parametrize("by", [DAY, -DAY], ids=["a day forward", "a day back"])
def test_a_moved_clock_ends_nothing_and_holds_nothing_back(moved: Moved, by: int) -> None:
    bench = moved.bench
    auditor = auditor_of(bench)

    async def story() -> None:
        alice, bob, carol = (Case(bench, name) for name in ("alice", "bob", "carol"))
        assert await alice.person.start() == ""
        assert await carol.person.start() == ""
        auditor.protect("alice")
        held = await alice.leased()
        # bob is in the middle of his start when the clock moves
        rule = bob.socket.arm("POST /containers/create", "slow", delay=6.0)
        start = asyncio.create_task(bob.person.start())
        await asyncio.to_thread(rule.fired.wait, 20)
        await asyncio.to_thread(moved.move, by)
        assert await start == "", "he is not told that he took too long"
        assert await alice.leased() == held
        assert await alice.person.poll() is None
        # carol's Hub is away, so the service has to see the end and to clear up
        carol.socket.refuse()
        (container,) = await carol.containers()
        await asyncio.to_thread(container.kill)
        await carol.nothing_left()
        carol.socket.heal()
        auditor.release("alice")
        await well(alice, bob, carol)

    tell(bench, story, auditor)
