"""A story: what some users do and meet while the auditor watches. In the end nothing is left."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from tests.auditor import Auditor
from tests.faults.cases import Bench, Case
from tests.faults.driver import run

Story = Callable[[], Coroutine[Any, Any, None]]


def auditor_of(bench: Bench) -> Auditor:
    """Watches the engine of a bench, and reads the ledger of its service."""
    auditor = Auditor(sockets=[str(bench.engine)], ledger=bench.service.ledger_id())
    auditor.book(bench.service.ledger_file)
    return auditor


def tell(bench: Bench, story: Story, auditor: Auditor | None = None) -> None:
    """Run a story while the auditor watches; afterwards nothing may be left."""
    auditor = auditor or auditor_of(bench)
    with auditor.watching():
        run(story())
    verdict = auditor.judge(running=set())
    assert verdict.ok, str(verdict)


async def well(*cases: Case) -> None:
    """All stop, and nothing is left."""
    for case in cases:
        await case.person.stop()
        await case.nothing_left()
        assert case.outcome.problems == []
        await case.close()
