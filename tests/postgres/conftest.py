"""Ledgers on a real PostgreSQL server. The fixtures have the names of ``tests/unit``'s."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from jupyterhub_gpuspawner.errors import LedgerLocked
from jupyterhub_gpuspawner.store import Ledger
from tests.postgres.cluster import Cluster, binaries, new_name
from tests.unit.store_values import Place, Places


class PostgresPlace:
    """A :class:`Place` that is a database."""

    # the child has the session's socket too; nothing in the product forks and does not exec
    forks = False

    def __init__(self, cluster: Cluster, template: str) -> None:
        self.cluster = cluster
        self.name = new_name()
        self.url = cluster.url(self.name)
        self._template = template

    def new(self) -> Ledger:
        # as if it had been opened here: migrating each time would take most of the tests' time
        self.cluster.database(self.name, template=self._template)
        ledger = Ledger.open(self.url)
        ledger.raise_epoch()
        return ledger

    def make_empty(self) -> None:
        self.cluster.database(self.name)

    def outside(self, statement: str) -> None:
        self.cluster.admin(statement, self.name)

    def holder(self, pid: int) -> str:
        found = self.cluster.admin(
            "SELECT pg_locks.pid FROM pg_locks JOIN pg_database ON database = pg_database.oid "
            f"WHERE locktype = 'advisory' AND datname = '{self.name}'"
        )
        return f"in use by the database session with pid {found[0][0]}; one scheduler may"

    def open_freed(self, *, migrate: bool = True) -> Ledger:
        # the server notices a moment after the kernel that a process is gone
        until = time.monotonic() + 30
        while True:
            try:
                return Ledger.open(self.url, migrate=migrate)
            except LedgerLocked:
                assert time.monotonic() < until
                time.sleep(0.05)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The server."""
    if binaries() is None:
        pytest.skip("no PostgreSQL server: apt-get install postgresql")
    cluster = Cluster()
    try:
        cluster.create()
        yield cluster
    finally:
        cluster.destroy()


@pytest.fixture(scope="session")
def template(cluster: Cluster) -> str:
    """Name of a database with an empty ledger."""
    name = cluster.database()
    Ledger.open(cluster.url(name)).close()
    return name


@pytest.fixture
def place(cluster: Cluster, template: str) -> PostgresPlace:
    """A place without a ledger."""
    cluster.start()  # a test may have stopped it
    return PostgresPlace(cluster, template)


@pytest.fixture(scope="session")
def places(cluster: Cluster, template: str) -> Places:
    """Makes places, for tests that need many."""

    @contextmanager
    def make() -> Iterator[Place]:
        place = PostgresPlace(cluster, template)
        yield place
        cluster.admin(f"DROP DATABASE {place.name}")

    return make


def one_line(error: BaseException) -> str:
    """An error's text; fails where it is more than one line, or has a password in it."""
    text = str(error)
    assert not re.search(r"\n|p@ss|p%40ss", text), text
    return text
