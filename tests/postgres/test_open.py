"""Opening a ledger on PostgreSQL: what is wrong is said in one line, without the password."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from jupyterhub_gpuspawner.errors import LedgerError, LedgerLocked
from jupyterhub_gpuspawner.scheduler.decisions import LeaseStored
from jupyterhub_gpuspawner.store import Ledger, Snapshot
from jupyterhub_gpuspawner.store.tables import REVISION, VERSION_TABLE, metadata
from tests.postgres.cluster import Cluster
from tests.postgres.conftest import PostgresPlace, one_line
from tests.unit.store_values import grant, lease


def test_an_empty_database_becomes_a_ledger(cluster: Cluster, place: PostgresPlace) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    cluster.database(place.name)
    with pytest.raises(LedgerError, match=f"revision none and needs {REVISION}: start the"):
        Ledger.open(place.url, migrate=False)
    with Ledger.open(place.url) as ledger:
        assert (len(ledger.id), ledger.epoch, ledger.load()) == (32, 0, Snapshot())
        with ledger._database.transaction(write=False) as connection:
            options = {"version_table": VERSION_TABLE, "compare_type": True}
            context = MigrationContext.configure(connection, opts=options)
            assert compare_metadata(context, metadata) == []
            assert context.get_current_revision() == REVISION
        found = ledger.id
    # also by the short form of the URL
    with Ledger.open(place.url.replace("+psycopg", "")) as again:
        assert again.id == found


def test_a_ledger_of_another_database_on_the_same_server_is_free(
    place: PostgresPlace, cluster: Cluster, template: str
) -> None:
    with place.new() as one, PostgresPlace(cluster, template).new() as other:
        one.commit(grant(1), now=0.0)
        assert other.load() == Snapshot()
        with pytest.raises(LedgerLocked, match=place.holder(0)) as caught:
            Ledger.open(place.url)
        one_line(caught.value)


def _wrong_password(cluster: Cluster, name: str) -> str:
    cluster.database(name)
    return cluster.url(name, password="p%40ss-wrong")


def _unknown_user(cluster: Cluster, name: str) -> str:
    return cluster.url(name, user="nobody")


def _no_password(cluster: Cluster, name: str) -> str:
    return f"postgresql://gpus@127.0.0.1:{cluster.port}/{name}"


def _unknown_database(cluster: Cluster, name: str) -> str:
    return cluster.url(name)


def _wrong_port(cluster: Cluster, name: str) -> str:
    return cluster.url(name).replace(f":{cluster.port}/", ":9/")


def _wrong_host(cluster: Cluster, name: str) -> str:
    return cluster.url(name).replace("@127.0.0.1:", "@nowhere.invalid:")


def _foreign_owner(cluster: Cluster, name: str) -> str:
    cluster.admin(f"CREATE DATABASE {name}")
    return cluster.url(name)


def _other_program(cluster: Cluster, name: str) -> str:
    cluster.database(name)
    cluster.admin("CREATE TABLE users (name text); GRANT ALL ON users TO gpus", name)
    return cluster.url(name)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_wrong_password, "password authentication failed.*look at user and password in the"),
        (_unknown_user, "password authentication failed.*look at user and password in the"),
        (_no_password, "no password supplied.*the ledger's URL needs a password"),
        (_unknown_database, "database .* does not exist; create it: createdb --owner"),
        (_wrong_port, "onnection refused.*; nothing of the change happened; tried again by itself"),
        (_wrong_host, "; nothing of the change happened; tried again by itself"),
        (_foreign_owner, "permission denied.*make the ledger's user the owner of its database"),
        (_other_program, r"tables of another program \(users …\); give the ledger a database of"),
    ],
)
def test_what_can_not_be_opened_is_refused_in_one_clear_line(
    cluster: Cluster, place: PostgresPlace, make: Callable[[Cluster, str], str], words: str
) -> None:
    url = make(cluster, place.name)
    with pytest.raises(LedgerError, match=words) as caught:
        Ledger.open(url)
    assert place.name in one_line(caught.value)
    assert type(caught.value) is LedgerError


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        (f"UPDATE {VERSION_TABLE} SET version_num = '9999'", "written by a newer version"),
        ("DROP TABLE claims", "is damaged: tables claims are missing"),
    ],
)
def test_what_is_no_ledger_of_this_version_is_refused(
    place: PostgresPlace, statement: str, words: str
) -> None:
    place.new().close()
    place.outside(statement)
    for _ in range(2):  # the second time shows that nothing was left locked
        with pytest.raises(LedgerError, match=words) as caught:
            Ledger.open(place.url)
        one_line(caught.value)


def test_a_name_that_the_database_refuses_is_refused_in_one_line(place: PostgresPlace) -> None:
    with place.new() as ledger:
        wrong = LeaseStored(lease=lease("a", user="a\x00b"))
        with pytest.raises(LedgerError, match=r"NUL .*nothing .*happened") as caught:
            ledger.commit([*grant(1), wrong], now=0.0)
        one_line(caught.value)
        assert ledger.load() == Snapshot()


def test_the_pages_statements_make_what_the_ledger_needs(cluster: Cluster) -> None:
    page = (Path(__file__).parents[2] / "docs/howto/use-postgresql.md").read_text()
    (block,) = re.findall(r"```sql\n(.+?)```", page, re.DOTALL)
    cluster.admin("ALTER ROLE gpus RENAME TO gpus_of_the_tests")
    try:
        for statement in block.strip().splitlines():
            cluster.admin(statement)
        for database in ("gpuledger", "gpuhub"):
            Ledger.open(cluster.url(database, password="CHANGE-ME")).close()
    finally:
        cluster.admin("DROP DATABASE IF EXISTS gpuledger")
        cluster.admin("DROP DATABASE IF EXISTS gpuhub")
        cluster.admin("DROP ROLE IF EXISTS gpus")
        # its password went with its name
        cluster.admin("ALTER ROLE gpus_of_the_tests RENAME TO gpus")


def test_a_backup_names_the_tool_of_the_database(place: PostgresPlace) -> None:
    with place.new() as ledger, pytest.raises(LedgerError, match=r"use its tool \(pg_dump\)"):
        ledger.backup("/nowhere/copy")
