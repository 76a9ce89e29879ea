"""The REST API of a scheduler that runs, as the commands use it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from typing import Any, NoReturn
from urllib.parse import quote

import requests

from ..service.options import PREFIX
from .command import Argument, CommandError
from .site import CONFIG, options

#: items of a list
Rows = list[dict[str, Any]]
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

    def list(
        self,
        path: str,
        progress: Callable[[str, int, int], None],
        query: Mapping[str, Any] | None = None,
    ) -> list[dict[str, Any]]:
        """All items of a list, part by part. CommandError."""
        items: list[dict[str, Any]] = []
        while True:
            where = {**(query or {}), "limit": PART, "offset": len(items)}
            part = self._call("GET", path, params=where)
            items += part["items"]
            progress(path, len(items), part["total"])
            if len(items) >= part["total"] or not part["items"]:
                return items

    def newest(self, path: str, count: int) -> Rows:
        """The last items of a log, the newest first. CommandError."""
        items: Rows = []
        before: int | None = 0
        while before is not None and len(items) < count:
            where = {"limit": min(PART, count - len(items)), "before": before}
            part = self._call("GET", path, params=where)
            items += part["items"]
            before = part["next"]
        return items

    def text(self, path: str, query: Mapping[str, Any]) -> str:
        """What is no JSON. CommandError."""
        answer = self._ask("GET", path, params=query)
        if not answer.ok:
            self._fail(path, answer)
        return answer.text

    def health(self) -> dict[str, Any]:
        """How far the scheduler is. CommandError."""
        return self._call("GET", "health")

    def explain(self, name: str) -> dict[str, Any]:
        """Why a request waits, or why a server got its GPUs. CommandError."""
        return self._call("GET", f"explain/{quote(name, safe='')}")

    def post(self, *path: str, **body: Any) -> dict[str, Any]:
        """Do something; the answer. CommandError."""
        return self._call("POST", "/".join(quote(part, safe="") for part in path), json=body)

    def _call(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        answer = self._ask(method, path, **more)
        data = _json(answer)
        if not answer.ok or not isinstance(data, dict):
            self._fail(path, answer)
        return data

    def _ask(self, method: str, path: str, **more: Any) -> requests.Response:
        try:
            return self._web.request(method, self._url + path, timeout=LIMIT, **more)
        except requests.RequestException as error:
            raise CommandError(
                f"{self._url}: no answer ({_cause(error)}); is the Hub running?"
            ) from None

    def _fail(self, path: str, answer: requests.Response) -> NoReturn:
        data = _json(answer)
        if isinstance(data, dict) and isinstance(data.get("message"), str):
            raise CommandError(data["message"])
        raise CommandError(
            f"{self._url}{path}: answered {answer.status_code}, not as a scheduler does"
        )


def _json(answer: requests.Response) -> Any:
    """What the answer says; None where that is no JSON."""
    try:
        return answer.json()
    except ValueError:
        return None


def _cause(error: BaseException) -> str:
    """The innermost reason, without the layers that wrap it."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())
