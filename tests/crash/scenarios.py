"""The operations that are struck. Each is prepared without faults and then acted once."""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field

from tests.auditor import Auditor
from tests.auditor import book as books
from tests.crash.channel import Child, Dead
from tests.crash.lab import World

#: seconds for an operation without faults; until a struck one is cancelled as the Hub would
PATIENCE, CANCEL_AFTER = 20.0, 2.5
AFTER_STRIKE = 1.5  # for what should follow by itself once the fault has struck


class Stage:
    """One world with its auditor, and the Hub's verbs on it. Serves several cases in a row."""

    def __init__(self, world: World) -> None:
        self.world = world
        #: the auditor has heard all events up to here
        self.heard = time.time()
        #: users whose servers run, as the Hub has it
        self.kept: set[str] = set()
        self._protected: set[str] = set()
        self.ledger = books.now(str(world.ledger)).ledger
        self.auditor = Auditor([world.engine.socket], self.ledger)
        self.auditor.book(world.ledger)

    @property
    def hub(self) -> Child:
        assert self.world.hub is not None
        return self.world.hub

    def up(self, *users: str) -> None:
        """Both processes, and running servers of exactly these users; they must not stop."""
        world = self.world
        for user in list(self._protected):
            self.release(user)
        if world.hub is None or world.hub.gone:
            world.start_hub()
        if world.scheduler is None or world.scheduler.gone:
            world.start_scheduler()
        for user in sorted(self.kept - set(users)):
            self.hub.ask("stop", user=user)
        for user in users:
            if user not in self.kept:
                self.start(user)
            self.protect(user)
        self.kept = set(users)

    def start(self, user: str) -> None:
        """A server without a fault. On a busy machine the short deadlines may pass: again."""
        for _ in range(4):
            with suppress(RuntimeError):
                self.hub.ask("start", user=user, seconds=60)
                return
        self.hub.ask("start", user=user, seconds=60)

    def protect(self, user: str) -> None:
        """This server must not end from now on."""
        self._protected.add(user)
        self.auditor.protect(user)

    def release(self, user: str) -> None:
        """It may."""
        self._protected.discard(user)
        self.auditor.release(user)

    def listen(self) -> None:
        """Have the auditor hear what happened since it last did."""
        since, self.heard = self.heard - 1.0, time.time()
        self.auditor.replay(since)

    def act(self, verb: str, user: str) -> bool:
        """One verb of the Hub while faults strike; whether it succeeded.

        A scheduler that dies is started again at once, as its supervisor does; an operation that
        hangs is cancelled, as the Hub's own time-outs do.
        """
        return self.finish(self.hub.send(verb, user=user), user)

    def finish(self, number: int, user: str) -> bool:
        """Wait for a verb that was begun."""
        limit, cancelled = time.monotonic() + PATIENCE, False
        while True:
            self.revive()
            try:
                answer = self.hub.wait(number, 0.05)
            except Dead:
                return False
            if answer is not None:
                return "error" not in answer
            if not cancelled and self.world.struck.exists():
                cancelled, limit = True, time.monotonic() + CANCEL_AFTER
            elif time.monotonic() > limit:
                break
        number = self.hub.send("cancel", user=user)
        with suppress(Dead):
            self.hub.wait(number, CANCEL_AFTER)
        return False

    def revive(self) -> None:
        """The supervisor: a dead scheduler is started again."""
        scheduler = self.world.scheduler
        if scheduler is not None and scheduler.gone:
            self.world.start_scheduler()

    def until(self, what: Callable[[], bool], seconds: float = PATIENCE) -> bool:
        """Look until it is so, reviving the scheduler meanwhile; not for long after the strike."""
        struck, end = False, time.monotonic() + seconds
        while not what():
            if not struck and self.world.struck.exists():
                struck, end = True, time.monotonic() + AFTER_STRIKE
            if time.monotonic() > end:
                return False
            self.revive()
            time.sleep(0.02)
        return True

    def waiting(self) -> int:
        """How many entries of the ledger wait."""
        return len(books.now(str(self.world.ledger)).waiting)

    def leases(self) -> set[str]:
        """Users with a live lease."""
        book = books.now(str(self.world.ledger))
        return {str(lease["key"]["user"]) for lease in book.leases.values()}


