"""Whatever is asked, from whatever door: a readable answer, and the Hub lives on."""

from __future__ import annotations

import json

import pytest

from deploy.quickstart.person import PersonError

from .conftest import plain, server_of, start

ODD_OPTIONS = [
    {"profile": "nonesuch"},
    {"profile": 7},
    {"profile": ["gpu"]},
    {"profile": "gpu", "image": "evil:latest"},
    {"profile": "gpu", "gpus": 8},
    {"unknown": True},
    ["a"],
    "text",
    [{"profile": "gpu"}],
    {"profile": {"$ne": ""}},
    {"profile": "gpu" * 10_000},
]


def refused(person, profile) -> str:
    """Ask by the form; the text that the user reads, on whichever page it comes."""
    answer = person.ask({"profile": profile})
    if answer.status_code == 200 and "progress" in answer.text:
        with pytest.raises(PersonError) as failure:
            person.wait(limit=60)
        return str(failure.value)
    assert answer.status_code >= 400, (answer.status_code, plain(answer.text))
    return answer.text


@pytest.mark.parametrize("options", ODD_OPTIONS, ids=lambda options: repr(options)[:40])
def test_odd_options_by_rest_are_a_readable_4xx(hub, somebody, options):
    alice = somebody("alice")
    answer = alice.api("POST", f"/users/{alice.name}/server", data=json.dumps(options))
    assert 400 <= answer.status_code < 500, (answer.status_code, plain(answer.text))
    assert "Traceback" not in answer.text
    assert server_of(alice) is None or not server_of(alice)["ready"]


def test_a_stored_odd_option_does_not_keep_the_next_spawn_from_working(hub, somebody):
    alice = somebody("alice")
    alice.api("POST", f"/users/{alice.name}/server", data=json.dumps(["a"]))
    start(alice, "cpu")
    assert server_of(alice)["ready"]


def test_an_impossible_request_is_refused_at_once_with_the_reason(hub, somebody):
    text = refused(somebody("alice"), "many")
    assert "99 GPUs" in text
    assert "2" in text


def test_more_memory_than_any_machine_has_is_refused_at_once(hub, somebody):
    assert "memory" in refused(somebody("alice"), "huge")


def test_a_missing_image_is_told_before_a_gpu_is_taken(hub, somebody):
    text = refused(somebody("alice"), "noimage")
    assert "gpuspawner-test/not-there" in text
    assert not hub.busy()


def test_many_refusals_in_a_row_do_not_end_the_hub(hub, somebody):
    for _ in range(7):
        refused(somebody("many"), "many")
    start(somebody("alice"), "cpu")


def test_the_admin_sees_the_profile_of_a_server(hub, somebody):
    alice = somebody("alice")
    start(alice, "cpu")
    admin = hub.person("admin", admin=True)
    model = admin.api("GET", f"/users/{alice.name}").json()
    assert model["servers"][""]["user_options"]["profile"] == "cpu"
