"""The commands that ask a scheduler that runs, called as a program is."""

from __future__ import annotations

import asyncio
import json
import shlex
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from jupyterhub_gpuspawner.cli.main import main
from tests import howto
from tests.unit.service_world import TOKEN, World, do_not_wait

# real sockets, files or processes
pytestmark = pytest.mark.slow

Said = pytest.CaptureFixture[str]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    do_not_wait(monkeypatch)
    return World(tmp_path, simulate=3)


class Admin:
    """Somebody at the machine: the scheduler is found by its configuration."""

    def __init__(self, world: World, folder: Path, said: Said) -> None:
        self._said = said
        folder.mkdir(exist_ok=True)
        (folder / "service-token").write_text(TOKEN)
        (folder / "service-token").chmod(0o600)
        values = {"state_dir": str(folder), "url": f"http://{urlsplit(world.url).netloc}"}
        self.config = folder / "scheduler.json"
        self.config.write_text(json.dumps({"GPUScheduler": values}))

    async def run(self, *words: str) -> tuple[int, str, str]:
        """Exit code, output, errors."""
        code = await asyncio.to_thread(main, [*words, "--config", str(self.config)])
        said = self._said.readouterr()
        return code, said.out, said.err

    async def get(self, *words: str) -> Any:
        """The JSON of a command that works."""
        code, out, err = await self.run(*words, "--json")
        assert (code, err) == (0, "")
        return json.loads(out)


async def test_an_admin_sees_who_holds_what_and_who_waits(
    world: World, tmp_path: Path, capsys: Said
) -> None:
    async with world.running():
        admin = Admin(world, tmp_path / "site", capsys)
        assert (await admin.run("leases"))[1] == "none\n"
        lease, _ = await world.run("alice", 2)
        async with world.ask("bob", 2) as bob:
            entry = (await bob.line())["entry"]
            status = await admin.get("status")
            devices = (await admin.run("devices"))[1].splitlines()
            (row,) = await admin.get("leases")
            queue = (await admin.run("queue"))[1].splitlines()
            words = (await admin.run("status"))[1]
    assert status["devices"] == {"busy": 2, "free": 1}
    assert (status["phase"], status["waiting"], status["simulated"]) == ("serving", 1, True)
    assert "SIMULATED GPUs on 1 machines: 2 busy, 1 free" in words
    assert [line.split()[-1] for line in devices[1:3]] == ["alice", "alice"]
    assert (row["id"], row["server"], len(row["devices"])) == (lease["id"], "alice", 2)
    assert queue[1].split()[:4] == ["1", entry, "bob", "2"]


async def test_a_gpu_is_kept_free_and_opened_again(
    world: World, tmp_path: Path, capsys: Said
) -> None:
    async with world.running():
        admin = Admin(world, tmp_path / "site", capsys)
        name = (await admin.get("devices"))[0]["id"]
        code, out, _ = await admin.run("cordon", name, "--note", "the fan")
        assert (code, out) == (0, f"{name}: nothing new is granted on it\n")
        line = (await admin.run("devices"))[1].splitlines()[1]
        assert "unavailable" in line
        assert line.endswith("cordoned by service token: the fan")
        assert await admin.get("uncordon", name) == {"name": name, "admin": "open"}
        assert (await admin.get("devices"))[0]["state"] == "free"
        node = (await admin.get("nodes"))[0]["name"]
        await admin.get("drain", "--node", node)
        assert (await admin.get("nodes"))[0]["reason"] == "node_cordoned"


