"""A refusal is read by the user, and no number of them ends the Hub, on either Hub line."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from tornado import web

from jupyterhub_gpuspawner import refusal as module
from jupyterhub_gpuspawner.errors import (
    EngineError,
    GPUSpawnerError,
    RefusedError,
    RequestError,
    SchedulerUnavailable,
)
from jupyterhub_gpuspawner.refusal import refusal, status_of

# takes JupyterHub to import
pytestmark = pytest.mark.slow

ERRORS = {
    400: RequestError("log", "user"),
    409: RefusedError("log", "user", reason="impossible"),
    429: RefusedError("log", "user", reason="too_many_requests", retry_after=7),
    503: SchedulerUnavailable("log", "user"),
    500: EngineError("log", "user"),
}
ON_6 = module.SpawnException is not None


def spawner(**settings: int) -> SimpleNamespace:
    return SimpleNamespace(handler=SimpleNamespace(settings=dict(settings)))


@pytest.mark.parametrize("status", ERRORS)
def test_each_kind_of_error_has_its_status_and_the_users_text(status: int) -> None:
    error = ERRORS[status]
    assert status_of(error) == status
    raised = refusal(spawner(), error)
    assert isinstance(raised, web.HTTPError)
    assert raised.status_code == status
    assert raised.jupyterhub_message == "user"  # type: ignore[attr-defined]
    assert "log" in str(raised)


def test_who_asks_too_often_is_told_when_to_ask_again() -> None:
    assert refusal(spawner(), ERRORS[429]).headers == {"Retry-After": "7"}
    assert not hasattr(refusal(spawner(), ERRORS[409]), "headers")


def test_the_reason_is_one_word_for_metrics() -> None:
    assert refusal(spawner(), ERRORS[409]).reason == "impossible"
    assert refusal(spawner(), ERRORS[500]).reason == "EngineError"


@pytest.mark.parametrize("text", ["100% of %s", "%(x)d", "%"])
def test_percent_signs_come_through_as_they_are(text: str) -> None:
    assert text in str(refusal(spawner(), GPUSpawnerError(text, text)))


def test_a_refusal_does_not_count_as_a_failure_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SpawnException", None)
    who = spawner(failure_count=3)
    raised = refusal(who, ERRORS[409])
    assert type(raised) is web.HTTPError
    assert raised.jupyterhub_message == "user"  # type: ignore[attr-defined]
    # JupyterHub 5 is about to add one
    assert who.handler.settings == {"failure_count": 2}


def test_a_spawn_without_a_page_has_no_count_to_take_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SpawnException", None)
    assert refusal(SimpleNamespace(handler=None), ERRORS[409]).status_code == 409


@pytest.mark.skipif(not ON_6, reason="JupyterHub 5 has no SpawnException")
def test_on_jupyterhub_6_a_refusal_is_a_handled_one() -> None:
    who = spawner(failure_count=3)
    assert isinstance(refusal(who, ERRORS[500]), module.SpawnException)  # type: ignore[arg-type]
    assert who.handler.settings == {"failure_count": 3}
