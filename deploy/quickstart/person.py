"""A person at the Hub without a browser: the real login page, spawn form and kernel websocket.

The smoke test, the hub tests and the benchmarks use it. Everything is synchronous and bounded in
time; nothing is read from the Hub's database or from the spawner.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Iterator
from http.cookiejar import Cookie
from typing import Any
from urllib.parse import quote, urlsplit

import requests
from tornado.httpclient import HTTPRequest
from tornado.ioloop import IOLoop
from tornado.websocket import websocket_connect

#: seconds for one page
PAGE = 60.0
#: seconds after which a kernel that is silent is asked again
SILENT = 3.0


class PersonError(Exception):
    """What the person wanted did not happen; the text says what did."""


class Person:
    """One user with a cookie jar of their own.

    Parameters
    ----------
    base:
        The Hub's public URL, e.g. ``http://127.0.0.1:8000``.
    name, password:
        What the login page is given.
    """

    def __init__(self, base: str, name: str, password: str) -> None:
        self.base = base.rstrip("/")
        self.name = name
        self._password = password
        self._web = requests.Session()
        # loopback must not go through a proxy of the environment
        self._web.trust_env = False

    # -- the Hub ---------------------------------------------------------------------------

    def login(self) -> None:
        """Log in through the login page."""
        # connections to a Hub that was killed meanwhile are dead
        self._web.close()
        self._get("/hub/login")
        answer = self._web.post(
            f"{self.base}/hub/login",
            data={
                "username": self.name,
                "password": self._password,
                "_xsrf": self._xsrf("/hub/"),
            },
            timeout=PAGE,
        )
        if answer.status_code != 200 or "/hub/login" in answer.url:
            raise PersonError(f"{self.name}: login failed ({answer.status_code})")
        # the Hub may know the user by another spelling (lower case, composed characters)
        self.name = self.api("GET", "/user").json()["name"]

    def form(self) -> str:
        """The spawn page's HTML."""
        return self._get(f"/hub/spawn/{quote(self.name)}").text

    def ask(self, options: dict[str, str], server: str = "") -> requests.Response:
        """Send the spawn form. Returns the answer, which may be the pending page."""
        path = f"/hub/spawn/{quote(self.name)}" + (f"/{quote(server)}" if server else "")
        self._get(path)
        return self._web.post(
            self.base + path, data={**options, "_xsrf": self._xsrf("/hub/")}, timeout=PAGE
        )

    def progress(self, server: str = "", limit: float = 300.0) -> Iterator[dict[str, Any]]:
        """The pending page's events until the server is ready or has failed."""
        path = f"/hub/api/users/{quote(self.name)}/" + (
            f"servers/{quote(server)}/progress" if server else "server/progress"
        )
        until = time.monotonic() + limit
        with self._web.get(
            self.base + path, params={"_xsrf": self._xsrf("/hub/")}, stream=True, timeout=limit
        ) as answer:
            if answer.status_code != 200:
                raise PersonError(f"{self.name}: progress: {answer.status_code} {answer.text}")
            for line in answer.iter_lines():
                if time.monotonic() > until:
                    raise PersonError(f"{self.name}: not ready after {limit:g} s")
                if line.startswith(b"data:"):
                    event: dict[str, Any] = json.loads(line[5:])
                    yield event
                    if event.get("ready") or event.get("failed"):
                        return

    def wait(self, server: str = "", limit: float = 300.0) -> list[str]:
        """Wait until the server is ready; returns the messages on the way."""
        messages = []
        for event in self.progress(server, limit):
            messages.append(str(event.get("message", "")))
            if event.get("failed"):
                raise PersonError(f"{self.name}: the server failed: {' | '.join(messages)}")
            if event.get("ready"):
                return messages
        raise PersonError(f"{self.name}: progress ended early: {' | '.join(messages)}")

    def stop(self, server: str = "", limit: float = 60.0) -> None:
        """Stop the server, and wait until the Hub says that it is stopped."""
        until = time.monotonic() + limit
        while True:
            answer = self.api("DELETE", self._server_path(server))
            if answer.status_code == 204:
                return
            if answer.status_code != 202 or time.monotonic() > until:
                raise PersonError(f"{self.name}: stop: {answer.status_code} {answer.text}")
            time.sleep(0.2)

    def cancel(self, server: str = "") -> requests.Response:
        """Stop once, whatever the answer."""
        return self.api("DELETE", self._server_path(server))

    def api(self, method: str, path: str, **keywords: Any) -> requests.Response:
        """A call of the Hub's REST API as this person."""
        return self._web.request(
            method,
            f"{self.base}/hub/api{path}",
            headers={"X-XSRFToken": self._xsrf("/hub/"), "Referer": f"{self.base}/hub/home"},
            timeout=PAGE,
            **keywords,
        )

    def _server_path(self, server: str) -> str:
        user = quote(self.name)
        return f"/users/{user}/servers/{quote(server)}" if server else f"/users/{user}/server"

    # -- the server ------------------------------------------------------------------------

    def page(self, path: str) -> str:
        """The text of a page of the Hub or of one of its services, e.g. ``/services/gpus/``."""
        return self._get(path).text

    def visit(self, path: str, server: str = "") -> requests.Response:
        """GET a page of the person's own server, whatever it answers."""
        root = f"/user/{quote(self.name)}/" + (f"{quote(server)}/" if server else "")
        return self._web.get(self.base + root + path, timeout=PAGE)

    def run(self, code: str, server: str = "", limit: float = 60.0) -> str:
        """Run a cell in a new Python kernel through the websocket; returns what it printed."""
        root = f"/user/{quote(self.name)}/" + (f"{quote(server)}/" if server else "")
        self._get(f"{root}lab")  # logs in at the server, by OAuth
        headers = {"X-XSRFToken": self._xsrf(root)}
        answer = self._web.post(
            f"{self.base}{root}api/kernels", json={"name": "python3"}, headers=headers, timeout=PAGE
        )
        if answer.status_code != 201:
            raise PersonError(f"{self.name}: no kernel: {answer.status_code} {answer.text[:300]}")
        kernel = answer.json()["id"]
        try:
            return IOLoop(make_current=False).run_sync(
                lambda: self._execute(root, kernel, code), timeout=limit
            )
        finally:
            self._web.delete(
                f"{self.base}{root}api/kernels/{kernel}", headers=headers, timeout=PAGE
            )

    async def _execute(self, root: str, kernel: str, code: str) -> str:
        address = urlsplit(self.base)
        url = f"ws://{address.netloc}{root}api/kernels/{kernel}/channels"
        socket = await websocket_connect(
            HTTPRequest(url, headers={"Cookie": self._cookies(root), "Origin": self.base})
        )
        try:
            await _awake(socket)
            message_id = uuid.uuid4().hex
            content = {"code": code, "silent": False, "allow_stdin": False}
            await socket.write_message(_request("execute_request", message_id, content))
            return await _output(socket, message_id)
        finally:
            socket.close()

    # -- plumbing --------------------------------------------------------------------------

    def _get(self, path: str) -> requests.Response:
        answer = self._web.get(self.base + path, timeout=PAGE)
        if answer.status_code != 200:
            raise PersonError(f"{self.name}: {path}: {answer.status_code} {answer.text[:300]}")
        return answer

    def _xsrf(self, path: str) -> str:
        """The XSRF cookie of the most specific path."""
        found = [c for c in self._sent(path) if c.name == "_xsrf"]
        return max(found, key=lambda c: len(c.path)).value or "" if found else ""

    def _cookies(self, path: str) -> str:
        return "; ".join(f"{c.name}={c.value}" for c in self._sent(path))

    def _sent(self, path: str) -> list[Cookie]:
        """The cookies that a browser sends to an address of the Hub."""
        whole = urlsplit(self.base).path + path
        return [cookie for cookie in self._web.cookies if whole.startswith(cookie.path)]


