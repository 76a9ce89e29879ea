"""The commands for the Hub's database in the how-tos, run as they stand there."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from jupyterhub import orm
from jupyterhub.dbutil import _temp_alembic_ini

from jupyterhub_gpuspawner.store import Ledger
from tests import howto

ROOT = Path(__file__).resolve().parents[2]


def run(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command where a Hub is started, with its environment; backups go to ``backup``."""
    return howto.shell(
        folder,
        text.replace("/backup/", f"{folder}/backup/"),
        path=str(Path(sys.executable).parent),
        GPUS_STATE_DIR=str(folder / "var"),
        GPUS_PASSWORD="long enough",
    )


def users(file: Path) -> set[str]:
    """Who is in a Hub's database. DatabaseSchemaMismatch: its layout is not today's."""
    session = orm.new_session_factory(f"sqlite:///{file}")()
    try:
        return {user.name for user in session.query(orm.User)}
    finally:
        session.close()
        session.get_bind().dispose()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where a Hub that knows ann is started, with its state in ``var``."""
    for name in ("var", "backup"):
        (tmp_path / name).mkdir()
    made = orm.new_session_factory(f"sqlite:///{tmp_path / 'var' / 'jupyterhub.sqlite'}")()
    made.add(orm.User(name="ann"))
    made.commit()
    made.close()
    made.get_bind().dispose()
    shutil.copy(ROOT / "jupyterhub_config.py", tmp_path)
    return tmp_path


def test_the_hubs_database_is_backed_up_while_it_is_in_use(place: Path) -> None:
    held = orm.new_session_factory(f"sqlite:///{place / 'var' / 'jupyterhub.sqlite'}")()
    held.query(orm.User).all()
    *_, command = howto.blocks("back-up", __file__)
    done = run(command, place)
    held.close()
    held.get_bind().dispose()
    assert done.returncode == 0, done.stderr
    assert users(place / "backup" / "jupyterhub.sqlite") == {"ann"}


def test_the_ledger_is_backed_up_while_it_is_in_use(place: Path) -> None:
    *commands, _ = howto.blocks("back-up", __file__)
    state = place / "var" / "gpus"
    state.mkdir()
    # as setup(c) writes it
    written = json.dumps({"GPUScheduler": {"state_dir": str(state)}})
    (state / "scheduler.json").write_text(written)
    with Ledger.open(f"sqlite:///{state}/ledger.sqlite") as held:
        done = [run(command, place) for command in commands]
        assert [one.returncode for one in done] == [0, 0], [one.stderr for one in done]
    for name in ("ledger.sqlite", "ledger-2026-11-22.sqlite"):
        with Ledger.open(f"sqlite:///{place / 'backup' / name}") as copy:
            assert copy.id == held.id


def test_a_database_of_an_older_hub_is_refused_until_the_command_of_the_page_has_run(
    place: Path,
) -> None:
    file = place / "var" / "jupyterhub.sqlite"
    with _temp_alembic_ini(f"sqlite:///{file}") as ini:
        older = [sys.executable, "-m", "alembic", "-c", ini, "downgrade", "-1"]
        subprocess.run(older, check=True, capture_output=True, timeout=300)
    with pytest.raises(orm.DatabaseSchemaMismatch, match="upgrade-db"):
        users(file)
    (command,) = howto.blocks("run-it", __file__)
    done = run(command, place)
    assert done.returncode == 0, done.stderr
    assert users(file) == {"ann"}
    assert list(file.parent.glob("jupyterhub.sqlite.*")), "no copy was kept"
