"""Each call of the spawner x each fault of Docker: one sentence for the user, and no residue.

All cases run at once when the first test asks for one, each with a user of its own; then each
test judges one. The auditor watches the whole of it.
"""

from __future__ import annotations

import asyncio

import pytest

from tests.auditor import Verdict
from tests.faults import words
from tests.faults.cases import PHASES, Bench, Outcome, run_case
from tests.faults.driver import run
from tests.faults.stories import auditor_of

#: cases at a time
TOGETHER = 6

Key = tuple[str, str, str]


@pytest.fixture(scope="module")
def wanted(request: pytest.FixtureRequest) -> list[Key]:
    """The cases that were selected: what nobody asks for is not run."""
    chosen = []
    for item in request.session.items:
        spec = getattr(item, "callspec", None)
        if spec is not None and "case" in spec.params and item.module is request.module:
            chosen.append(spec.params["case"])
    return chosen


@pytest.fixture(scope="module")
def ran(bench: Bench, wanted: list[Key]) -> tuple[dict[Key, Outcome], Verdict]:
    """The outcome of each case, and the auditor's verdict on all of them."""
    auditor = auditor_of(bench)
    outcomes: dict[Key, Outcome] = {}

    async def one(number: int, key: Key, turn: asyncio.Semaphore) -> None:
        async with turn:
            outcomes[key] = await run_case(bench, f"case{number}", *key)

    async def all_of_them() -> None:
        turn = asyncio.Semaphore(TOGETHER)
        await asyncio.gather(*(one(n, key, turn) for n, key in enumerate(wanted)))

    with auditor.watching():
        run(all_of_them())
    return outcomes, auditor.judge(running=set())


@pytest.mark.parametrize("phase", PHASES)
def test_every_call_that_the_spawner_makes_is_in_the_table(bench: Bench, phase: str) -> None:
    outcome = run(run_case(bench, f"normal-{phase}", phase, "", ""))
    assert outcome.problems == []
    assert set(outcome.calls) == set(words.TABLE[phase])


@pytest.mark.parametrize("case", words.cases(), ids=" ".join)
def test_a_fault_leads_to_one_sentence_and_leaves_nothing(
    ran: tuple[dict[Key, Outcome], Verdict], case: Key
) -> None:
    phase, call, fault = case
    outcome = ran[0][case]
    expected = words.TABLE[phase][call][fault]
    assert outcome.problems == []
    assert outcome.fired, f"it was not called: {outcome.calls}"
    assert outcome.words in ([expected] if isinstance(expected, str) else expected)
    if phase in ("start", "pull"):
        # the pending page ends with the same sentence, and says it once
        assert outcome.said.count(outcome.words) == (1 if outcome.words else 0)
        assert outcome.words in ("", outcome.said[-1])
    if phase in ("start", "poll"):
        assert outcome.running == (outcome.words == ""), outcome


def test_the_auditor_finds_nothing_doubled_lost_or_left(
    ran: tuple[dict[Key, Outcome], Verdict],
) -> None:
    assert ran[1].ok, str(ran[1])
