"""Stock DockerSpawner and ours in the same trouble; the page in the docs says what comes of it."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.stock import page
from tests.stock.scenarios import SCENARIOS, Outcome, Scenario, play
from tests.stock.sides import Ours, Stock

#: set, the page is written instead of compared
WRITE = "GPUS_WRITE_DOCS"


@pytest.fixture(scope="module")
def rows(
    engine: Any, docker_client: Any, stub_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[dict[str, Any]]]:
    """What came of each scenario, by the class that was tried."""
    sides = [
        kind(engine, docker_client, tmp_path_factory.mktemp(kind.__name__), stub_image)
        for kind in (Stock, Ours)
    ]
    try:
        for side in sides:
            side.hub.start()
        yield play(sides)
    finally:
        for side in sides:
            print(side.title, side.hub.last_words(60))
            side.close()


@pytest.mark.parametrize("number", range(len(SCENARIOS)), ids=[s.play.__name__ for s in SCENARIOS])
def test_ours_keeps_what_must_hold(rows: list[dict[str, Any]], number: int) -> None:
    scenario: Scenario = SCENARIOS[number]
    for title, outcome in rows[number].items():
        assert isinstance(outcome, Outcome), f"{title}: {scenario.title}: {outcome!r}"
    ours = rows[number]["GPUDockerSpawner"]
    assert ours.kept, f"{scenario.title}: {ours.seen}"


def test_the_page_says_what_was_seen(rows: list[dict[str, Any]], docker_client: Any) -> None:
    text = page.render(rows, versions(docker_client.version()["Version"]))
    if os.environ.get(WRITE):
        page.PAGE.write_text(text)
    written = page.PAGE.read_text().splitlines()
    assert text.splitlines() == written, f"run it with {WRITE}=1 and look at what changed"


def versions(engine: str) -> str:
    """What was compared on what, to the minor version."""
    names = {"DockerSpawner": "dockerspawner", "JupyterHub": "jupyterhub"}
    found = {title: importlib.metadata.version(name) for title, name in names.items()}
    found["Docker"] = engine
    return ", ".join(f"{name} {'.'.join(v.split('.')[:2])}" for name, v in found.items())


def test_the_page_lies_with_the_reference() -> None:
    assert page.PAGE.parent == Path(__file__).resolve().parents[2] / "docs" / "reference"