@pytest.mark.parametrize(
    "commands",
    [howto.commands("run-it", __file__), howto.commands("administer-gpus", __file__)],
    ids=["run-it", "administer-gpus"],
)
async def test_the_commands_of_the_pages_work(
    world: World, tmp_path: Path, capsys: Said, commands: list[str]
) -> None:
    world.clock.now = datetime(2027, 1, 5, tzinfo=timezone.utc).timestamp()
    async with world.running():
        admin = Admin(world, tmp_path / "site", capsys)
        (lease, _), device = await world.run("alice", 2), (await admin.get("devices"))[0]
        async with world.ask("bob", 2) as bob:
            # what a site has in place of what stands there
            names = {
                **dict.fromkeys(("GPU-4f6c1b0e", "GPU-…"), device["id"]),
                **dict.fromkeys(("gpu-03", "gpu07"), device["node"]),
                **{"LEASE": lease["id"], "REQUEST": (await bob.line())["entry"]},
            }
            for line in commands:
                program, *words = (names.get(word, word) for word in shlex.split(line))
                code, out, err = await admin.run(*words)
                assert (program, code) == ("jupyterhub-gpuspawner", 0), line + err
                if words[:2] == ["reserve", "add"]:
                    names["BOOKING"] = out.partition(":")[0]


async def test_a_server_is_stopped(world: World, tmp_path: Path, capsys: Said) -> None:
    async with world.running():
        admin = Admin(world, tmp_path / "site", capsys)
        lease, container = await world.run("alice")
        code, out, _ = await admin.run("evict", lease["id"], "--message", "the lab closes")
        assert (code, out) == (0, f"{lease['id']}: its server is being stopped\n")
        await world.until(lambda: container not in world.engine.containers)


async def test_a_machine_that_answers_is_not_declared_gone(
    world: World, tmp_path: Path, capsys: Said
) -> None:
    async with world.running():
        admin = Admin(world, tmp_path / "site", capsys)
        node = (await admin.get("nodes"))[0]["name"]
        code, _, error = await admin.run("lost", node)
        assert code != 0
        assert f"{node} answers, so it is not gone" in error
        assert await admin.get("lost", node, "--empty") == {"name": node, "empty": True}
        assert (await admin.run("lost", node, "--empty"))[1] == f"{node}: its GPUs are nobody's\n"


async def test_a_lease_is_explained(world: World, tmp_path: Path, capsys: Said) -> None:
    async with world.running():
        admin = Admin(world, tmp_path / "site", capsys)
        lease, _ = await world.run("alice", 2)
        code, said, _ = await admin.run("explain", lease["id"])
        assert code == 0
        assert said.startswith("alice got 2 GPUs on ")
        assert "3 of 3 suitable GPUs were free. It was chosen." in said
        assert (await admin.get("explain", lease["id"]))["state"] == "granted"
        assert "no such request or lease" in (await admin.run("explain", "nobodys"))[2]


async def test_a_request_is_cancelled(world: World, tmp_path: Path, capsys: Said) -> None:
    async with world.running():
        admin = Admin(world, tmp_path / "site", capsys)
        await world.run("alice", 3)
        async with world.ask("bob") as bob:
            entry = (await bob.line())["entry"]
            assert (await admin.run("cancel", entry))[:2] == (0, f"{entry}: cancelled\n")
            await bob.until(event="refused", reason="cancelled")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("cordon", "GPU-nobodys"), "There is no such device."),
        (("drain", "--node", "nobodys"), "There is no such node."),
        (("cordon", "../internal"), "There is nothing at this address."),
        (("cordon", "GPU-1", "--note", "two\nlines"), "note"),
        (("cancel", "nobodys"), "no such request"),
        (("devices", "--url", "hub.example.org"), "want http"),
        (("devices", "--url", "http://127.0.0.1:1/"), "GPUS_TOKEN is not set"),
    ],
)
async def test_what_can_not_be_done_is_one_line(
    world: World,
    tmp_path: Path,
    capsys: Said,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    reason: str,
) -> None:
    monkeypatch.delenv("GPUS_TOKEN", raising=False)
    async with world.running():
        code, out, err = await Admin(world, tmp_path / "site", capsys).run(*words)
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert reason in err


