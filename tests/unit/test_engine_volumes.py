"""Homes and names: one per person, free of collisions, never somebody else's."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jupyterhub_gpuspawner.engine import labels, volumes
from jupyterhub_gpuspawner.errors import EngineConflict

DOCKER_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+\Z")
DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?\Z")
BORN = datetime(2026, 1, 2, 3, 4, 5, 678)


def owner(user_id: int = 1, created: datetime | None = BORN, hub: str = "h") -> str:
    return volumes.owner_id(user_id=user_id, created=created, hub=hub)


def test_the_owner_is_the_same_each_time() -> None:
    assert owner() == owner()
    assert re.fullmatch("[0-9a-f]{32}", owner())


def test_a_time_with_a_zone_is_the_same_moment() -> None:
    east = timezone(timedelta(hours=2))
    assert owner(created=BORN.replace(tzinfo=timezone.utc)) == owner()
    assert owner(created=BORN.replace(tzinfo=timezone.utc).astimezone(east)) == owner()


def test_a_user_id_that_is_used_again_is_another_owner() -> None:
    assert owner(created=BORN + timedelta(microseconds=1)) != owner()
    assert owner(user_id=2) != owner()
    assert owner(hub="other") != owner()
    assert owner(created=None) != owner()


def test_the_parts_of_an_owner_do_not_run_into_each_other() -> None:
    assert owner(user_id=11, hub="h") != owner(user_id=1, hub="h1")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("alice", "alice"),
        ("Alice Müller", "alice-muller"),
        ("a.b@example.org", "a-b-example-org"),
        ("--x--", "x"),
        ("日本語", "x"),
        ("", "x"),
        ("\ud800", "x"),
        ("a" * 255, "a" * 24),
        ("../../etc", "etc"),
        ("<img src=x onerror=1>", "img-src-x-onerror-1"),
        ("a" * 23 + " b", "a" * 23),
    ],
)
def test_a_slug_is_what_is_readable(text: str, expected: str) -> None:
    assert volumes.slug(text) == expected


def test_names_that_read_alike_stay_apart() -> None:
    users = ["alice", "Alice", "alice ", "al-ice", "al.ice", "\uff41lice", "日本", "日本語"]
    assert len({volumes.container_name(user, "", "h") for user in users}) == len(users)
    pairs = [("a", "b-c"), ("a-b", "c"), ("a-b-c", ""), ("a", "b"), ("a", "")]
    assert len({volumes.container_name(user, server, "h") for user, server in pairs}) == len(pairs)
    assert volumes.container_name("alice", "", "h") != volumes.container_name("alice", "", "other")
    assert volumes.home_volume_name("al.ice", "o1") != volumes.home_volume_name("al-ice", "o2")


@pytest.mark.slow
@given(user=st.text(max_size=255), server=st.text(max_size=40))
def test_every_user_gets_names_that_docker_and_dns_accept(user: str, server: str) -> None:
    for name in (
        volumes.container_name(user, server, "hub"),
        volumes.home_volume_name(user, owner()),
    ):
        assert DOCKER_NAME.match(name)
        assert DNS_LABEL.match(name)
        assert len(name) <= volumes.LONGEST_NAME


def test_a_renamed_user_is_still_the_owner() -> None:
    made = labels.home_labels(ledger="l", user="before", owner="o1")
    volumes.check_home("v", made, "o1")


@pytest.mark.parametrize(
    ("found", "whose"),
    [
        (None, "nobody"),
        ({}, "nobody"),
        (labels.home_labels(ledger="l", user="alice", owner="o2"), "o2"),
        ({labels.OWNER: "o1"}, "o1"),
        (labels.owner_labels("l"), "nobody"),
    ],
)
def test_a_volume_that_is_not_this_owners_home_is_refused(
    found: dict[str, str] | None, whose: str
) -> None:
    with pytest.raises(EngineConflict, match=f"v: wanted as home .* belongs to {whose}") as caught:
        volumes.check_home("v", found, "o1")
    assert "o1" not in caught.value.user_message
