"""``simulate``: a journal is read, replayed, and compared; what is wrong is said in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jupyterhub_gpuspawner.cli import simulate
from jupyterhub_gpuspawner.cli.command import CommandError
from jupyterhub_gpuspawner.cli.main import main
from jupyterhub_gpuspawner.scheduler import queue
from jupyterhub_gpuspawner.scheduler.models import Device, GPURequest, Mode, Node, Settings
from jupyterhub_gpuspawner.scheduler.policy import Fairness, Limits
from jupyterhub_gpuspawner.scheduler.whatif import Job, Outcome, Site, WhatIf
from jupyterhub_gpuspawner.service.options import GPUScheduler
from jupyterhub_gpuspawner.store import Ledger, past
from tests.unit.scheduler_world import World, gpu
from tests.unit.store_values import SQLitePlace

HOUR = 3600.0
GIB = 1024**3
ONE = Site(
    nodes=(Node(name="n1", memory=100 * GIB, cpus=8.0),),
    devices=(Device(id="g0", node="n1", model="A100", memory=40 * GIB),),
)
#: what has ended, and what has not
Said = pytest.CaptureFixture[str]


def job(user: str, at: float, hours: float, **request: Any) -> Job:
    asked = GPURequest(**{"count": 1, "length": 24 * HOUR, **request})
    return Job(at=at * HOUR, user=user, request=asked, seconds=hours * HOUR)


def waits(jobs: list[Job], site: Site = ONE, **fairness: Any) -> dict[int, float]:
    """Hours, by job."""
    settings = Settings(fairness=Fairness(**fairness))
    found = WhatIf(jobs, site, settings).run()
    return {number: wait / HOUR for number, wait in found.waits.items()}


# -- what if ----------------------------------------------------------------------------------


def test_each_server_stays_as_long_as_it_did_and_the_next_one_follows() -> None:
    jobs = [job("ann", 0, 2), job("bob", 1, 3), job("cid", 1.5, 1)]
    assert waits(jobs, by_usage=False) == {0: 0.0, 1: 1.0, 2: 3.5}
    two = simulate.enlarged(ONE, 1)
    assert waits(jobs, two, by_usage=False) == {0: 0.0, 1: 0.0, 2: 0.5}


def test_another_policy_serves_others_first() -> None:
    jobs = [job("ann", 0, 2), job("bob", 1, 3, length=24 * HOUR), job("cid", 1.5, 1, length=HOUR)]
    assert waits(jobs)[2] == 0.5
    assert waits(jobs)[1] == 2.0


def test_what_the_site_can_never_give_is_counted_and_holds_nobody_up() -> None:
    jobs = [job("ann", 0, 1), job("bob", 0, 1, count=2), job("cid", 0, 1, model="H100")]
    found = WhatIf(jobs, ONE, Settings()).run()
    assert found.refused == [1, 2]
    assert found.never == []
    assert list(found.waits) == [0]


def test_a_request_that_a_limit_holds_for_ever_is_told_apart_from_a_refused_one() -> None:
    # its own group's limit is no bar to asking, and nothing that ends makes room
    settings = Settings(limits=Limits(per_user=1))
    jobs = [job("ann", 0, 2), job("ann", 1, 1)]
    found = WhatIf(jobs, simulate.enlarged(ONE, 1), settings).run()
    assert {number: wait / HOUR for number, wait in found.waits.items()} == {0: 0.0, 1: 1.0}


def test_use_is_counted_between_two_times() -> None:
    found = Outcome(held=[(0.0, 1), (10.0, 3), (20.0, 0)])
    assert found.used(0.0, 30.0) == 40.0
    assert found.used(5.0, 15.0) == 20.0
    assert found.used(20.0, 30.0) == 0.0


def test_estimates_are_noted_of_those_who_wait() -> None:
    jobs = [job("ann", 0, 2, length=4 * HOUR), job("bob", 1, 1)]
    found = WhatIf(jobs, ONE, Settings(), estimates=True).run()
    # ann's length was believed
    assert found.errors == {1: 2 * HOUR}


def test_of_those_too_far_behind_no_estimate_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "MOST", 1)
    jobs = [job("ann", 0, 2), job("bob", 1, 3), job("cid", 1.5, 1)]
    settings = Settings(fairness=Fairness(by_usage=False))
    assert set(WhatIf(jobs, ONE, settings, estimates=True).run().errors) == {1}
    assert ONE.atoms == 1


def test_more_gpus_are_of_the_most_frequent_kind_with_memory_in_proportion() -> None:
    site = Site(
        nodes=(Node(name="n1", memory=100 * GIB, cpus=8.0), Node(name="n2", memory=GIB)),
        devices=(
            Device(id="a", node="n2", model="T4", mode=Mode.SLOTS, atoms=4),
            Device(id="b", node="n1", model="A100", bonds=(("c", 5),)),
            Device(id="c", node="n1", model="A100"),
        ),
    )
    larger = simulate.enlarged(site, 4)
    added = larger.devices[3:]
    assert [device.model for device in added] == ["A100"] * 4
    assert len({device.id for device in larger.devices}) == 7
    assert {device.bonds for device in added} == {()}
    assert (larger.nodes[2].memory, larger.nodes[2].cpus) == (200 * GIB, 16.0)
    assert simulate.enlarged(site, 0) is site


# -- the past ---------------------------------------------------------------------------------


def lived() -> World:
    """ann has the GPU for 2 h; bob waits 1 h for it and has it 3 h; cid gives up; eve runs on."""
    world = World("g0")
    first = world.run("ann", 1, length=4 * HOUR)
    world.now += HOUR
    second = world.ask("bob", 1, length=4 * HOUR, groups=("students",))
    world.cancel(world.ask("cid", 1, length=4 * HOUR))
    world.now += HOUR
    world.end(first)
    world.bind(second)
    world.now += 3 * HOUR
    world.end(second)
    world.run("eve", 1, length=HOUR)
    world.now += HOUR
    world.run("fay", 0)
    return world


def test_the_past_is_what_was_asked_when_and_how_long_it_stayed() -> None:
    found = past.remember(lived().journal)
    told = [(job.user, job.seconds / HOUR) for job in found.jobs]
    assert told == [("ann", 2.0), ("bob", 3.0), ("eve", 1.0), ("fay", 0.0)]
    assert [wait / HOUR for wait in found.waits] == [0.0, 1.0, 0.0, 0.0]
    assert found.jobs[1].groups == ("students",)
    assert found.left_out == {past.NEVER: 1, past.ADOPTED: 0}
    assert [device.id for device in found.site.devices] == ["g0"]


def test_a_gpu_that_is_gone_is_not_there_any_more_and_an_adopted_server_asked_for_nothing() -> None:
    world = World(gpu("g0"), gpu("g1"))
    world.find("zoe", "c9", "g0")
    world.devices = world.devices[:1]
    world.report("n1")
    found = past.remember(world.journal)
    assert [device.id for device in found.site.devices] == ["g0"]
    assert not found.jobs
    assert found.left_out == {past.NEVER: 0, past.ADOPTED: 1}


# -- the command ------------------------------------------------------------------------------


@pytest.fixture
def ledger(place: SQLitePlace) -> SQLitePlace:
    world = lived()
    with place.new() as ledger:
        ledger.commit(world.journal, now=0.0)
    return place


def fails(capsys: Said, *words: str) -> str:
    """The one line of a command that fails."""
    assert main(["simulate", *words]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    return said.err


@pytest.mark.slow
def test_the_command_compares_with_more_gpus_also_while_the_ledger_is_in_use(
    ledger: SQLitePlace, capsys: Said
) -> None:
    with Ledger.open(ledger.url):
        words = ["--ledger", ledger.url, "--more-gpus", "1,2", "--set", "age_guard=72h"]
        assert main(["simulate", *words]) == 0
        said = capsys.readouterr().out
        assert main(["simulate", *words, "--json"]) == 0
    assert "4 requests of 4 users on 1 GPUs" in said
    assert f"left out: 1 that {past.NEVER}" in said
    assert "1 more GPU: mean wait 15 min -> 0.0 min" in said
    assert "age_guard=72h: mean wait 15 min -> 15 min" in said
    found = json.loads(capsys.readouterr().out)
    assert found["requests"] == 4
    assert found["left_out"] == {past.NEVER: 1, past.ADOPTED: 0}
    results = {result["name"]: result for result in found["results"]}
    assert list(results) == [
        "as it was",
        "simulated as it is",
        "age_guard=72h",
        "1 more GPU",
        "2 more GPUs",
    ]
    assert results["as it was"]["wait_mean"] == results["simulated as it is"]["wait_mean"] == 900.0
    assert results["as it was"]["used"] is None
    assert results["1 more GPU"]["wait_longest"] == 0.0
    assert results["simulated as it is"]["used"] == 1.0
    assert results["1 more GPU"]["used"] == 0.5


@pytest.mark.slow
def test_a_wrong_call_is_one_line_that_says_what_is_wrong(
    ledger: SQLitePlace, place: SQLitePlace, tmp_path: Path, capsys: Said
) -> None:
    for wrong in ("0", "-1", "two", "2,", "1000000"):
        assert "want whole numbers from 1" in fails(capsys, "--more-gpus", wrong)
    own = ("--ledger", ledger.url)
    assert "want OPTION=VALUE" in fails(capsys, *own, "--set", "age_guard")
    assert "want OPTION=VALUE" in fails(capsys, *own, "--set", "agegard=1h")
    assert "age_guard" in fails(capsys, *own, "--set", "age_guard=soon")
    missing = f"sqlite:///{tmp_path}/nowhere.sqlite"
    assert "there is no such file" in fails(capsys, "--ledger", missing)
    (tmp_path / "text").write_text("not a database" * 100)
    assert "can't be read" in fails(capsys, "--ledger", f"sqlite:///{tmp_path}/text")
    empty = SQLitePlace(tmp_path / "empty.sqlite")
    with empty.new():
        pass
    assert "nothing to replay" in fails(capsys, "--ledger", empty.url)
    # nobody made a ledger of what is none
    assert not (tmp_path / "nowhere.sqlite").exists()


@pytest.mark.slow
def test_a_journal_with_a_row_that_can_not_be_read_is_one_line(
    ledger: SQLitePlace, capsys: Said
) -> None:
    import sqlite3

    with sqlite3.connect(ledger.url.removeprefix("sqlite:///")) as connection:
        connection.execute("update journal set payload = '{}' where seq = 1")
    connection.close()
    assert "journal 1" in fails(capsys, "--ledger", ledger.url)


def test_options_that_are_tried_leave_the_others_as_they_are() -> None:
    from traitlets.config import Config

    base = GPUScheduler(config=Config({"GPUScheduler": {"age_first": 3600.0}}))
    found = simulate.changed(base, ["fair_share=False", "placement=fgd"])
    assert found.fairness.by_usage is False
    assert found.placement.gradient is True
    assert found.fairness.age_first == 3600.0
    with pytest.raises(CommandError, match="--set: "):
        simulate.changed(base, ["fair_share=often"])


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, "0.0 min"), (90.0, "1.5 min"), (2460.0, "41 min")]
)
def test_minutes_are_short(seconds: float, text: str) -> None:
    assert simulate.minutes(seconds) == text
