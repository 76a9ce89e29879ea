"""The page that lists the guards, for the reference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.guards.listed import Guard

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "guards.md"

_HEAD = """\
# Guards of the start and of the release

Made by `python -m tests.guards --write` from `tests/guards/guards.diff`. Do not edit.

That no GPU is given out twice, and that nothing that runs is stopped, rests on these {count} places
in the code. `./run-tests guards` takes each of them away, one at a time, and fails unless the test
beside it fails: none of them can be lost by accident. S1 to S12 are the invariants of
[the architecture](../explanation/architecture.md).

| Guard | It keeps | Where | Fails without it |
|---|---|---|---|
"""


def render(guards: Sequence[Guard]) -> str:
    """The whole page, as Markdown."""
    text = _HEAD.format(count=len(guards))
    for guard in guards:
        test = guard.test.rpartition("/")[2].replace(".py::", ": ").replace("_", " ")
        text += f"| {guard.title} | {guard.keeps} | `{guard.file}` | {test} |\n"
    return text
