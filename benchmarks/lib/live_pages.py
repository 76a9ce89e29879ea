"""What 200 open pages cost the service, and how long a change takes to a screen.

A service in a process of its own serves *My servers* to 200 users with 100 GPUs, half of them in
use, and a queue. Twice a second an administrator's decision changes a GPU. The service's CPU time
is that of its process; the rest (the pages' ends, the browser) is on the other side of sockets.
``benchmarks/README.md`` says what each number means.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp

ROOT = Path(__file__).resolve().parents[2]
#: ticks of the kernel's clock per second
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


class Service:
    """The service under test: a line to its input is a command, a line of its output the answer."""

    def __init__(self, *words: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.lib.live_service", *words],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.url = self._line()

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            raise RuntimeError("the service ended")
        return line

    def change(self) -> float:
        """A GPU changes; POSIX seconds of the moment before."""
        assert self._process.stdin is not None
        self._process.stdin.write("change\n")
        self._process.stdin.flush()
        return float(self._line())

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait(10)


async def listen(url: str, pages: int, ready: asyncio.Event, count: list[int]) -> None:
    """Open so many pages' streams and read them until cancelled."""

    async def one(session: aiohttp.ClientSession, user: int) -> None:
        headers = {"X-User": f"user{user}"}
        async with session.get(f"{url}events/gpus", headers=headers) as stream:
            async for chunk in stream.content.iter_any():
                count[0] += len(chunk)
                if b"event: gpus" in chunk:
                    opened.add(user)
                    if len(opened) == pages:
                        ready.set()

    opened: set[int] = set()
    limits = aiohttp.ClientTimeout(total=None)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=limits, connector=connector) as session:
        await asyncio.gather(*(one(session, user) for user in range(pages)))


async def cost(service: Service, pages: int, seconds: float) -> tuple[float, float, int]:
    """(CPU percent with so many pages and 2 changes/s, the same without any page, bytes)."""
    loop = asyncio.get_running_loop()
    ready, count = asyncio.Event(), [0]

    async def busy() -> float:
        begun, cpu = time.monotonic(), cpu_seconds(service.pid)
        for step in range(int(seconds * 2)):
            await loop.run_in_executor(None, service.change)
            await asyncio.sleep(max(0.0, begun + (step + 1) / 2 - time.monotonic()))
        return 100 * (cpu_seconds(service.pid) - cpu) / (time.monotonic() - begun)

    idle = await busy()
    task = asyncio.create_task(listen(service.url, pages, ready, count))
    await asyncio.wait_for(ready.wait(), 60)
    count[0] = 0
    percent = await busy()
    task.cancel()
    await asyncio.wait([task])
    return percent, idle, count[0]


#: as root, and nothing outside of this machine
ARGUMENTS = ["--no-sandbox", "--no-proxy-server"]
SEEN = """
() => { window.changes = [];
  new MutationObserver(() => window.changes.push(Date.now() / 1000))
    .observe(document.getElementById("all"), {subtree: true, childList: true, attributes: true,
                                              characterData: true}); }
"""


def to_screen(service: Service, chromium: str, times: int) -> list[float]:
    """Seconds from a change to a page in a browser, each time."""
    from playwright.sync_api import sync_playwright

    found = []
    with sync_playwright() as playwright:
        program = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        page = program.new_context(extra_http_headers={"X-User": "user0"}).new_page()
        page.goto(service.url)
        page.locator("#devices tbody tr").first.wait_for()
        page.evaluate(SEEN)
        page.wait_for_timeout(2000)
        for _ in range(times):
            page.evaluate("window.changes = []")
            at = service.change()
            while not page.evaluate("window.changes.length"):  # a policy without eval: no wait_for
                if time.time() > at + 20:
                    raise RuntimeError("a change did not come to the screen")
                page.wait_for_timeout(20)
            found.append(float(page.evaluate("window.changes[0]")) - at)
            page.wait_for_timeout(700)
        program.close()
    return found


def browser() -> str | None:
    """A Chromium of this machine."""
    return next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)


def measure(pages: int, seconds: float) -> dict[str, Any]:
    """The numbers, without those of a browser where there is none."""
    result: dict[str, Any] = {}
    service = Service()
    try:
        percent, idle, sent = asyncio.run(cost(service, pages, seconds))
        result["live200_cpu_percent"] = round(percent - idle, 2)
        result["without_pages_cpu_percent"] = round(idle, 2)
        result["mb_per_s"] = round(sent / seconds / 1e6, 2)
        chromium = browser()
        if chromium is None:
            print("no browser: event_to_screen_s is not measured", file=sys.stderr)
        else:
            times = to_screen(service, chromium, 10)
            result["event_to_screen_s"] = round(max(times), 3)
            result["event_to_screen_median_s"] = round(statistics.median(times), 3)
    finally:
        service.close()
    return result
