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
