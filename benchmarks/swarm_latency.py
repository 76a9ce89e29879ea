# needs: testbed proxy
"""How fast servers start on a Swarm: stock SwarmSpawner and ours, in turn on the same Swarm.

Three questions. How long from the click until the server is ready; how long until somebody whose
image is nowhere is told so; and how long a freed GPU is idle while somebody waits for it. The
last line is one JSON object; ``benchmarks/README.md`` says what each number means.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

import requests
from docker.errors import DockerException

from benchmarks.lib import clicks
from benchmarks.lib.expected import missed
from benchmarks.lib.swarm_hubs import StockSwarmHub
from deploy.quickstart.person import PersonError
from deploy.quickstart.progress import step
from deploy.quickstart.trial import TrialError, wait_for
from jupyterhub_gpuspawner.engine import labels
from jupyterhub_gpuspawner.errors import GPUSpawnerError
from tests.hub.conftest import is_ready, line_up, start
from tests.swarm.hubs import SwarmHub
from tests.testbed.swarm import Swarm

EXPECTED = {
    "single": ("<=", 0.6),
    "rejected_s": ("<=", 2.0),
    "freed_to_start_s": ("<=", 1.0),
}
#: Hub -> what its form sends for the stub image, and for one that is nowhere
STUB = {"ours": {"profile": "gpu"}, "stock": {"image": "stub"}}
ABSENT = {"ours": {"profile": "noimage"}, "stock": {"image": "absent"}}
#: seconds until the stock Hub has given up
GIVES_UP = 180.0


class Bench:
    """Both Hubs, and what was measured."""

    def __init__(self, swarm: Swarm) -> None:
        self.swarm = swarm
        self.ours = SwarmHub(swarm)
        self.stock = StockSwarmHub(self.ours)
        self.hubs: dict[str, Any] = {"ours": self.ours, "stock": self.stock}

    def start(self) -> None:
        """Start both Hubs."""
        for name, hub in self.hubs.items():
            hub.start()
            step(f"{name}: Hub runs")
        wait_for("both workers", 60, lambda: len(self.ours.leases()) == 4)

    def single(self, starts: int) -> dict[str, Any]:
        """Starts in turn, after one each that does not count.

        Each by somebody else: Docker's DNS may lose the name of a service that is made again
        within seconds, and the stock spawner reaches its servers by name.
        """
        seconds: dict[str, list[float]] = {name: [] for name in self.hubs}
        order = list(self.hubs)
        for number in range(starts + 1):
            for name in order:
                someone = clicks.people(self.hubs[name], [f"single{number}"])[0]
                took = clicks.one(someone, STUB[name])
                step(f"start {number} of {starts}: {name} {took:.2f} s")
                if number:
                    seconds[name].append(took)
                someone.stop(limit=120)
                self._settle()
            order.reverse()
        for name, values in seconds.items():
            print(f"{name}: {clicks.summary(values)} (least, median, most)")
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        return {
            "single": round(medians["ours"] / medians["stock"], 3),
            **{f"{name}_s": round(median, 3) for name, median in medians.items()},
        }

    def rejected(self, rounds: int) -> dict[str, Any]:
        """Somebody asks for an image that is nowhere."""
        found: dict[str, Any] = {}
        for name, times in (("ours", rounds), ("stock", 1)):
            person = clicks.people(self.hubs[name], ["hopeless"])[0]
            seconds = [_until_told(person, ABSENT[name]) for _ in range(times)]
            step(f"no image: {name} told after {', '.join(f'{s:.2f}' for s in seconds)} s")
            found["rejected_s" if name == "ours" else f"{name}_rejected_s"] = round(max(seconds), 2)
            self._settle()
        return found

    def handed_over(self, rounds: int) -> dict[str, Any]:
        """All GPUs are taken and somebody waits for those that a stop frees."""
        first, second, waiting = clicks.people(self.ours, ["ann", "bob", "cy"])
        holders = [first, second]
        for holder in holders:
            start(holder, "gpu2")
        seconds = []
        for number in range(rounds):
            _, events = line_up(waiting, "gpu2")
            leaver = holders.pop(0)
            asked = time.time()
            leaver.stop(limit=120)
            if not is_ready(events):
                raise TrialError(f"{waiting.name} got no server")
            ended = self._moment("die", leaver.name, asked)
            began = self._moment("start", waiting.name, asked)
            seconds.append(began - ended)
            step(f"hand-over {number + 1} of {rounds}: {began - ended:.2f} s")
            holders.append(waiting)
            waiting = leaver
        clicks.stop_all(holders)
        return {
            "freed_to_start_s": round(statistics.median(seconds), 3),
            "freed_to_start_most_s": round(max(seconds), 3),
        }

    def _moment(self, action: str, user: str, since: float) -> float:
        """When a user's container last did something, by its own engine's clock."""
        found = []
        for node in self.swarm.workers:
            with self.swarm.client(node) as client:
                heard = client.events(
                    since=int(since),
                    until=int(time.time()) + 1,
                    filters={"event": action, "label": f"{labels.USER}={user}"},
                    decode=True,
                )
                found += [event["timeNano"] / 1e9 for event in heard]
        if not found:
            raise TrialError(f"no engine says {action!r} of {user}'s container")
        return max(found)

    def _settle(self) -> None:
        """Wait until nothing of the last start is left that could slow the next one."""

        def empty() -> bool:
            for node in self.swarm.workers:
                with self.swarm.client(node) as client:
                    if client.containers.list(all=True, ignore_removed=True):
                        return False
            with self.swarm.client() as client:
                return not client.api.tasks()

        wait_for("nodes without tasks", 120, empty)
        wait_for("free GPUs", 60, lambda: not self.ours.busy())


def _until_told(person: clicks.Clicker, options: dict[str, str]) -> float:
    """Seconds from the click until the person reads that the start has failed."""
    person.open_form()
    clicked = time.monotonic()
    answer = person.ask(options)
    if answer.status_code == 200 and "progress" in answer.text:
        try:
            person.wait(limit=GIVES_UP)
        except PersonError:
            return time.monotonic() - clicked
        raise TrialError(f"{person.name}: a server of an image that is nowhere")
    return time.monotonic() - clicked


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks/run swarm_latency", description=__doc__)
    parser.add_argument("--starts", type=int, default=10, help="starts of each Hub")
    parser.add_argument("--rounds", type=int, default=5, help="refusals, and hand-overs")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Run it; 0, or 1 with a readable reason where it could not be measured."""
    arguments = parse(words)
    begun = time.monotonic()
    swarm, bench = Swarm.from_environment(), None
    started = False
    try:
        started = swarm.start()
        if not started:
            swarm.wipe()
        bench = Bench(swarm)
        bench.start()
        found = {
            **bench.single(arguments.starts),
            **bench.rejected(arguments.rounds),
            **bench.handed_over(arguments.rounds),
        }
        result = {"ok": True, **found, "missed": missed(found, EXPECTED)}
    except (
        *(TrialError, PersonError, GPUSpawnerError, DockerException, AssertionError),
        *(requests.RequestException, OSError),
    ) as error:
        result = {"ok": False, "reason": str(error)}
        step(f"FAILED: {error}")
    finally:
        # ours last: the other one stands on its place in the network
        for hub in (bench.stock, bench.ours) if bench else ():
            if not result["ok"]:
                step(hub.last_words(30))
            hub.stop()
            hub.discard()
        if started:
            swarm.stop()
    result["seconds"] = round(time.monotonic() - begun, 1)
    print(json.dumps(result), flush=True)
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
