"""Any JSON by any door: an allowed profile or a readable 4xx, and never another container."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from deploy.quickstart.trial import wait_for

from .attacker import Attacker
from .bodies import Case, cases, right
from .conftest import long_run

#: cases, and how many of them are right and start a container
COUNT = 100_000 if long_run() else 2000
RIGHT = 1000 if long_run() else 20
CHUNK = 500

CHOICES = [
    {"profile": "plain"},
    {"profile": "gpu"},
    {"profile": "choice", "size": "s", "word": "none"},
    {"profile": "choice", "size": "l", "word": "none"},
    {"profile": "choice", "size": "s", "word--unlisted-choice": "abc"},
    {"profile": "choice", "size": "l", "word--unlisted-choice": "abc"},
]


def made(strategy: st.SearchStrategy[Case], count: int, number: int) -> list[Case]:
    """``count`` cases that Hypothesis thinks of, the same for the same ``number``.

    They are sent afterwards, several at a time: so they are not shrunk, which would take hours
    with a real Hub; a case that does harm is named as it is.
    """
    found: list[Case] = []

    @seed(number)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(case: Case) -> None:
        found.append(case)

    collect()
    return found


@pytest.fixture(scope="module")
def attacker(hub, recorder) -> Iterator[Attacker]:
    made = Attacker(hub, recorder)
    for choice in CHOICES:
        made.learn(choice)
    yield made
    made.close()


@pytest.mark.timeout(0 if long_run() else 1500)  # minutes on a machine with nothing else to do
def test_any_options_by_any_door_are_an_allowed_profile_or_a_readable_no(hub, recorder, attacker):
    pid = hub.pid
    number = 0
    while attacker.cases < COUNT:
        number += 1
        batch = made(cases, min(CHUNK, COUNT - attacker.cases), number)
        attacker.attack([*batch, *made(right, max(1, RIGHT * CHUNK // COUNT), number)])
    print(f"{attacker.cases} cases, {attacker.accepted} accepted")
    for outcome, count in sorted(attacker.seen.items()):
        print(f"  {outcome}: {count}")
    assert attacker.accepted >= RIGHT / 2
    assert hub.pid == pid
    assert "Uncaught exception" not in hub.log()
    restarted(hub)


#: options that an older version, or a hand, may have left in the Hub's database
STORED: list[str] = [
    "null", "7", '"plain"', "[]", '["a"]', '[{"profile": "plain"}]', "{}", '{"profile": null}',
    '{"profile": {"a": 1}}', '{"profile": "big"}', '{"profile": "gone"}', '{"profile": NaN}',
    '{"profile": "\\ud800"}', '{"profile": "a\\u0000b"}', "true", "[" * 400 + "]" * 400,
    '{"profile": "' + "x" * 100_000 + '"}',
]  # fmt: skip


def test_any_stored_options_let_the_hub_start_and_are_refused_or_allowed(hub, attacker):
    people = [hub.person(f"stored-{number}") for number in range(len(STORED))]
    for person in people:
        person.ask({"profile": "nonesuch"})  # the Hub's database has a line for the server now
    hub.stop()
    with sqlite3.connect(hub.state / "jupyterhub.sqlite") as database:
        for number, options in enumerate(STORED):
            changed = database.execute(
                "UPDATE spawners SET user_options = ? "
                "WHERE user_id = (SELECT id FROM users WHERE name = ?)",
                (options, f"stored-{number}"),
            )
            assert changed.rowcount == 1
    hub.start()
    statuses = {}
    for person, options in zip(people, STORED, strict=True):
        if len(statuses) % 4 == 0:
            assert "gpus-profile" in person.page(f"/hub/spawn/{person.name}")
        answer = person.api("POST", f"/users/{person.name}/server")
        statuses[options[:40]] = answer.status_code
        assert answer.status_code < 500, (options[:60], answer.text[:300])
        if answer.status_code < 400:
            person.wait(limit=90)
            server = person.api("GET", f"/users/{person.name}").json()["servers"][""]
            assert server["user_options"] == {"profile": "plain"}
            person.stop()
        else:
            assert answer.json()["message"].strip()
    print(statuses)
    assert {status for status in statuses.values() if status < 300}
    assert {status for status in statuses.values() if status >= 400}


def restarted(hub: Any) -> None:
    """The Hub, after a restart, with whatever it has stored."""
    hub.stop()
    hub.start()
    person = hub.person("fuzz-0")
    assert person.api("GET", "/user").status_code == 200
    person.ask({"profile": "plain"})
    person.wait(limit=90)
    person.stop()
    wait_for("free GPUs", 60, lambda: not hub.busy())
