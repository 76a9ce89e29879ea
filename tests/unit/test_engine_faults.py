"""What an answer proves: silence and 5xx prove nothing, 404 only in the engine's own words."""

from __future__ import annotations

import json
from typing import Any

import docker.errors
import pytest
import requests
import requests.exceptions
import urllib3.exceptions

from jupyterhub_gpuspawner.engine.faults import says_gone, translate
from jupyterhub_gpuspawner.errors import (
    DeviceMissing,
    EngineConflict,
    EngineError,
    EngineUnknown,
    ImageMissing,
    ServerDied,
)


def answer(
    status: int, words: str, kind: type[docker.errors.APIError] = docker.errors.APIError
) -> docker.errors.APIError:
    response = requests.Response()
    response.status_code = status
    return kind("failed", response=response, explanation=words)


def wrapped() -> docker.errors.DockerException:
    error = docker.errors.DockerException("Error while fetching server API version: refused")
    error.__cause__ = ConnectionRefusedError()
    return error


@pytest.mark.parametrize(
    ("error", "becomes"),
    [
        (answer(500, "driver failed to remove root filesystem"), EngineUnknown),
        (answer(502, "bad gateway"), EngineUnknown),
        (answer(503, "context deadline exceeded"), EngineUnknown),
        (answer(429, "slow down"), EngineUnknown),
        (answer(408, ""), EngineUnknown),
        (docker.errors.APIError("no response at all"), EngineUnknown),
        (answer(404, "page not found", docker.errors.NotFound), EngineUnknown),
        (answer(404, "", docker.errors.NotFound), EngineUnknown),
        (answer(404, '{"Id": "12", [1', docker.errors.NotFound), EngineUnknown),
        (answer(404, "<html>nginx</html>", docker.errors.NotFound), EngineUnknown),
        (answer(500, "mkdir /x: no space left on device"), EngineUnknown),
        (answer(400, "bad parameter"), EngineError),
        (answer(403, "forbidden"), EngineError),
        (answer(409, "container is paused"), EngineError),
        (answer(409, 'The container name "/x" is already in use by container "1"'), EngineConflict),
        (answer(404, "No such image: x:1", docker.errors.ImageNotFound), ImageMissing),
        (answer(500, "No such image: x:1"), ImageMissing),
        (answer(500, "unresolvable CDI devices nvidia.com/gpu=GPU-1"), DeviceMissing),
        (answer(400, "unresolvable CDI devices nvidia.com/gpu=GPU-1"), DeviceMissing),
        (answer(500, 'could not select device driver "nvidia" with capabilities'), DeviceMissing),
        (answer(500, "nvidia-container-cli: device error: GPU-1: unknown device"), DeviceMissing),
        (requests.exceptions.ReadTimeout("read"), EngineUnknown),
        (requests.exceptions.ConnectTimeout("connect"), EngineUnknown),
        (requests.exceptions.ConnectionError("aborted"), EngineUnknown),
        (requests.exceptions.ChunkedEncodingError("cut"), EngineUnknown),
        (requests.exceptions.JSONDecodeError("bad", "{", 1), EngineUnknown),
        (json.JSONDecodeError("bad", "{", 1), EngineUnknown),
        (urllib3.exceptions.ProtocolError("broken"), EngineUnknown),
        (urllib3.exceptions.ReadTimeoutError(None, "", "read"), EngineUnknown),  # type: ignore[arg-type]
        (ConnectionRefusedError("refused"), EngineUnknown),
        (BrokenPipeError(), EngineUnknown),
        (FileNotFoundError("/var/run/docker.sock"), EngineUnknown),
        (TimeoutError(), EngineUnknown),
        (docker.errors.StreamParseError("x"), EngineUnknown),
        (wrapped(), EngineUnknown),
        (docker.errors.InvalidVersion("too old"), EngineError),
        (docker.errors.NullResource("no id"), EngineError),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else repr(value)[:60],
)
def test_an_error_becomes_what_it_proves(error: Exception, becomes: type[EngineError]) -> None:
    translated = translate(error)
    assert type(translated) is becomes
    assert translated.log_message != translated.user_message
    assert "\n" not in translated.log_message


@pytest.mark.parametrize(
    "error",
    [
        answer(404, "No such container: abc", docker.errors.NotFound),
        answer(404, "network gpus not found", docker.errors.NotFound),
        ServerDied("ours"),
        KeyError("a bug"),
        KeyboardInterrupt(),
    ],
)
def test_what_is_clear_already_comes_back_as_it_is(error: BaseException) -> None:
    assert translate(error) is error


def test_the_engines_words_are_in_the_log_text() -> None:
    translated: Any = translate(answer(500, "disk is on fire"))
    assert translated.log_message == "Docker answered 500: disk is on fire"


@pytest.mark.parametrize(
    ("error", "gone"),
    [
        (answer(404, "No such container: abc", docker.errors.NotFound), True),
        (answer(404, 'no container with name or ID "abc": no such container'), True),
        (answer(404, "page not found", docker.errors.NotFound), False),
        (answer(404, "", docker.errors.NotFound), False),
        (answer(500, "No such container: abc"), False),
        (docker.errors.APIError("No such container"), False),
    ],
)
def test_only_the_engines_own_words_prove_absence(
    error: docker.errors.APIError, gone: bool
) -> None:
    assert says_gone(error) is gone
