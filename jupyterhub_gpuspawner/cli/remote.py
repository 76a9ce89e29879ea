"""The REST API of a scheduler that runs, as the commands use it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import requests

from ..service.options import PREFIX
from .command import Argument, CommandError
from .site import CONFIG, options

#: seconds for one answer: longer than the scheduler gives itself
LIMIT = 20.0
#: items of one part of a list
PART = 1000
#: variable with the token for --url
TOKEN = "GPUS_TOKEN"

WHERE = (
    Argument(
        name="--url URL",
        help="address of the service, such as https://hub.example.org/services/gpus/, with a token "
        f"of the Hub in the variable {TOKEN}. Default: the scheduler of --config, on this machine",
    ),
    CONFIG,
)


class Remote:
    """One scheduler."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url.rstrip("/") + "/api/"
        self._web = requests.Session()
        self._web.headers["Authorization"] = f"token {token}"

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Remote:
        """The scheduler that the arguments name. CommandError, ConfigError."""
        if arguments.url:
            token = os.environ.get(TOKEN, "")
            if not arguments.url.startswith(("http://", "https://")):
                raise CommandError(f"--url {arguments.url}: want http://… or https://…")
            if not token:
                raise CommandError(f"{TOKEN} is not set: --url needs a token of the Hub in it")
            return cls(arguments.url, token)
        found = options(arguments)
        host, port = found.bind()
        try:
            token = found.token_path.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise CommandError(f"{found.token_path}: {error.strerror}") from None
        remote = cls(f"http://{host}:{port}{PREFIX}", token)
        # what is on this machine is reached without a proxy
        remote._web.trust_env = False
        return remote

    def list(self, path: str, progress: Callable[[str, int, int], None]) -> list[dict[str, Any]]:
        """All items of a list, part by part. CommandError."""
        items: list[dict[str, Any]] = []
        while True:
            part = self._call("GET", path, params={"limit": PART, "offset": len(items)})
            items += part["items"]
            progress(path, len(items), part["total"])
            if len(items) >= part["total"] or not part["items"]:
                return items

    def health(self) -> dict[str, Any]:
        """How far the scheduler is. CommandError."""
        return self._call("GET", "health")

    def explain(self, name: str) -> dict[str, Any]:
        """Why a request waits, or why a server got its GPUs. CommandError."""
        return self._call("GET", f"explain/{quote(name, safe='')}")

    def post(self, *path: str, **body: Any) -> None:
        """Do something. CommandError."""
        self._call("POST", "/".join(quote(part, safe="") for part in path), json=body)

    def _call(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        try:
            answer = self._web.request(method, self._url + path, timeout=LIMIT, **more)
        except requests.RequestException as error:
            raise CommandError(
                f"{self._url}: no answer ({_cause(error)}); is the Hub running?"
            ) from None
        try:
            data = answer.json()
        except ValueError:
            data = None
        if answer.ok and isinstance(data, dict):
            return data
        if isinstance(data, dict) and isinstance(data.get("message"), str):
            raise CommandError(data["message"])
        raise CommandError(
            f"{self._url}{path}: answered {answer.status_code}, not as a scheduler does"
        )


def _cause(error: BaseException) -> str:
    """The innermost reason, without the layers that wrap it."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())
