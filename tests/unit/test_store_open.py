"""Opening a ledger: where it may be, who may have it, and which version wrote it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy.exc import DBAPIError

from jupyterhub_gpuspawner.errors import DoubleClaim, LedgerError, LedgerFull, LedgerLocked
from jupyterhub_gpuspawner.store import Ledger, Snapshot
from jupyterhub_gpuspawner.store.failures import translate
from jupyterhub_gpuspawner.store.tables import REVISION, VERSION_TABLE, metadata
from tests.unit.store_values import grant, new_ledger

# real sockets, files or processes
pytestmark = pytest.mark.slow

_NOBODY = 65534


def test_a_new_ledger_is_private_and_empty(tmp_path: Path) -> None:
    path = tmp_path / "state" / "ledger.sqlite"
    old = os.umask(0)
    try:
        with Ledger.open(f"sqlite:///{path}") as ledger:
            assert (len(ledger.id), ledger.epoch, ledger.load()) == (32, 0, Snapshot())
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert modes == {f"ledger.sqlite{tail}": 0o600 for tail in ("", "-wal", "-shm", ".lock")}


def test_each_ledger_has_an_id_of_its_own(tmp_path: Path) -> None:
    with (
        Ledger.open(f"sqlite:///{tmp_path / 'one'}") as one,
        Ledger.open(f"sqlite:///{tmp_path / 'two'}") as two,
    ):
        assert one.id != two.id


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("not a url", "URL can't be read"),
        ("sqlite://", "in memory forgets every lease at a restart; give a file"),
        ("sqlite:///:memory:", "in memory forgets every lease"),
        ("sqlite:///file:x?uri=true", "takes a file path and nothing else"),
        ("postgresql://u@h/db?password=secret", "password after the"),
        ("postgresql+asyncpg://u:secret@h/db", "no other driver is tested"),
        ("mysql://u:secret@h/db", r"mysql://u:\*\*\*@h/db: mysql is not supported; use sqlite or"),
    ],
)
def test_a_wrong_url_is_refused_with_what_to_do(url: str, words: str) -> None:
    with pytest.raises(LedgerError, match=words) as caught:
        Ledger.open(url)
    assert "secret" not in str(caught.value)


def test_a_missing_driver_is_named_with_the_command_that_brings_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    words = r"psycopg is missing; run: pip install 'jupyterhub-gpuspawner\[postgresql\]'$"
    with pytest.raises(LedgerError, match=words):
        Ledger.open("postgresql://gpus:secret@h/db")


def _directory(path: Path) -> None:
    path.mkdir()


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _other_file(path: Path) -> None:
    path.write_text("c.JupyterHub.ip = '127.0.0.1'\n")


def _damaged_header(path: Path) -> None:
    new_ledger(path).close()
    content = path.read_bytes()
    path.write_bytes(content[:16] + b"\xff" * 84 + content[100:])


def _damaged_page(path: Path) -> None:
    new_ledger(path).close()
    content = bytearray(path.read_bytes())
    content[4096 * 3 : 4096 * 5] = os.urandom(1) * (4096 * 2)
    path.write_bytes(content)


def _cut_short(path: Path) -> None:
    new_ledger(path).close()
    os.truncate(path, 4096 * 4)


def _other_program(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE users (name TEXT)")
    connection.close()


def _newer_version(path: Path) -> None:
    new_ledger(path).close()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    connection.close()


def _lost_table(path: Path) -> None:
    new_ledger(path).close()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("DROP TABLE claims")
    connection.close()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_directory, "is a folder; give the path of a file in it"),
        (_fifo, "is not a regular file"),
        (_other_file, "is not an SQLite database; move that file away"),
        (_damaged_header, "restore a backup or move it away"),
        (_damaged_page, "damaged.*restore a backup or move it away"),
        (_cut_short, "damaged.*restore a backup or move it away"),
        (_other_program, r"tables of another program \(users …\); give the ledger a database of"),
        (_newer_version, "written by a newer version .its revision is 9999, this version knows"),
        (_lost_table, "is damaged: tables claims are missing"),
    ],
)
def test_what_is_no_ledger_of_ours_is_refused_in_one_clear_line(
    tmp_path: Path, make: Callable[[Path], None], words: str
) -> None:
    path = tmp_path / "ledger.sqlite"
    make(path)
    for _ in range(2):  # the second time shows that nothing was left locked
        with pytest.raises(LedgerError, match=words) as caught:
            Ledger.open(f"sqlite:///{path}")
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert type(caught.value) is LedgerError


def test_a_missing_parent_folder_is_not_invented(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match=r"/nowhere does not exist; create it$"):
        Ledger.open(f"sqlite:///{tmp_path}/nowhere/state/ledger.sqlite")
    (tmp_path / "file").touch()
    with pytest.raises(LedgerError, match="/file is not a folder"):
        Ledger.open(f"sqlite:///{tmp_path}/file/ledger.sqlite")


@pytest.fixture
def as_somebody() -> Iterator[Path]:
    """A folder of an ordinary user, and this process as that user: root may write anything."""
    folder = Path(tempfile.mkdtemp())
    root = os.geteuid() == 0
    if root:
        os.chown(folder, _NOBODY, _NOBODY)
        os.seteuid(_NOBODY)
    try:
        yield folder
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o700)
        shutil.rmtree(folder)


def test_a_read_only_file_or_folder_is_named(as_somebody: Path) -> None:
    path = as_somebody / "ledger.sqlite"
    new_ledger(path).close()
    path.chmod(0o400)
    with pytest.raises(LedgerFull, match=r"ledger\.sqlite is not writable by this user"):
        Ledger.open(f"sqlite:///{path}")
    path.chmod(0o600)
    as_somebody.chmod(0o500)
    with pytest.raises(LedgerFull, match=r"the folder .* is not writable by this user"):
        Ledger.open(f"sqlite:///{path}")
    with pytest.raises(LedgerFull, match=r"folder .*/new can't be created: Permission denied"):
        Ledger.open(f"sqlite:///{as_somebody}/new/ledger.sqlite")
    as_somebody.chmod(0o700)
    Ledger.open(f"sqlite:///{path}").close()


def test_the_same_process_can_not_open_it_twice(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    link = tmp_path / "link"
    link.symlink_to(path)
    with new_ledger(path) as ledger:
        for name in (path, link):
            with pytest.raises(LedgerLocked, match=f"in use by process {os.getpid()} .lock"):
                Ledger.open(f"sqlite:///{name}")
        ledger.commit(grant(1), now=0.0)
    with Ledger.open(f"sqlite:///{link}") as again:
        assert len(again.load().leases) == 1


def test_an_empty_database_is_not_upgraded_unasked(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match=f"revision none and needs {REVISION}: start the"):
        Ledger.open(f"sqlite:///{tmp_path}/ledger.sqlite", migrate=False)
    new_ledger(tmp_path / "current").close()
    Ledger.open(f"sqlite:///{tmp_path}/current", migrate=False).close()


def test_the_migrations_make_the_tables_that_the_code_uses(tmp_path: Path) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with (
        new_ledger(tmp_path / "100%") as ledger,
        ledger._database.transaction(write=False) as connection,
    ):
        options = {"version_table": VERSION_TABLE, "compare_type": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []
        assert context.get_current_revision() == REVISION


class _Answer(Exception):
    """A driver's error as psycopg makes it."""

    def __init__(self, text: str, sqlstate: str) -> None:
        super().__init__(text)
        self.sqlstate = sqlstate


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("FATAL: no pg_hba.conf entry for host", "let this machine and user in"),
        ('FATAL: role "x" does not exist', "look at the user in the ledger's URL"),
        ('FATAL: database "x" does not exist', "create it: createdb --owner USER NAME"),
        ("permission denied for schema public", "make the ledger's user the owner"),
        ("FATAL: the database system is starting up", "tried again by itself"),
        ("FATAL: sorry, too many clients already", "tried again by itself"),
    ],
)
def test_what_a_database_server_refuses_comes_with_what_to_do(text: str, advice: str) -> None:
    error = DBAPIError("", {}, _Answer(f"connection failed: {text}", ""))
    assert f"{text}; " in str(translate(error, "x"))
    assert advice in str(translate(error, "x"))


@pytest.mark.parametrize(
    ("text", "sqlstate", "kind"),
    [
        ('duplicate key value violates unique constraint "claims_pkey"', "23505", DoubleClaim),
        ('duplicate key value violates unique constraint "leases_one_live"', "23505", DoubleClaim),
        ('duplicate key value violates unique constraint "meta_pkey"', "23505", LedgerError),
        ("could not extend file: No space left on device", "53100", LedgerFull),
        ("cannot execute INSERT in a read-only transaction", "25006", LedgerFull),
        ("canceling statement due to lock timeout", "55P03", LedgerLocked),
        ("server closed the connection unexpectedly\n", "", LedgerError),
    ],
)
def test_postgresql_errors_have_their_meaning(text: str, sqlstate: str, kind: type) -> None:
    error = DBAPIError("INSERT", {}, _Answer(text, sqlstate))
    translated = translate(error, "postgresql://hub/gpus")
    assert type(translated) is kind
    assert str(translated).startswith(f"ledger postgresql://hub/gpus: {text.strip()}; ")
    assert "Your place in the queue is kept" in translated.user_message
