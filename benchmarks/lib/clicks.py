"""Clicks on Start, and the seconds until the server is there."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import requests

from deploy.quickstart.person import PAGE, Person, PersonError

#: seconds for a server to be ready
READY_LIMIT = 180.0


class Clicker(Person):
    """A person with the spawn form open."""

    def open_form(self) -> None:
        """Load the form, as a browser has before the click."""
        self.form()

    def click(self, options: dict[str, str]) -> tuple[float, float]:
        """Send the form and wait until the server is ready.

        Returns the monotonic seconds of the click, and of the moment when the Hub's progress
        said ready *and* the server had answered through the proxy.
        """
        clicked = time.monotonic()
        answer = self._web.post(
            f"{self.base}/hub/spawn/{quote(self.name)}",
            data={**options, "_xsrf": self._xsrf("/hub/")},
            timeout=PAGE,
        )
        if answer.status_code != 200:
            raise PersonError(f"{self.name}: the form answered {answer.status_code}")
        self.wait(limit=READY_LIMIT)
        while not self._answers():
            if time.monotonic() > clicked + READY_LIMIT:
                raise PersonError(f"{self.name}: ready, but no answer through the proxy")
            time.sleep(0.02)
        return clicked, time.monotonic()

    def _answers(self) -> bool:
        try:
            answer = self._web.get(
                f"{self.base}/user/{quote(self.name)}/api", timeout=PAGE, allow_redirects=False
            )
        except requests.RequestException:
            return False
        return answer.status_code == 200 and "version" in answer.text


def people(hub: Any, names: Sequence[str]) -> list[Clicker]:
    """Logged-in people."""
    found = [Clicker(hub.base, name, hub.password) for name in names]
    for person in found:
        person.login()
    return found


def one(person: Clicker, options: dict[str, str]) -> float:
    """Seconds of one start."""
    person.open_form()
    clicked, ready = person.click(options)
    return ready - clicked


def together(crowd: Sequence[Clicker], options: dict[str, str]) -> list[float]:
    """Everybody clicks at once; seconds from the first click until each is ready, sorted."""
    for person in crowd:
        person.open_form()
    gate = threading.Barrier(len(crowd))

    def go(person: Clicker) -> tuple[float, float]:
        gate.wait(PAGE)
        return person.click(options)

    with ThreadPoolExecutor(len(crowd)) as pool:
        times = list(pool.map(go, crowd))
    first = min(clicked for clicked, _ in times)
    return sorted(ready - first for _, ready in times)


def stop_all(crowd: Sequence[Clicker]) -> None:
    """Stop all servers, a few at a time: this is not measured."""
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda person: person.stop(limit=120), crowd))


def summary(values: Sequence[float]) -> str:
    """Minimum, median and maximum for people."""
    middle = statistics.median(values)
    return f"{min(values):.2f} / {middle:.2f} / {max(values):.2f} s"