def _request(kind: str, message_id: str, content: dict[str, Any]) -> str:
    header = {
        "msg_id": message_id,
        "msg_type": kind,
        "session": uuid.uuid4().hex,
        "username": "",
        "version": "5.3",
    }
    return json.dumps(
        {
            "header": header,
            "parent_header": {},
            "metadata": {},
            "content": content,
            "channel": "shell",
        }
    )


async def _awake(socket: Any) -> None:
    """Ask until the kernel is heard, as JupyterLab does: what comes too early is dropped."""
    asked, heard = {await _ask(socket)}, set()
    # an answer, and what all are told of it: then both ways to the kernel are open
    while not {"kernel_info_reply", "status"} <= heard:
        reading = asyncio.ensure_future(socket.read_message())
        while not (await asyncio.wait({reading}, timeout=SILENT))[0]:
            asked.add(await _ask(socket))
        message = _message(reading.result())
        if message["parent_header"].get("msg_id") in asked:
            heard.add(message["header"]["msg_type"])


async def _ask(socket: Any) -> str:
    message_id = uuid.uuid4().hex
    await socket.write_message(_request("kernel_info_request", message_id, {}))
    return message_id


def _message(raw: str | bytes | None) -> dict[str, Any]:
    if raw is None:
        raise PersonError("the kernel's connection closed")
    found: dict[str, Any] = json.loads(raw)
    return found


async def _output(socket: Any, message_id: str) -> str:
    """What the cell prints, until its kernel is idle again."""
    printed = []
    while True:
        message = _message(await socket.read_message())
        kind, content = message["header"]["msg_type"], message["content"]
        if kind == "status" and content["execution_state"] in ("restarting", "dead"):
            raise PersonError(f"the kernel died ({content['execution_state']})")
        if message["parent_header"].get("msg_id") != message_id:
            continue
        if kind == "stream":
            printed.append(content["text"])
        elif kind == "error":
            raise PersonError(f"the cell failed: {content['ename']}: {content['evalue']}")
        elif kind == "status" and content["execution_state"] == "idle":
            return "".join(printed)
