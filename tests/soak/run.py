"""The soak itself: a Hub, users, chaos and an auditor, for a while; and what came of it."""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import requests

from deploy.quickstart.trial import TrialError, TrialHub, wait_for
from tests.auditor import Auditor, Verdict
from tests.auditor.engine_api import EngineSilent
from tests.soak.chaos import LONGEST, Chaos, scheduler_pids
from tests.soak.people import Diary, Guard, User
from tests.soak.recovery import Recovery, hub_alone
from tests.soak.vitals import Growth, Vitals, percentile

#: simulated GPUs, users who come and go, users who train; fewer GPUs than the users want
GPUS, USERS, TRAINERS = 6, 8, 2
#: the part of the time in which processes are killed; after it they live, and are measured
ROUGH = 0.6
#: seconds between two faults, two looks at memory, two judgements, two lines of progress
FAULTS, LOOK, JUDGE, SAY = (4.0, 12.0), 2.0, 30.0, 10.0
#: seconds in which everything has to be over at the end
QUIET = 180.0

NODE = "soak"
CONFIG = """
c.GPUDockerSpawner.mem_limit = "64M"
c.GPUDockerSpawner.stop_grace = 2
c.GPUDockerSpawner.engine_timeout = 20
c.JupyterHub.log_level = "INFO"
c.GPUScheduler.node_name = {node!r}
c.GPUScheduler.cdi_dir = {cdi!r}
c.GPUScheduler.discovery = "simulated"
c.GPUScheduler.reconcile_interval = 10
c.GPUDockerSpawner.profile_list = [
    {{"display_name": slug, "slug": slug, "spawner_override": {{"gpus": gpus}}}}
    for slug, gpus in (("gpu", 1), ("gpu2", 2), ("cpu", 0))
]
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What came of a soak."""

    seed: int
    seconds: float
    spawns: int
    kills: int
    faults: int
    #: seconds from a kill until all was right again, by what was killed
    recoveries: tuple[tuple[str, float], ...]
    #: seconds from a kill until a new server was ready
    newcomers: tuple[float, ...]
    #: seconds that JupyterHub takes without anything of ours, on the same machine
    hub_alone: float
    #: of hub and service
    growth: dict[str, Growth | None]
    verdict: Verdict
    #: what no user should see, and what grew without end
    complaints: tuple[str, ...]
    counts: dict[str, int]
    #: the end of the Hub's log, where something is wrong
    log: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return self.verdict.ok and not self.complaints

    @property
    def times(self) -> list[float]:
        """Seconds of all recoveries."""
        return [seconds for _, seconds in self.recoveries]

    def times_of(self, what: str) -> list[float]:
        """Seconds of the recoveries after kills of one thing."""
        return [seconds for name, seconds in self.recoveries if name == what]

    def lines(self) -> Iterator[str]:
        """In words."""
        yield f"seed {self.seed}, {self.seconds:.0f} s"
        yield f"spawns {self.spawns}, kills {self.kills}, recoveries {len(self.recoveries)}"
        yield "counts: " + ", ".join(f"{name} {n}" for name, n in sorted(self.counts.items()))
        for what in sorted({name for name, _ in self.recoveries}):
            times = self.times_of(what)
            yield (
                f"recovery of the {what}: p50 {percentile(times, 0.5):.1f} s, "
                f"p99 {percentile(times, 0.99):.1f} s ({len(times)})"
            )
        yield (
            f"recovery: p50 {percentile(self.times, 0.5):.1f} s, "
            f"p99 {percentile(self.times, 0.99):.1f} s"
        )
        yield (
            f"a new server: p50 {percentile(self.newcomers, 0.5):.1f} s, "
            f"p99 {percentile(self.newcomers, 0.99):.1f} s after the kill"
        )
        yield f"JupyterHub alone, without users: {self.hub_alone:.1f} s"
        for name, growth in self.growth.items():
            if growth is None:
                yield f"{name}: lived too short to be measured"
            else:
                yield (
                    f"{name}: over {growth.seconds:.0f} s after the warm-up memory "
                    f"{growth.memory:+.1f} MiB ({growth.memory_hour:+.0f} an hour), open files "
                    f"{growth.files:+.1f} ({growth.files_hour:+.0f} an hour)"
                )
        for text in self.complaints:
            yield f"COMPLAINT: {text}"
        yield f"the auditor: {self.verdict}"


