"""Any JSON, and anything that is no JSON, at the door of the internal API."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jupyterhub_gpuspawner.errors import RequestError
from jupyterhub_gpuspawner.scheduler.models import GPURequest, Mode
from jupyterhub_gpuspawner.service import bodies
from tests.unit.service_world import World

# real sockets, files or processes
pytestmark = pytest.mark.slow

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
FIELDS = ("id", "user", "server", "groups", "profile", "boot_id", "request", "nonsense")
#: nearly right bodies: known names with any value
NEARLY = st.dictionaries(st.sampled_from(FIELDS), JSON | st.just({"count": 1}), max_size=7)
MODELS = (bodies.Ask, bodies.Bind, bodies.Ended, bodies.Nothing, bodies.Stopping)


@given(data=st.binary() | (JSON | NEARLY).map(lambda value: json.dumps(value).encode()))
@settings(max_examples=80, deadline=None)
def test_a_body_is_right_or_one_clear_line(data: bytes) -> None:
    for model in MODELS:
        try:
            bodies.read(model, data)
        except RequestError as error:
            assert 0 < len(error.user_message) < 500
            assert "\n" not in error.user_message


@given(
    body=st.fixed_dictionaries(
        {"user": st.text(min_size=1)}, optional={"server": st.text(), "profile": st.text()}
    )
)
@settings(max_examples=60, deadline=None)
def test_text_that_is_let_in_can_be_stored(body: dict[str, str]) -> None:
    try:
        ask = bodies.read(bodies.Ask, json.dumps(body).encode())
    except RequestError:
        return
    for text in (ask.user, ask.server, ask.profile):
        assert "\0" not in text
        assert len(text.encode()) <= 255 * 4


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "user: Field required"),
        ({"user": ""}, "user: String should have at least 1 character"),
        ({"user": "a\0b"}, "user: String should match"),
        ({"user": "x" * 256}, "user: String should have at most 255"),
        ({"user": 1}, "user: Input should be a valid string"),
        ({"user": "a", "volumes": []}, "volumes: Extra inputs are not permitted"),
        ({"user": "a", "request": {"count": -1}}, "request.count: Input should be greater"),
        ({"user": "a", "request": {"count": True}}, "request.count: Input should be a valid int"),
        ({"user": "a", "request": {"count": "2"}}, "request.count: Input should be a valid int"),
        ({"user": "a", "request": {"cpu": float("nan")}}, "request.cpu: Input should be a finite"),
        ({"user": "a", "request": {"sharing": "all"}}, "request.sharing: Input should be"),
        ({"user": "a", "request": {"device": "GPU-1"}}, "request.device: Extra inputs"),
        ({"user": "a", "id": "../x"}, "id: String should match"),
    ],
)
def test_what_is_wrong_is_named(body: dict[str, Any], says: str) -> None:
    with pytest.raises(RequestError) as wrong:
        bodies.read(bodies.Ask, json.dumps(body).encode())
    assert says in wrong.value.user_message


def test_a_request_has_the_scheduler_s_values() -> None:
    body = {"count": 2, "model": "*A100*", "min_memory": 5, "sharing": "slots", "length": 60.0}
    ask = bodies.read(bodies.Ask, json.dumps({"user": "a", "request": body}).encode())
    assert ask.request.value() == GPURequest(
        count=2, model="*A100*", min_memory=5, sharing=Mode.SLOTS, length=60.0
    )


def test_no_body_counts_as_an_empty_one() -> None:
    assert bodies.read(bodies.Nothing, b"") == bodies.Nothing()


PATHS = (
    "requests",
    "requests/e1/cancel",
    "leases/l1/bind",
    "leases/l1/running",
    "leases/l1/stopping",
    "leases/l1/ended",
)


async def test_wrong_bodies_are_answered_400_in_json_and_never_500(tmp_path: Path) -> None:
    bad = [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b'"x"',
        b'{"a":1}',
        b"[" * 5000,
        b'{"user":"\\ud800"}',
    ]
    async with World(tmp_path).running() as world:
        for path in PATHS:
            for body in bad:
                response = await world.fetch(f"api/internal/{path}", body, method="POST")
                answer = json.loads(response.body)
                assert response.code < 500, (path, body, answer)
                if response.code != 200:
                    assert set(answer) == {"reason", "message"}, (path, body)


async def test_without_the_token_there_is_only_health(tmp_path: Path) -> None:
    async with World(tmp_path).running() as world:
        for token in (None, "", "wrong", "t" * 31, "ü"):
            for path in PATHS:
                response = await world.fetch(f"api/internal/{path}", {}, token=token)
                assert response.code == 403
            assert (await world.fetch("api/internal/summary", token=token)).code == 403
        assert (await world.fetch("api/health", token=None)).code == 200


async def test_other_addresses_and_methods_are_answered_in_json(tmp_path: Path) -> None:
    async with World(tmp_path).running() as world:
        cases = [("api/internal/nothing", "GET", 404), ("api/internal/requests", "GET", 405)]
        for path, method, code in cases:
            response = await world.fetch(path, method=method)
            assert response.code == code
            assert set(json.loads(response.body)) == {"reason", "message"}