async def test_a_scheduler_that_does_not_run_or_does_not_know_us_is_one_line(
    world: World, tmp_path: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.running():
        admin = Admin(world, tmp_path / "site", capsys)
        monkeypatch.setenv("GPUS_TOKEN", "x" * 32)
        code, _, err = await admin.run("status", "--url", world.url)
        assert (code, err.count("\n")) == (1, 1)
        assert "not connected to a Hub" in err
    code, _, err = await admin.run("status")
    assert (code, err.count("\n")) == (1, 1)
    assert "no answer (Connection refused); is the Hub running?" in err


async def test_gpus_are_booked_and_opened_again(world: World, tmp_path: Path, capsys: Said) -> None:
    async with world.running():
        admin = Admin(world, tmp_path / "site", capsys)
        device = (await admin.get("devices"))[0]["id"]
        when = ("--from", "2090-01-02T10:00", "--for", "2h")
        words = ("reserve", "add", device, "--group", "lab", "--user", "eve", *when)
        code, out, _ = await admin.run(*words, "--name", "exam")
        booking = out.partition(":")[0]
        assert (code, out) == (
            0,
            f"{booking}: booked from 2090-01-02 10:00 to 2090-01-02 12:00 UTC\n",
        )
        _, listed, _ = await admin.run("reserve", "list")
        assert listed.splitlines()[1].split() == [
            *(booking, "lab,", "eve", "1", "2090-01-02", "10:00", "2090-01-02", "12:00", "exam")
        ]
        code, _, err = await admin.run(*words)
        assert code == 1 and "is booked already (exam)" in err
        assert (await admin.run("reserve", "remove", booking))[0] == 0
        assert await admin.get("reserve", "list") == []
        assert (await admin.run("reserve", "remove", booking))[0] == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("reserve", "add", "--node", "n1", "--user", "x"), "say when it ends"),
        (("reserve", "add", "--to", "2090-01-01", "--for", "1h"), "say when it ends"),
        (("reserve", "add", "--for", "soon"), "--for"),
        (("report", "--from", "yesterday"), "'yesterday' is not a time"),
        (("report", "--csv", "--json"), "not both"),
        (("priority", "e1", "high"), "not a whole number"),
        (("audit", "--last", "x"), "want a number"),
    ],
)
async def test_a_wrong_word_of_an_admin_is_one_line(
    world: World, tmp_path: Path, capsys: Said, words: tuple[str, ...], said: str
) -> None:
    world.url = "http://127.0.0.1:1/services/gpus/"
    code, out, err = await Admin(world, tmp_path / "site", capsys).run(*words)
    assert (code, out) == (1, "")
    assert said in err and len(err.splitlines()) == 1


async def test_a_report_is_a_table_for_people_and_for_spreadsheets(
    world: World, tmp_path: Path, capsys: Said
) -> None:
    async with world.running():
        admin = Admin(world, tmp_path / "site", capsys)
        await world.run("alice", 2)
        world.clock.now += 1800
        _, out, _ = await admin.run("report")
        assert out.splitlines()[1].split()[2:] == ["alice", "1", "1.00", "0.00", "0.00", "1.00"]
        (row,) = await admin.get("report", "--by", "all", "--period", "month")
        assert (row["who"], row["reserved_hours"]) == ("", 1.0)
        _, table, _ = await admin.run("report", "--csv")
        head, line = table.splitlines()
        assert head.split(",")[:2] == ["who", "starts_at"]
        assert line.split(",")[0] == "alice"
        assert (await admin.get("groups")) == []


async def test_a_request_gets_priority_and_the_log_says_by_whom(
    world: World, tmp_path: Path, capsys: Said
) -> None:
    async with world.running():
        admin = Admin(world, tmp_path / "site", capsys)
        await world.run("alice", 3)
        async with world.ask("bob") as bob:
            entry = (await bob.line())["entry"]
            assert (await admin.run("priority", entry, "5"))[:2] == (0, f"{entry}: priority 5\n")
            assert (await admin.get("queue"))[0]["priority"] == 5
        _, out, _ = await admin.run("audit", "--last", "1")
        assert out.splitlines()[1].endswith("bob   priority 5 given by service token")
        assert len(await admin.get("audit")) >= 1