@dataclass(frozen=True, kw_only=True, slots=True)
class Scenario:
    """One operation."""

    name: str
    #: without faults, up to the moment before
    prepare: Callable[[Stage], None]
    #: what is struck
    act: Callable[[Stage], None]
    #: whose servers run in the end if nothing strikes
    after: tuple[str, ...]
    #: the process whose start is the operation; empty = both are there already
    birth: str = ""
    #: the fewest points that it has to hit, by role
    least: dict[str, int] = field(default_factory=dict)
    #: modules in which it has to hit points
    through: tuple[str, ...] = ()
    #: the world is no good for another case afterwards
    spoils: bool = False


def _bob(stage: Stage) -> None:
    stage.up("bob")


def _both(stage: Stage) -> None:
    stage.up("bob", "alice")


def _may_end(stage: Stage) -> None:
    _both(stage)
    stage.release("alice")


def _start(stage: Stage) -> None:
    if stage.act("start", "alice"):
        stage.protect("alice")


def _stop(stage: Stage) -> None:
    stage.act("stop", "alice")


def _die(stage: Stage) -> None:
    stage.world.engine.die("alice")
    stage.act("poll", "alice")
    stage.until(lambda: "alice" not in stage.leases())


def _cancel(stage: Stage) -> None:
    engine, before = stage.world.engine, stage.world.engine.creates()
    engine.slow_create()
    number = stage.hub.send("start", user="alice")
    stage.until(lambda: engine.creates() > before or stage.hub.gone)  # it takes long
    stage.hub.send("cancel", user="alice")
    stage.finish(number, "alice")


def _full(stage: Stage) -> None:
    stage.up("bob", "carol")
    stage.release("carol")


def _cancel_waiting(stage: Stage) -> None:
    number = stage.hub.send("start", user="alice")
    stage.until(lambda: stage.waiting() > 0 or stage.hub.gone)
    stage.hub.send("cancel", user="alice")
    stage.finish(number, "alice")
    stage.until(lambda: stage.waiting() == 0)


_begun: dict[Stage, int] = {}


def _one_waits(stage: Stage) -> None:
    _full(stage)
    _begun[stage] = stage.hub.send("start", user="alice")
    assert stage.until(lambda: stage.waiting() == 1)


def _stop_for_the_next(stage: Stage) -> None:
    number = _begun.pop(stage)
    stage.act("stop", "carol")
    if stage.finish(number, "alice"):
        stage.protect("alice")


def _behind_our_back(stage: Stage) -> None:
    stage.world.engine.remove("alice")
    stage.world.engine.stray(stage.ledger)
    stage.until(lambda: not ({"alice"} & stage.leases() or stage.world.engine.has("ghost")))


def _scheduler_down(stage: Stage) -> None:
    _may_end(stage)
    assert stage.world.scheduler is not None
    stage.world.scheduler.kill()
    stage.world.engine.remove("alice")
    stage.world.engine.stray(stage.ledger)


def _scheduler_up(stage: Stage) -> None:
    try:
        stage.world.start_scheduler()
    except Dead:
        stage.world.start_scheduler()
    stage.until(lambda: "alice" not in stage.leases())


def _old_backup(stage: Stage) -> None:
    """The ledger is put back to a time before alice's server, which runs."""
    stage.up("bob")
    world = stage.world
    assert world.scheduler is not None
    world.scheduler.kill()
    backup = world.folder / "backup.sqlite"
    _copy_ledger(world, backup)
    world.start_scheduler()
    stage.start("alice")
    stage.protect("alice")
    world.scheduler.kill()
    for part in world.ledger.parent.glob("ledger.sqlite-*"):
        part.unlink()
    shutil.copyfile(backup, world.ledger)


