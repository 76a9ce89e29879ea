"""The commands for the Hub's database in docs/howto/run-it.md, run as they stand there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from jupyterhub import orm
from jupyterhub.dbutil import _temp_alembic_ini

ROOT = Path(__file__).resolve().parents[2]
HOW_TO = (ROOT / "docs" / "howto" / "run-it.md").read_text()


def command(word: str) -> str:
    """The one command of the page with this word in it."""
    blocks = re.findall(r"^```bash\n(.*?)^```$", HOW_TO, re.M | re.S)
    (found,) = [block for block in blocks if word in block]
    return found


def run(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command with the environment of a Hub whose files are in ``folder``."""
    programs = [str(Path(sys.executable).parent), os.environ["PATH"]]
    return subprocess.run(
        ["bash", "-ec", text],
        cwd=folder,
        env={
            "PATH": os.pathsep.join(programs),
            "PYTHONPATH": str(ROOT),
            "GPUS_STATE_DIR": str(folder),
            "GPUS_PASSWORD": "long enough",
        },
        capture_output=True,
        text=True,
        timeout=300,
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
def state(tmp_path: Path) -> Path:
    """The state folder of a Hub that knows ann."""
    made = orm.new_session_factory(f"sqlite:///{tmp_path / 'jupyterhub.sqlite'}")()
    made.add(orm.User(name="ann"))
    made.commit()
    made.close()
    made.get_bind().dispose()
    return tmp_path


def test_the_databases_are_backed_up_while_they_are_in_use(state: Path) -> None:
    (state / "backup").mkdir()
    held = orm.new_session_factory(f"sqlite:///{state / 'jupyterhub.sqlite'}")()
    held.query(orm.User).all()
    done = run(command("backup/jupyterhub.sqlite"), state)
    held.close()
    held.get_bind().dispose()
    assert done.returncode == 0, done.stderr
    assert users(state / "backup" / "jupyterhub.sqlite") == {"ann"}


def test_a_database_of_an_older_hub_is_refused_until_the_command_of_the_page_has_run(
    state: Path,
) -> None:
    file = state / "jupyterhub.sqlite"
    with _temp_alembic_ini(f"sqlite:///{file}") as ini:
        older = [sys.executable, "-m", "alembic", "-c", ini, "downgrade", "-1"]
        subprocess.run(older, check=True, capture_output=True, timeout=300)
    with pytest.raises(orm.DatabaseSchemaMismatch, match="upgrade-db"):
        users(file)
    shutil.copy(ROOT / "jupyterhub_config.py", state)
    done = run(command("jupyterhub upgrade-db"), state)
    assert done.returncode == 0, done.stderr
    assert users(file) == {"ann"}
    assert list(state.glob("jupyterhub.sqlite.*")), "no copy was kept"
