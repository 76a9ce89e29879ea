"""The page of the comparison: made from what was seen, and from nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.stock.scenarios import SCENARIOS, Outcome
from tests.stock.sides import PATIENCE, RECIPE

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "stock-comparison.md"

_HEAD = """\
# DockerSpawner and GPUDockerSpawner in the same trouble

Made by `./run-tests stock`, which does all of this with both on a real engine and fails where it
is not so. Do not edit.

DockerSpawner is a good spawner: it does not set out to share GPUs, and its maintainers say so.
This page shows what is left to you when you add GPUs to it yourself, and what is not.

* {versions}; the same engine, image, limits and two GPUs for both.
* DockerSpawner with `remove = True`, where nothing else is said, and `use_internal_ip = True`, as
  its documentation advises. It gets its GPUs by this hook, which asks the engine what is in use:

```
{recipe}```

* In both: `poll_interval` 1 s and `http_timeout` 8 s, so that what is noticed is noticed soon.
* What "runs", "is left" and "is shown" is looked at up to {patience:g} s later, so that who mends
  it has the time to.

| What happens | What must hold | DockerSpawner | GPUDockerSpawner |
|---|---|---|---|
"""


def render(rows: Sequence[Mapping[str, Outcome]], versions: str) -> str:
    """The whole page, as Markdown."""
    text = _HEAD.format(versions=versions, recipe=RECIPE, patience=PATIENCE)
    for scenario, row in zip(SCENARIOS, rows, strict=True):
        cells = [_cell(row[title]) for title in ("DockerSpawner", "GPUDockerSpawner")]
        text += f"| {scenario.title} | {scenario.rule} | {' | '.join(cells)} |\n"
    return text


def _cell(outcome: Outcome) -> str:
    return f"{'holds' if outcome.kept else '**does not hold**'}: {outcome.seen}"
