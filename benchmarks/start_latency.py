# needs: testbed proxy
"""Seconds from the click on Start until the server is ready: stock DockerSpawner and ours.

Two Hubs run side by side on one engine, one with DockerSpawner 14, one with GPUDockerSpawner.
Starts alternate between them, so that whatever else the machine does hits both. Then twenty
people click at once, at one Hub and then at the other. The last line is one JSON object;
``benchmarks/README.md`` says what each number means.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import requests
from docker.errors import DockerException

from benchmarks.lib import clicks, memory
from benchmarks.lib.hubs import GPUHub, Place, StockHub, clean, containers_of
from benchmarks.lib.images import Images, ensure_all
from deploy.quickstart.person import PersonError
from deploy.quickstart.progress import step, ticking
from deploy.quickstart.settings import bridge_address
from deploy.quickstart.trial import TrialError, wait_for
from jupyterhub_gpuspawner.errors import GPUSpawnerError
from tests.testbed.engine import Engine

#: what is compared: name -> (which Hub, which image)
SERIES = {
    "ours_own": ("ours", "own"),
    "stock_plain": ("stock", "plain"),
    "stock_own": ("stock", "own"),
    "ours_stub": ("ours", "stub"),
    "stock_stub": ("stock", "stub"),
}
#: ratio -> (numerator, denominator)
RATIOS = {
    "own_image": ("ours_own", "stock_plain"),
    "same_image": ("ours_own", "stock_own"),
    "stub_image": ("ours_stub", "stock_stub"),
}
#: what we want of them
EXPECTED = {
    "own_image": 0.40,
    "same_image": 0.75,
    "concurrent20_last": 0.7,
    "hub_growth_mb": 40,
    "service_mb": 120,
}


@dataclass(kw_only=True)
class Bench:
    """Both Hubs, and what was measured."""

    place: Place
    hubs: dict[str, Any]
    ledger: str = ""
    #: seconds of each start, by series
    seconds: dict[str, list[float]] = field(default_factory=dict)
    #: for each round of many at once, the sorted seconds of all; by Hub
    crowds: dict[str, list[list[float]]] = field(default_factory=dict)
    #: seconds of CPU of the Hub's process for all rounds of many at once
    cpu: dict[str, float] = field(default_factory=dict)
    #: MiB of a Hub's process before the first start
    before: dict[str, float] = field(default_factory=dict)

    def start(self) -> None:
        """Start both Hubs."""
        for name, hub in self.hubs.items():
            hub.start()
            step(f"{name}: Hub runs (process {hub.pid})")
            self.before[name] = memory.rss(hub.pid)
        self.ledger = self.hubs["ours"].summary()["ledger"]

    def series(self, starts: int) -> None:
        """All series in turn, ``starts`` times, after one start each that does not count."""
        someone = {name: clicks.people(hub, ["single"])[0] for name, hub in self.hubs.items()}
        order = list(SERIES.items())
        for number in range(starts + 1):
            said = []
            for series, (name, image) in order:
                options = self.hubs[name].options(image)
                took = clicks.one(someone[name], options)
                said.append(f"{series} {took:.2f}")
                if number:
                    self.seconds.setdefault(series, []).append(took)
                someone[name].stop(limit=120)
                self._settle()
            step(f"{f'start {number} of {starts}' if number else 'warm-up'}: {', '.join(said)} s")
            order.reverse()

    def many(self, count: int, rounds: int) -> None:
        """``count`` people click at once on the stub image, at each Hub in turn."""
        names = [f"crowd{number:02d}" for number in range(1, count + 1)]
        crowd = {name: clicks.people(hub, names) for name, hub in self.hubs.items()}
        for number in range(rounds + 1):
            for name, hub in self.hubs.items():
                busy = memory.cpu_seconds(hub.pid)
                times = clicks.together(crowd[name], hub.options("stub"))
                busy = memory.cpu_seconds(hub.pid) - busy
                kind = f"round {number} of {rounds}" if number else "warm-up"
                step(
                    f"{count} at once, {kind}, {name}: first {times[0]:.2f}, "
                    f"median {statistics.median(times):.2f}, last {times[-1]:.2f} s, "
                    f"Hub's CPU {busy:.1f} s"
                )
                if number:
                    self.crowds.setdefault(name, []).append(times)
                    self.cpu[name] = self.cpu.get(name, 0.0) + busy
                clicks.stop_all(crowd[name])
                self._settle()

    def _settle(self) -> None:
        """Wait until nothing of the last start is left that could slow the next one."""
        client = self.place.client()
        try:
            left = lambda: containers_of(self.place, client, self.ledger)  # noqa: E731
            wait_for("removed containers", 60, lambda: not left())
        finally:
            client.close()
        wait_for("free GPUs", 60, lambda: not self.hubs["ours"].busy())

    def results(self, count: int) -> dict[str, Any]:
        """Ratios, medians and memory, for the last line."""
        medians = {name: statistics.median(values) for name, values in self.seconds.items()}
        found: dict[str, Any] = {
            ratio: round(medians[ours] / medians[stock], 3)
            for ratio, (ours, stock) in RATIOS.items()
            if medians
        }
        if self.crowds:
            last = {n: statistics.median(t[-1] for t in r) for n, r in self.crowds.items()}
            found[f"concurrent{count}_last"] = round(last["ours"] / last["stock"], 3)
            for name, rounds in self.crowds.items():
                middle = statistics.median(statistics.median(times) for times in rounds)
                found[f"{name}_{count}_last_s"] = round(last[name], 2)
                found[f"{name}_{count}_median_s"] = round(middle, 2)
                found[f"{name}_{count}_hub_cpu_s"] = round(self.cpu[name] / len(rounds), 2)
        for name, median in medians.items():
            found[f"{name}_s"] = round(median, 3)
        return {**found, **self._memory()}

    def _memory(self) -> dict[str, float]:
        now = {name: memory.rss(hub.pid) for name, hub in self.hubs.items()}
        supervisor, schedulers = memory.service_pids(self.hubs["ours"].pid)
        service = max((memory.rss(pid, peak=True) for pid in schedulers), default=0.0)
        both = service + memory.rss(supervisor, peak=True)
        found = {
            "hub_growth_mb": now["ours"] - self.before["ours"],
            "stock_hub_growth_mb": now["stock"] - self.before["stock"],
            "hub_mb": now["ours"],
            "stock_hub_mb": now["stock"],
            "service_mb": service,
            "service_and_supervisor_mb": both,
        }
        return {name: round(value, 1) for name, value in found.items()}


def find_place(url: str) -> Place:
    """The engine at ``url``; without one, the testbed's, which runs already."""
    if url:
        os.environ["DOCKER_HOST"] = url
        return Place(url=url, gateway=bridge_address())
    engine = Engine.from_environment()
    return Place(url=engine.base_url, gateway=engine.gateway, cdi_dir=str(engine.folder / "cdi"))


