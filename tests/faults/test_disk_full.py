"""No space left: under the ledger, and under Docker. Small loop devices, nobody else's disk."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from jupyterhub_gpuspawner.cli.main import main
from jupyterhub_gpuspawner.store import Ledger
from jupyterhub_gpuspawner.store.replay import Snapshot
from tests.docker.service_process import wait_for
from tests.faults.cases import Bench, Case
from tests.faults.conftest import MakeService, copy_image
from tests.faults.stories import tell, well
from tests.logs import tracebacks
from tests.testbed.engine import Engine

MIB = 1024 * 1024
NOT_STORED = (
    "The scheduler can't store its decisions at the moment, so it grants nothing. "
    "Your place is kept."
)
FULL = "The disk of the machine is full. Please tell your administrator."


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A file system of ``size`` bytes of its own, mounted at ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    image = folder.with_suffix(".disk")
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        image.unlink()


def fill(folder: Path) -> Path:
    """Take all the space there is; the file that holds it."""
    ballast = folder / "ballast"
    with ballast.open("ab", buffering=0) as file, suppress(OSError):
        for part in (MIB, 4096, 1):
            with suppress(OSError):
                while True:
                    file.write(b"x" * part)
        os.fsync(file.fileno())
    return ballast


def test_a_backup_that_does_not_fit_is_one_line_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path}/ledger.sqlite"
    with Ledger.open(url) as ledger, small_disk(tmp_path / "small", MIB) as disk:
        fill(disk)
        before = sorted(disk.iterdir())
        assert main(["backup", str(disk / "copy.sqlite"), "--ledger", url]) == 1
        said = capsys.readouterr()
        assert (said.out, said.err.count("\n")) == ("", 1)
        assert "full" in said.err or "No space left" in said.err
        assert sorted(disk.iterdir()) == before
        # the ledger itself is as it was, and in use
        assert ledger.load() == Snapshot()


@pytest.fixture
def small_ledger(
    engine: Engine, docker_client: Any, stub_image: str, make_service: MakeService, tmp_path: Path
) -> Iterator[tuple[Bench, Path]]:
    """A service whose ledger is on a disk of 12 MiB."""
    with small_disk(tmp_path / "small", 12 * MIB) as disk:
        state = disk / "gpus"
        service = make_service(
            engine, "small", state_dir=str(state), reconcile_interval=1, claim_engine=False
        )
        service.start()
        service.wait_serving()
        yield (
            Bench(
                service=service,
                client=docker_client,
                engine=engine.socket,
                folder=tmp_path,
                image=stub_image,
            ),
            disk,
        )
        service.end()


def test_with_a_full_disk_under_the_ledger_nothing_is_granted_and_servers_run_on(
    small_ledger: tuple[Bench, Path],
) -> None:
    bench, disk = small_ledger

    async def story() -> None:
        alice, bob = Case(bench, "alice"), Case(bench, "bob")
        assert await alice.person.start() == ""
        held = await alice.leased()
        ballast = fill(disk)
        start = asyncio.create_task(bob.person.start())
        await bob.until("bob reads why", lambda: _reads(bob, NOT_STORED))
        assert (await asyncio.to_thread(bench.service.health))["reason"] == "ledger_unavailable"
        assert await alice.person.poll() is None
        assert await alice.leased() == held
        # her stop works although nobody can write it down
        await alice.person.stop()
        assert await alice.containers() == []
        ballast.unlink()
        assert await start == "", "he kept his place"
        await alice.nothing_left()
        await well(alice, bob)

    tell(bench, story)
    log = bench.service.log.read_text()
    assert "look at free space, quota and permissions" in log
    assert "it can be written again" in log
    assert tracebacks(log) == []


async def _reads(case: Case, text: str) -> bool:
    return any(text in line for line in case.person.said())


@pytest.fixture
def small_engine(
    engine: Engine, docker_client: Any, stub_image: str, make_service: MakeService, tmp_path: Path
) -> Iterator[tuple[Bench, Path]]:
    """A service on an engine of its own with a disk of 900 MiB."""
    small = Engine(f"{engine.name}-small", devices=2)
    small.stop()
    with small_disk(small.data, 900 * MIB):
        small.start()
        client = small.client(timeout=600)
        try:
            copy_image(docker_client, client, stub_image)
            service = make_service(small, "tight", simulate=2, reconcile_interval=1)
            service.start()
            service.wait_serving()
            yield (
                Bench(
                    service=service,
                    client=client,
                    engine=small.socket,
                    folder=tmp_path,
                    image=stub_image,
                ),
                small.data,
            )
            service.end()
        finally:
            client.close()
            small.stop()


def test_with_a_full_disk_under_docker_a_start_says_so_and_leaves_nothing(
    small_engine: tuple[Bench, Path],
) -> None:
    bench, disk = small_engine

    async def story() -> None:
        alice, bob = Case(bench, "alice"), Case(bench, "bob")
        assert await alice.person.start() == ""
        held = await alice.leased()
        ballast = fill(disk)
        assert await bob.person.start() == FULL
        assert await alice.person.poll() is None
        assert await alice.leased() == held
        await alice.person.stop()
        await alice.nothing_left()
        await bob.nothing_left()
        ballast.unlink()
        assert await bob.person.start() == ""
        await well(alice, bob)

    tell(bench, story)


def test_while_another_program_locks_the_ledger_users_wait_and_keep_their_places(
    bench: Bench,
) -> None:

    async def story() -> None:
        alice, bob = Case(bench, "alice"), Case(bench, "bob")
        assert await alice.person.start() == ""
        held = await alice.leased()
        with closing(sqlite3.connect(bench.service.ledger_file, isolation_level=None)) as shell:
            shell.execute("BEGIN IMMEDIATE")
            start = asyncio.create_task(bob.person.start())
            await bob.until("bob reads why", lambda: _reads(bob, NOT_STORED))
            assert await alice.person.poll() is None
            assert await alice.leased() == held
            shell.execute("ROLLBACK")
        assert await start == "", "he kept his place"
        await well(alice, bob)

    tell(bench, story)
    assert "another program holds it (a backup, a database shell?)" in bench.service.log.read_text()


def test_a_second_service_on_the_same_ledger_grants_nothing_and_says_who_has_it(
    bench: Bench, engine: Engine, make_service: MakeService
) -> None:
    twin = make_service(engine, "twin", state_dir=str(bench.service.state))
    twin.start()
    wait_for("the second one says why", lambda: "is in use by process" in twin.log.read_text(), 60)
    assert not twin.serving()
    assert bench.service.serving()
    twin.end()