@dataclass(kw_only=True)
class Soak:
    """Everything that runs during a soak."""

    hub: TrialHub
    engine: Any
    auditor: Auditor
    seed: int
    say: Callable[[str], None]
    guard: Guard = field(init=False)
    diary: Diary = field(default_factory=Diary)
    vitals: Vitals = field(default_factory=Vitals)
    users: list[User] = field(default_factory=list)
    verdict: Verdict = field(default_factory=lambda: Verdict.of([]))
    last_fault: str = "none"
    hub_alone: float = 0.0

    def __post_init__(self) -> None:
        self.guard = Guard(auditor=self.auditor)
        self.chaos = Chaos(
            hub=self.hub,
            engine=self.engine,
            canary=self.hub.person("canary"),
            guard=self.guard,
            diary=self.diary,
            rng=random.Random(self.seed),
            recovery=Recovery(
                hub=self.hub,
                engine=self.engine,
                admin=self.hub.person("admin", admin=True),
                newcomer="canary",
            ),
        )

    def populate(self) -> None:
        """Let the users in. The trainings first: they hold their servers all the time."""
        names = [(f"trainer{n}", True) for n in range(TRAINERS)]
        names += [(f"user{n}", False) for n in range(USERS)]
        for number, (name, steady) in enumerate(names):
            person = self.hub.person(name)
            user = User(
                person, self.guard, self.diary, seed=self.seed * 1000 + number, steady=steady
            )
            self.users.append(user)
            user.begin()

    def live(self, seconds: float) -> None:
        """Break things for a while, and watch."""
        begun = time.monotonic()
        with self._watching(begun):
            while (now := time.monotonic() - begun) < seconds:
                pause = self.chaos.rng.uniform(*FAULTS)
                time.sleep(min(pause, max(0.0, seconds - now)))
                if time.monotonic() - begun < seconds:
                    self.last_fault = self.chaos.once(gently=now > ROUGH * seconds)

    def calm(self) -> None:
        """Everybody stops; then nothing may be left, and the auditor judges that."""
        for user in self.users:
            user.tell()
        until = time.monotonic() + QUIET
        for user in self.users:
            if not user.join(max(0.0, until - time.monotonic())):
                self.diary.complain(f"{user.name} does not come to an end")
        try:
            wait_for("free GPUs and an empty queue", 60, self._idle)
        except TrialError as error:
            self.diary.complain(f"at the end: {error}")
        self.verdict = self.auditor.judge(running=())

    def _idle(self) -> bool:
        with suppress(requests.RequestException):
            summary = self.hub.summary()
            free = all(device["state"] == "free" for device in summary["devices"])
            return free and not summary["queue"] and not self.auditor.look().containers
        return False

    @contextmanager
    def _watching(self, begun: float) -> Iterator[None]:
        over = threading.Event()
        thread = threading.Thread(target=self._watch, args=(begun, over), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(60)

    def _watch(self, begun: float, over: threading.Event) -> None:
        said = judged = 0.0
        while not over.wait(LOOK):
            now = time.monotonic() - begun
            self.vitals.look("hub", self.hub.pid, now)
            for pid in scheduler_pids(self.hub.pid):
                self.vitals.look("service", pid, now)
            if now - judged >= JUDGE:
                judged = now
                with suppress(EngineSilent):  # it is frozen or dead at the moment
                    self.verdict = self.auditor.judge()
            if now - said >= SAY:
                said = now
                self.say(self._progress(now))

    def _progress(self, now: float) -> str:
        counts = self.diary.counts
        times = [seconds for _, seconds in self.chaos.recoveries]
        wrong = len(self.verdict.details) + len(self.diary.complaints)
        return (
            f"{now:.0f} s: {counts['clicks']} clicks, {counts['spawns']} spawns, "
            f"{counts['kills']} kills, slowest recovery {max(times, default=0.0):.1f} s, "
            f"{wrong} wrong; last: {self.last_fault}"
        )

    def _accused(self) -> set[str]:
        """Users of whose servers something is said to be wrong."""
        said = " ".join([*self.diary.complaints, str(self.verdict)])
        return {user.name for user in self.users if re.search(rf"\b{user.name}\b", said)}

    def result(self, seconds: float) -> Result:
        """What came of it."""
        growth = {name: self.vitals.growth(name) for name in ("hub", "service")}
        grown = [f"{name}: {g.too_much()}" for name, g in growth.items() if g and g.too_much()]
        counts = self.diary.counts
        wrong = not self.verdict.ok or bool(self.diary.complaints or grown)
        return Result(
            seed=self.seed,
            seconds=seconds,
            spawns=counts["spawns"],
            kills=counts["kills"],
            faults=counts["engine_faults"] + counts["containers_broken"],
            recoveries=tuple(self.chaos.recoveries),
            newcomers=tuple(self.chaos.newcomers),
            hub_alone=self.hub_alone,
            growth=growth,
            verdict=self.verdict,
            complaints=(*self.diary.complaints, *grown),
            counts=dict(counts),
            log=told_of(self.hub.log(), self._accused()) if wrong else "",
        )


def told_of(log: str, names: set[str]) -> str:
    """What a Hub's log says of some users, but their questions how it goes; and its end."""
    lines = [line for line in log.splitlines() if "GET /hub/api/users" not in line]
    about = [line for line in lines[:-50] if any(name in line for name in names)]
    return "\n  ".join(["its log:", *about[-250:], "…", *lines[-50:]])


@contextmanager
def live_restore(engine: Any) -> Iterator[None]:
    """Have containers outlive their engine: without it the next daemon ends what it finds."""
    engine.settings["live-restore"] = True
    engine.restart()
    try:
        yield
    finally:
        del engine.settings["live-restore"]
        engine.restart()


def soak(
    engine: Any, image: str, *, minutes: float, seed: int, say: Callable[[str], None]
) -> Result:
    """Run a soak on an engine of the testbed that is up and empty."""
    engine.wipe()  # what a killed earlier run left would own the engine
    with live_restore(engine):
        return _soak(engine, image, minutes=minutes, seed=seed, say=say)


def _soak(
    engine: Any, image: str, *, minutes: float, seed: int, say: Callable[[str], None]
) -> Result:
    hub = TrialHub(
        image=image,
        simulate=GPUS,
        after=CONFIG.format(node=NODE, cdi=str(engine.folder / "cdi")),
        env={"DOCKER_HOST": engine.base_url, "GPUS_BRIDGE_IP": engine.gateway},
    )
    auditor = Auditor([engine.socket])
    alone = hub_alone(hub.environment, LONGEST)
    begun = time.monotonic()
    # a machine that is busy with other things shall show in the recovery's seconds, no more
    hub.limit = LONGEST
    try:
        hub.start()
        auditor.ledger = hub.summary()["ledger"]
        auditor.book(hub.state / "gpus" / "ledger.sqlite")
        with auditor.watching():
            one = Soak(hub=hub, engine=engine, auditor=auditor, seed=seed, say=say)
            one.hub_alone = alone
            one.populate()
            one.live(minutes * 60)
            say("everybody stops")
            one.calm()
        return one.result(time.monotonic() - begun)
    except TrialError:
        say(hub.last_words(60))
        raise
    finally:
        hub.stop()
        (engine.folder / "cdi" / f"jupyterhub-gpuspawner-simulated-{NODE}.json").unlink(
            missing_ok=True
        )
        hub.discard()
        engine.wipe()
