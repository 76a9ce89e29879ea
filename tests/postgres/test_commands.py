"""The commands that move and back up a ledger, as programs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jupyterhub_gpuspawner.errors import LedgerError
from jupyterhub_gpuspawner.store import Ledger
from tests import howto
from tests.postgres.cluster import binaries
from tests.postgres.conftest import PostgresPlace
from tests.unit.store_values import SQLitePlace, grant, one_of_each, whole_journal

ROOT = Path(__file__).parents[2]
CLI = [sys.executable, "-m", "jupyterhub_gpuspawner.cli"]

#: a copy that waits when all but the commit is done
_STOPS = """
import signal, sys
from jupyterhub_gpuspawner.store import transfer
def progress(table, done, total):
    if table == "claims":
        print(table, done, flush=True)
        signal.pause()
transfer.copy(*sys.argv[1:], progress)
"""


def test_a_copy_killed_in_the_middle_leaves_the_target_empty_and_may_be_repeated(
    place: PostgresPlace, tmp_path: Path
) -> None:
    source = SQLitePlace(tmp_path / "ledger.sqlite")
    with source.new() as ledger:
        ledger.commit([one for number in range(100) for one in grant(number)], now=0.0)
    place.make_empty()
    urls = [source.url, place.url]
    with subprocess.Popen(
        [sys.executable, "-c", _STOPS, *urls], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "claims 100\n"
        os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(LedgerError, match="revision none"):
        place.open_freed(migrate=False)
    command = [*CLI, "ledger", "copy", *urls]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "read back and found the same; rows: " in done.stdout
    assert "entries 100, journal 200, leases 100" in done.stdout
    assert "p@ss" not in done.stdout + done.stderr
    with Ledger.open(place.url) as copied, Ledger.open(source.url) as original:
        assert copied.id == original.id
        assert copied.load() == original.load()


def test_the_printed_command_makes_a_backup_that_is_a_ledger(
    place: PostgresPlace, tmp_path: Path
) -> None:
    programs = binaries()
    assert programs is not None
    with place.new() as ledger:
        ledger.commit(one_of_each(), now=0.0)
        file = tmp_path / "ledger.dump"
        done = subprocess.run(
            [*CLI, "backup", str(file), "--ledger", place.url],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout) == (1, "")
        command = done.stderr.partition("nothing was copied; run: ")[2]
        environment = {**os.environ, "PGPASSWORD": "p@ss:word/"}
        subprocess.run(f"{programs}/{command}", shell=True, check=True, env=environment)
        rows = whole_journal(ledger)
    restored = place.cluster.database()
    url = place.cluster.url(restored)
    plain = url.replace("+psycopg", "")
    subprocess.run([programs / "pg_restore", f"--dbname={plain}", str(file)], check=True)
    with Ledger.open(url) as again:
        assert again.id == ledger.id
        assert whole_journal(again) == rows


def test_the_commands_of_the_page_dump_restore_and_move_a_ledger(
    place: PostgresPlace, tmp_path: Path
) -> None:
    programs = binaries()
    assert programs is not None

    def run(command: str, database: str) -> None:
        plain = f"postgresql://gpus@127.0.0.1:{place.cluster.port}/{database}"
        for shown, here in (
            ("postgresql://gpus@db.lab.example/gpuledger", plain),
            ("/backup/", f"{tmp_path}/"),
            ("/srv/hub/var/gpus/", f"{tmp_path}/"),
        ):
            command = command.replace(shown, here)
        done = howto.shell(tmp_path, command, path=str(programs), PGPASSWORD="p@ss:word/")
        assert done.returncode == 0, done.stderr

    dump, restore, move = howto.blocks("back-up", __file__)
    with place.new() as ledger:
        ledger.commit(one_of_each(), now=0.0)
        run(dump, place.name)
        rows = whole_journal(ledger)
    restored = place.cluster.database()
    run(restore, restored)
    with Ledger.open(place.cluster.url(restored)) as again:
        assert (again.id, whole_journal(again)) == (ledger.id, rows)
    with SQLitePlace(tmp_path / "ledger.sqlite").new() as old:
        old.commit(one_of_each(), now=0.0)
    target = place.cluster.database()
    run(move, target)
    with Ledger.open(place.cluster.url(target)) as moved:
        assert moved.id == old.id
