"""What an answer of Docker proves, and what it does not.

One rule matters: silence, a cut reply or a 5xx never means "gone" and never means "not done".
Only the engine's own words "no such container" prove that a container is absent. Pure functions.
"""

from __future__ import annotations

import http.client
import json

import docker.errors
import requests.exceptions
import urllib3.exceptions

from ..errors import (
    DeviceMissing,
    EngineConflict,
    EngineError,
    EngineUnknown,
    GPUSpawnerError,
    ImageMissing,
)

_TRY_AGAIN = "Docker does not answer at the moment. Please try again in a minute."
_TELL_ADMIN = "Docker refused to do what your server needs. Please tell your administrator."

#: words (lower case) in a 4xx or 5xx answer that say what is missing, whatever the status
_DEVICE_WORDS = (
    "unresolvable cdi devices",
    "cdi device injection failed",
    "could not select device driver",
    "nvidia-container-cli",
    "unknown or invalid runtime name: nvidia",
)
_IMAGE_WORDS = ("no such image",)
_FULL_WORDS = ("no space left on device", "disk quota exceeded")
#: a 404 with these words comes from the HTTP router (wrong API version, a proxy)
_NO_ROUTE_WORDS = ("page not found",)
#: Docker's own words never begin like that: it is a torn answer, or a web server's page
_NO_WORDS = ("{", "<")
#: 4xx that say "not now" and nothing about the call
_NOT_NOW = (408, 425, 429)

_NO_ANSWER: tuple[type[BaseException], ...] = (
    requests.exceptions.RequestException,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    OSError,
    json.JSONDecodeError,
    docker.errors.StreamParseError,
)


def translate(error: BaseException) -> BaseException:
    """Return the error of this package that says what ``error`` proves.

    * no answer, a broken one, 5xx: :class:`EngineUnknown`
    * 404: :class:`docker.errors.NotFound`, as it came; an image's 404: :class:`ImageMissing`
    * 409 for a name: :class:`EngineConflict`
    * a device that can't be injected (any status): :class:`DeviceMissing`
    * another 4xx, or an argument that the SDK refused: :class:`EngineError`, nothing happened
    * anything else (ours, or a bug) comes back unchanged
    """
    if isinstance(error, GPUSpawnerError):
        return error
    if isinstance(error, docker.errors.APIError):  # before RequestException: it is one
        return _translate_answer(error)
    if isinstance(error, _NO_ANSWER):
        return EngineUnknown(f"no answer from Docker: {_text(error)}", _TRY_AGAIN)
    if isinstance(error, docker.errors.DockerException):
        # The SDK wraps what went wrong while it asked for the version in a bare exception.
        if isinstance(error.__cause__, _NO_ANSWER) or "fetching server API version" in str(error):
            return EngineUnknown(f"no answer from Docker: {_text(error)}", _TRY_AGAIN)
        return EngineError(f"Docker's SDK refused the call: {_text(error)}", _TELL_ADMIN)
    return error


def says_gone(error: docker.errors.APIError) -> bool:
    """Whether the engine itself says that there is no such container.

    A 404 alone is not enough: a proxy in between, or an API version that the engine does not
    have, answers 404 as well.
    """
    return error.status_code == 404 and "no such container" in explain(error).lower()


def lost(error: docker.errors.NotFound) -> EngineError:
    """Return the error for a 404 that nobody expected: what was asked for is not there."""
    return EngineError(
        f"the engine does not know it: {explain(error)}",
        "Docker does not find what your server needs, or lost it. Start it again; if it fails "
        "again, please tell an administrator.",
    )


def explain(error: docker.errors.APIError) -> str:
    """Return the engine's own words."""
    explanation = error.explanation
    if isinstance(explanation, bytes):
        return explanation.decode("utf-8", "replace")
    return str(explanation or "")


def _translate_answer(error: docker.errors.APIError) -> BaseException:
    words = explain(error).lower()
    text = f"Docker answered {error.status_code}: {explain(error) or 'nothing'}"
    status = error.status_code
    if any(part in words for part in _DEVICE_WORDS):
        return DeviceMissing(
            text, "A GPU of your server can't be connected. Please tell your administrator."
        )
    if isinstance(error, docker.errors.ImageNotFound) or any(p in words for p in _IMAGE_WORDS):
        return ImageMissing(
            text, "The image of your server is not there. Please tell your administrator."
        )
    if any(part in words for part in _FULL_WORDS):
        # a 5xx all the same: what was done before the disk was full is not known
        return EngineUnknown(
            text, "The disk of the machine is full. Please tell your administrator."
        )
    if status is None or status in _NOT_NOW or not 400 <= status < 500:
        return EngineUnknown(text, _TRY_AGAIN)
    if status == 404:
        no_route = any(part in words for part in _NO_ROUTE_WORDS)
        nothing = not words or words.startswith(_NO_WORDS)
        return EngineUnknown(text, _TRY_AGAIN) if no_route or nothing else error
    if status == 409 and "already in use" in words:
        return EngineConflict(
            text, "Something else on the machine has your server's name. Please tell your admin."
        )
    return EngineError(text, _TELL_ADMIN)


def _text(error: BaseException) -> str:
    """Return type and message, on one line of bearable length."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message[:500]}"
