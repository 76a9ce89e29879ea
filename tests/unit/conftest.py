"""Where the ledgers of the unit tests are. ``tests/postgres`` has the same names."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.unit.store_values import Place, Places, SQLitePlace

# In memory where that is possible: durability is not what most tests are about.
_FOLDER = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave files that are slow as a whole unread where only quick tests are asked for.

    Half of the time that the quick ones take would go into importing the others.
    """
    if config.getoption("markexpr") != "not slow" or collection_path.suffix != ".py":
        return None
    return "\npytestmark = pytest.mark.slow\n" in collection_path.read_text() or None


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A place without a ledger."""
    return SQLitePlace(tmp_path / "ledger.sqlite")


@pytest.fixture(scope="session")
def places() -> Places:
    """Makes places, for tests that need many."""

    @contextmanager
    def make() -> Iterator[Place]:
        with tempfile.TemporaryDirectory(dir=_FOLDER) as folder:
            yield SQLitePlace(Path(folder) / "ledger.sqlite")

    return make
