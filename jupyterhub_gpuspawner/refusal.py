"""Telling the Hub that a server will not start, so that the user reads why.

The two Hub lines differ. On 6.x a ``SpawnException`` is a handled refusal. On 5.x any exception
counts as a failure of the *Hub*, which ends itself after five in a row (its
``consecutive_failure_limit``): five users who ask for too many GPUs must not end the Hub.
"""

from __future__ import annotations

from typing import Any

from tornado import web

from .errors import GPUSpawnerError, RefusedError, RequestError, SchedulerUnavailable

try:
    from jupyterhub.spawner import SpawnException
except ImportError:  # JupyterHub 5
    SpawnException = None


def status_of(error: GPUSpawnerError) -> int:
    """The HTTP status that fits.

    400 wrong options, 409 refused, 429 refused for now, 503 no scheduler, else 500.
    """
    if isinstance(error, RequestError):
        return 400
    if isinstance(error, RefusedError):
        return 409 if error.retry_after is None else 429
    return 503 if isinstance(error, SchedulerUnavailable) else 500


def refusal(spawner: Any, error: GPUSpawnerError) -> web.HTTPError:
    """The exception to raise from a spawn for ``error``; its user text reaches every page."""
    status = status_of(error)
    reason = getattr(error, "reason", type(error).__name__)
    if SpawnException is not None:
        refused = SpawnException(
            error.user_message,
            reason=reason,
            log_message=error.log_message,
            status_code=status,
        )
    else:
        refused = web.HTTPError(status, error.log_message, reason=reason)
        _do_not_count(spawner)
    # the failed page of 6.1 shows the text only from here
    refused.jupyterhub_message = error.user_message
    if isinstance(error, RefusedError) and error.retry_after is not None:
        refused.headers = {"Retry-After": str(error.retry_after)}
    return refused


def _do_not_count(spawner: Any) -> None:
    """Take back in advance the one that JupyterHub 5 is about to add to its failure count."""
    handler = getattr(spawner, "handler", None)
    if handler is not None:
        settings = handler.settings
        settings["failure_count"] = settings.get("failure_count", 0) - 1