def prepare(place: Place) -> Images:
    """All images on the engine; says what is compared on what."""
    client = place.client()
    try:
        info, docker = client.info(), client.version()["Version"]
        print(
            f"machine: {info['NCPU']} CPUs, {info['MemTotal'] / 2**30:.0f} GiB, "
            f"Docker {docker}, Python {platform.python_version()}; no random numbers are used",
            flush=True,
        )
        with ticking():
            return ensure_all(client)
    finally:
        client.close()


def measure(bench: Bench, arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything, on Hubs that run."""
    if arguments.starts:
        bench.series(arguments.starts)
        for name, values in bench.seconds.items():
            print(f"{name}: {clicks.summary(values)} (least, median, most)")
    if arguments.concurrent:
        bench.many(arguments.concurrent, arguments.rounds)
    return bench.results(arguments.concurrent)


def verdict(found: dict[str, Any]) -> list[str]:
    """Which expectations are not met."""
    return [
        f"{name} is {found[name]}, expected at most {most}"
        for name, most in EXPECTED.items()
        if name in found and found[name] > most
    ]


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks/run start_latency", description=__doc__)
    parser.add_argument("--starts", type=int, default=10, help="starts of each series")
    parser.add_argument("--concurrent", type=int, default=20, help="people at once; 0 = none")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of people at once")
    parser.add_argument("--engine", default="", help="engine's URL; default: the testbed's")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Run it; 0, or 1 with a readable reason where it could not be measured."""
    arguments = parse(words)
    begun = time.monotonic()
    result: dict[str, Any] = {"ok": False}
    bench, place = None, None
    try:
        place = find_place(arguments.engine)
        images = prepare(place)
        names = {"own": images.own, "plain": images.plain, "stub": images.stub}
        gpus = max(arguments.concurrent, 1)
        hubs = {"ours": GPUHub(place, names, gpus), "stock": StockHub(place, names)}
        bench = Bench(place=place, hubs=hubs)
        bench.start()
        result = {"ok": True, **measure(bench, arguments)}
        result["missed"] = verdict(result)
    except (
        *(TrialError, PersonError, GPUSpawnerError, DockerException),
        *(requests.RequestException, OSError),
    ) as error:
        result = {"ok": False, "reason": str(error)}
        step(f"FAILED: {error}")
    finally:
        for hub in bench.hubs.values() if bench else ():
            if not result["ok"]:
                step(hub.last_words(30))
            hub.stop()
            hub.discard()
        if place is not None:
            clean(place, bench.ledger if bench else "")
    result["seconds"] = round(time.monotonic() - begun, 1)
    print(json.dumps(result), flush=True)
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