def _copy_ledger(world: World, target: object) -> None:
    with (
        closing(sqlite3.connect(world.ledger)) as source,
        closing(sqlite3.connect(str(target))) as copy,
    ):
        source.backup(copy)


def _adopted_by_scheduler(stage: Stage) -> None:
    try:
        stage.world.start_scheduler()
    except Dead:
        stage.world.start_scheduler()
    stage.until(lambda: "alice" in stage.leases())


def _hub_down(stage: Stage) -> None:
    _both(stage)
    stage.hub.kill()


def _hub_died_in_mid_start(stage: Stage) -> None:
    """alice's container runs, and the Hub died before it could save that."""
    _hub_down(stage)
    memory = stage.world.folder / "hub.json"
    known = json.loads(memory.read_text())
    known["alice"] = {"state": None}
    memory.write_text(json.dumps(known))


def _hub_up(stage: Stage) -> None:
    try:
        hub = stage.world.start_hub()
        number = hub.send("restore")
        stage.until(lambda: hub.gone or hub.wait(number, 0.01) is not None)
    except Dead:
        pass


SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        Scenario(
            name="start",
            after=("bob", "alice"),
            prepare=_bob,
            act=_start,
            least={"hub": 60, "scheduler": 40},
            through=("launch", "spawner", "client", "engine.pool", "service.actor"),
        ),
        Scenario(
            name="stop",
            after=("bob",),
            prepare=_may_end,
            act=_stop,
            least={"hub": 25, "scheduler": 30},
            through=("ending", "client", "engine.pool", "service.removals", "service.reconciler"),
        ),
        Scenario(
            name="poll",
            after=("bob",),
            prepare=_may_end,
            act=_die,
            least={"hub": 20, "scheduler": 30},
            through=("dockerspawner", "ending", "service.reconciler"),
        ),
        Scenario(
            name="cancel",
            after=("bob",),
            prepare=_bob,
            act=_cancel,
            least={"hub": 40, "scheduler": 30},
            through=("launch", "dockerspawner", "service.actor"),
        ),
        Scenario(
            name="cancel-waiting",
            after=("bob", "carol"),
            prepare=_full,
            act=_cancel_waiting,
            least={"hub": 15, "scheduler": 20},
            through=("client", "spawner", "service.api_internal"),
        ),
        Scenario(
            name="grant",
            after=("bob", "alice"),
            prepare=_one_waits,
            act=_stop_for_the_next,
            least={"hub": 60, "scheduler": 40},
            through=("ending", "launch", "client", "service.api_internal", "service.reconciler"),
        ),
        Scenario(
            name="reconcile",
            after=("bob",),
            prepare=_may_end,
            act=_behind_our_back,
            least={"hub": 10, "scheduler": 40},
            through=("service.reconciler", "service.removals", "service.engine_view"),
        ),
        Scenario(
            name="reconcile-at-start",
            after=("bob",),
            prepare=_scheduler_down,
            act=_scheduler_up,
            birth="scheduler",
            least={"scheduler": 60},
            through=("service.app", "service.runtime", "service.reconciler", "service.actor"),
        ),
        Scenario(
            name="adopt-by-scheduler",
            after=("bob", "alice"),
            spoils=True,
            prepare=_old_backup,
            act=_adopted_by_scheduler,
            birth="scheduler",
            least={"scheduler": 60},
            through=("service.reconciler", "service.engine_view"),
        ),
        Scenario(
            name="adopt-by-hub",
            after=("bob", "alice"),
            prepare=_hub_down,
            act=_hub_up,
            birth="hub",
            least={"hub": 10},
            through=("dockerspawner", "engine.pool"),
        ),
        Scenario(
            name="adopt-mid-start",
            after=("bob", "alice"),
            prepare=_hub_died_in_mid_start,
            act=_hub_up,
            birth="hub",
            least={"hub": 10},
            through=("dockerspawner", "engine.pool"),
        ),
    )
}
