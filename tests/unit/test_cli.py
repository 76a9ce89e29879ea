"""The commands, called as a program is: their output, exit codes and errors."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from jupyterhub_gpuspawner.cli import command
from jupyterhub_gpuspawner.cli.command import Progress, table
from jupyterhub_gpuspawner.cli.main import COMMANDS, main
from jupyterhub_gpuspawner.store import Ledger
from tests.unit.store_values import SQLitePlace, grant

# real sockets, files or processes
pytestmark = pytest.mark.slow

Said = pytest.CaptureFixture[str]


@pytest.fixture
def ledger(place: SQLitePlace) -> SQLitePlace:
    with place.new() as ledger:
        ledger.commit(grant(1), now=0.0)
    return place


def _fails(capsys: Said, *words: str) -> str:
    """Run a command that fails; its one line."""
    assert main(words) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    return said.err


def test_a_copy_says_what_was_copied(
    ledger: SQLitePlace, tmp_path: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a busy machine may need more than the second after which a long copy says how far it is
    monkeypatch.setattr(command, "_PACE", math.inf)
    target = f"sqlite:///{tmp_path}/new.sqlite"
    assert main(["ledger", "copy", ledger.url, target]) == 0
    said = capsys.readouterr()
    assert f"copied {tmp_path}/ledger.sqlite to {tmp_path}/new.sqlite, read back" in said.out
    assert "devices 0, entries 1, journal 2, leases 1, meta 1, nodes 0, claims 1" in said.out
    assert "move the old one away: both have one id" in said.out
    assert said.err == ""
    other = f"sqlite:///{tmp_path}/other.sqlite"
    assert main(["ledger", "copy", target, other, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"]["leases"] == 1
    assert "other.sqlite is not empty" in _fails(capsys, "ledger", "copy", target, other)


def test_passwords_are_in_no_line(tmp_path: Path, capsys: Said) -> None:
    url = "mysql://gpus:secret@db/ledger"
    assert "secret" not in _fails(capsys, "ledger", "copy", url, f"sqlite:///{tmp_path}/x")
    url = "postgresql://gpus:secret@db/ledger"
    line = _fails(capsys, "backup", "out.dump", "--ledger", url)
    assert "secret" not in line
    command = "pg_dump --format=custom --file=out.dump --dbname=postgresql://gpus@db/ledger"
    assert line.endswith(f"nothing was copied; run: {command}\n")


def test_a_backup_finds_the_ledger_by_the_schedulers_configuration(
    ledger: SQLitePlace, tmp_path: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "state" / "gpus"
    folder.mkdir(parents=True)
    config = folder / "scheduler.json"
    config.write_text(json.dumps({"GPUScheduler": {"ledger_url": ledger.url}}))
    assert main(["backup", f"{tmp_path}/a", "--config", str(config)]) == 0
    assert f"backed up {tmp_path}/ledger.sqlite to {tmp_path}/a: " in capsys.readouterr().out
    monkeypatch.setenv("GPUS_STATE_DIR", str(tmp_path / "state"))
    with Ledger.open(ledger.url):  # while a scheduler has it
        assert main(["backup", f"{tmp_path}/b", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bytes"] == (tmp_path / "b").stat().st_size
    with Ledger.open(f"sqlite:///{tmp_path}/b") as copied:
        assert len(copied.load().leases) == 1
    assert "exists already" in _fails(capsys, "backup", f"{tmp_path}/b")


def test_a_backup_without_a_ledger_is_one_line(
    tmp_path: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPUS_STATE_DIR", str(tmp_path))
    assert "scheduler.json: there is no such file; name" in _fails(capsys, "backup", "x")
    config = tmp_path / "config.json"
    for text in ("{", "[]", "{}", '{"GPUScheduler": 1}'):
        config.write_text(text)
        assert "not a configuration" in _fails(capsys, "backup", "x", "--config", str(config))
    config.write_text('{"GPUScheduler": {"ledgerurl": ""}}')
    line = _fails(capsys, "backup", "x", "--config", str(config))
    assert "did you mean ledger_url?" in line
    missing = f"sqlite:///{tmp_path}/none.sqlite"
    assert "there is no such file" in _fails(capsys, "backup", "x", "--ledger", missing)
    assert not (tmp_path / "none.sqlite").exists()


def test_versions_are_told(capsys: Said) -> None:
    assert main(["version"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines][:3] == ["jupyterhub-gpuspawner", "ledger", "python"]
    assert main(["version", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["jupyterhub"]


@pytest.mark.parametrize(
    "words", [[], ["nothing"], ["ledger"], ["backup"], ["ledger", "copy", "x"], ["version", "-x"]]
)
def test_a_wrong_call_is_one_line_and_exit_code_2(words: list[str], capsys: Said) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "--help" in said.err


@pytest.mark.parametrize("name", [command.name for command in COMMANDS])
def test_every_command_explains_itself(name: str, capsys: Said) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*name.split(), "--help"])
    assert caught.value.code == 0
    assert "exit codes: 0 it worked; 1 it did not" in capsys.readouterr().out


def test_an_interrupt_is_no_traceback(
    ledger: SQLitePlace, tmp_path: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("jupyterhub_gpuspawner.store.transfer._copy", interrupted)
    assert main(["ledger", "copy", ledger.url, f"sqlite:///{tmp_path}/x"]) == 130
    assert capsys.readouterr().err == "jupyterhub-gpuspawner ledger copy: interrupted\n"


def test_progress_speaks_at_most_once_a_second(capsys: Said) -> None:
    times = iter([0.0, 0.5, 1.0, 1.5, 2.5])
    progress = Progress(clock=lambda: next(times))
    for done in range(4):
        progress("journal", done, 9)
    assert capsys.readouterr().err == "journal: 1 of 9\njournal: 3 of 9\n"


def test_a_table_escapes_what_a_terminal_would_obey() -> None:
    assert table(("user", "size"), [("\x1b[2Jeve", "1"), ("bob", "22")]) == (
        "user        size\n\\x1b[2Jeve  1\nbob         22"
    )
