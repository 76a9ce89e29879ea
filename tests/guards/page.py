"""The pages that list the guards and the seeded faults, for the reference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.guards.listed import Guard, by_model

_FOLDER = Path(__file__).resolve().parents[2] / "docs" / "reference"
PAGE = _FOLDER / "guards.md"
MUTATIONS_PAGE = _FOLDER / "seeded-faults.md"

_HEAD = """\
# Guards of the start and of the release

Made by `python -m tests.guards --write` from `tests/guards/guards.diff`. Do not edit.

That no GPU is given out twice, and that nothing that runs is stopped, rests on these {count} places
in the code. `./run-tests guards` takes each of them away, one at a time, and fails unless the test
beside it fails: none of them can be lost by accident. S1 to S12 are the invariants of
[the architecture](../explanation/architecture.md).
The last column is about the code that the [searches of all worlds](../explanation/proof.md) run.
`./run-tests proof` wants a search to fail as well: *yes* the smallest one, *two servers* the one
that has two, *trouble* the one whose node is in trouble. Of these {searched} guards they see
{seen}; *no* says why they can't see the others.

| Guard | It keeps | Where | Fails without it | Search |
|---|---|---|---|---|
"""

_MUTATIONS_HEAD = """\
# Seeded faults

Made by `python -m tests.guards --write` from `tests/guards/mutations.diff`. Do not edit.

Each of these {count} faults is put into a copy of the code by `./run-tests guards`, one at a time.
It fails unless the test beside the fault fails. What else is proven, and how, is in
[proof](../explanation/proof.md).

| Fault | It breaks | Where | Caught by |
|---|---|---|---|
"""


def render(guards: Sequence[Guard]) -> str:
    """The whole page of the guards, as Markdown."""
    searched = [guard for guard in guards if guard.model]
    text = _HEAD.format(count=len(guards), searched=len(searched), seen=len(by_model(searched)))
    for guard in guards:
        text += f"{_row(guard)} {guard.model} |\n"
    return text


def render_mutations(faults: Sequence[Guard]) -> str:
    """The whole page of the seeded faults."""
    return _MUTATIONS_HEAD.format(count=len(faults)) + "".join(f"{_row(f)}\n" for f in faults)


def _row(guard: Guard) -> str:
    test = guard.test.rpartition("/")[2].replace(".py::", ": ").replace("_", " ")
    return f"| {guard.title} | {guard.keeps} | `{guard.file}` | {test} |"
