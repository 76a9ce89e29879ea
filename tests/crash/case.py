"""One case: an operation, a point, a fault; then a restart, and the auditor's verdict."""

from __future__ import annotations

import http.client
import json
import time
from dataclasses import dataclass
from typing import Any

from tests.auditor import book as books
from tests.auditor.verdict import Verdict
from tests.crash.channel import Dead
from tests.crash.lab import TOKEN, Lab, World
from tests.crash.scenarios import SCENARIOS, Scenario, Stage

#: seconds after the restart in which everything has to be right again
RECOVERY = 30.0
#: seconds between two looks
PAUSE = 0.1
#: seconds for points that come after the operation's answer
AFTERWARDS = 1.0
#: recordings that may go wrong
TRIES = 4


class NotPlayed(Exception):
    """Something went wrong that has nothing to do with the case."""


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Case:
    """What is struck where."""

    scenario: str
    #: ``role|point``
    point: str
    fault: str

    def __str__(self) -> str:
        return f"{self.scenario} {self.point} {self.fault}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What came of a case."""

    case: Case
    #: the point was hit
    struck: bool
    verdict: Verdict
    #: False = not even the operation without a fault went well, on a machine that was too busy
    played: bool = True
    #: what else is wrong; empty = nothing
    trouble: str = ""
    #: seconds from the restart until all was right
    recovery: float = 0.0
    log: str = ""

    @property
    def ok(self) -> bool:
        return self.verdict.ok and not self.trouble


def record(lab: Lab, scenario: Scenario) -> list[str]:
    """The points (``role|point``) that a scenario hits without a fault."""
    said = ""
    for _ in range(TRIES):
        with World(lab) as world:
            stage = Stage(world)
            try:
                _prepare(stage, scenario)
            except NotPlayed as error:
                said = str(error)
                continue
            _plan(world, scenario, lambda role: {"record": str(world.record)})
            scenario.act(stage)
            time.sleep(AFTERWARDS)
            found = sorted(set(world.record.read_text().split("\n")) - {""})
            _recovery, verdict, trouble = _recover(stage)
            # on a very busy machine a deadline passes, and that is another operation
            if stage.kept == set(scenario.after) and not trouble and verdict.ok:
                return found
            said = f"{stage.kept} {verdict} {trouble}\n{world.log_tail(60)}"
    raise AssertionError(f"{scenario.name}: not right even without a fault: {said}")


class Bench:
    """Plays cases one after the other, several in one world: each leaves it as good as new.

    Parameters
    ----------
    lab:
        Where.
    most:
        Cases in one world, so that its journal stays short.
    """

    def __init__(self, lab: Lab, most: int = 12) -> None:
        self.lab = lab
        self._most = most
        self._left = 0
        self._stage: Stage | None = None

    def close(self) -> None:
        """End the processes of the last case."""
        if self._stage is not None:
            self._stage.world.close()
        self._stage = None

    def play(self, case: Case) -> Result:
        """Play a case; once more where its point was missed, or where it could not be prepared."""
        result = self._once(case)
        if not result.played or (result.ok and not result.struck):
            result = self._once(case)
        return result

    def _once(self, case: Case) -> Result:
        if self._stage is None or self._left <= 0:
            self.close()
            self._stage, self._left = Stage(World(self.lab).open()), self._most
        self._left -= 1
        good = False
        try:
            result = run(self._stage, case)
            good = result.ok and not SCENARIOS[case.scenario].spoils
        except NotPlayed as error:
            nothing = Verdict()
            result = Result(
                case=case, struck=False, played=False, verdict=nothing, trouble=str(error)
            )
        finally:
            if not good:
                self.close()
        return result


def run(stage: Stage, case: Case) -> Result:
    """Play a case."""
    world, scenario = stage.world, SCENARIOS[case.scenario]
    role, _, point = case.point.partition("|")
    world.struck.unlink(missing_ok=True)
    _prepare(stage, scenario)

    def plan(which: str) -> dict[str, Any] | None:
        other = world.scheduler if which == "hub" else world.hub
        if which != role:
            return None
        pid = other.pid if other is not None and not other.gone else 0
        return {"point": point, "fault": case.fault, "other": pid, "struck": str(world.struck)}

    _plan(world, scenario, plan)
    try:
        scenario.act(stage)
    except Exception as error:
        said = world.log_tail(120)
        raise NotPlayed(f"the test itself failed: {error!r}\n{said}") from error
    end = time.monotonic() + AFTERWARDS
    while not world.struck.exists() and time.monotonic() < end:
        time.sleep(0.02)
    recovery, verdict, trouble = _recover(stage)
    ok = verdict.ok and not trouble
    return Result(
        case=case,
        struck=world.struck.exists(),
        verdict=verdict,
        trouble=trouble,
        recovery=recovery,
        log="" if ok else world.log_tail(80),
    )


def _prepare(stage: Stage, scenario: Scenario) -> None:
    """Without faults nothing may go wrong."""
    try:
        scenario.prepare(stage)
    except (Dead, RuntimeError, AssertionError) as error:
        said = stage.world.log_tail(80)
        raise NotPlayed(f"{scenario.name}: not prepared: {error!r}\n{said}") from error


def _plan(world: World, scenario: Scenario, plan: Any) -> None:
    """Arm both processes; the one that is about to be born gets its plan at birth."""
    for role, child in (("hub", world.hub), ("scheduler", world.scheduler)):
        wanted = plan(role)
        if wanted is None:
            continue
        if scenario.birth == role:
            world.birth_plans[role] = wanted
        elif child is not None and not child.gone:
            child.ask("arm", plan=wanted)


def _recover(stage: Stage) -> tuple[float, Verdict, str]:
    """Kill both, start both, and look until all is right or the time is over."""
    world = stage.world
    world.kill_all()
    world.birth_plans.clear()
    begun = time.monotonic()
    try:
        world.start_hub()
        world.start_scheduler()
        kept: set[str] = set(stage.hub.ask("restore"))
    except (Dead, RuntimeError) as error:
        return 0.0, Verdict(), f"no restart: {error}"
    while True:
        verdict, trouble = Verdict(), ""
        try:
            kept = {user for user in kept if stage.hub.ask("poll", user=user) is None}
            verdict = _judge(stage, kept)
            trouble = "" if not verdict.ok else _settled(stage, kept)
        except (Dead, RuntimeError, OSError, ValueError, http.client.HTTPException) as error:
            trouble = repr(error)
        took = time.monotonic() - begun
        if verdict.ok and not trouble:
            trouble = _can_be_leased(stage, kept)
            if not trouble:
                stage.kept = kept
                return took, verdict, ""
        if took > RECOVERY:
            return took, verdict, trouble
        time.sleep(PAUSE)


def _judge(stage: Stage, kept: set[str]) -> Verdict:
    stage.listen()
    return stage.auditor.judge(running=kept)


def _settled(stage: Stage, kept: set[str]) -> str:
    """Whether nothing is under way any more: the ledger's words and the service's. Else what is."""
    leases = books.now(str(stage.world.ledger)).leases.values()
    if stopping := sorted(str(one["key"]["user"]) for one in leases if one["target"] == "gone"):
        return f"not known to be gone yet: {', '.join(stopping)}"
    status, summary = _ask(stage.world, "GET", "summary", None)
    if status != 200:
        return f"summary: {status} {summary}"
    states = sorted(str(device["state"]) for device in summary["devices"])
    total = stage.world.engine.devices
    wanted = sorted(["busy"] * len(kept) + ["free"] * (total - len(kept)))
    if states != wanted:
        return f"devices are {states}, not {wanted}"
    if summary["queue"]:
        return f"{summary['queue']} still wait, and nobody is there who waits"
    return ""


def _can_be_leased(stage: Stage, kept: set[str]) -> str:
    """Nothing is lost if all that is free can be leased at once."""
    count = stage.world.engine.devices - len(kept)
    body = {
        "user": "probe",
        "server": "",
        "groups": [],
        "profile": "server",
        "boot_id": stage.world.boot_id,
        "request": {"count": count, "memory": 1},
    }
    try:
        connection = _connect(stage.world)
        try:
            connection.request("POST", *_request("requests", body))
            with connection.getresponse() as lines:
                for line in lines:
                    answer = json.loads(line)
                    if answer["event"] == "granted":
                        _ask(stage.world, "POST", f"requests/{answer['entry']}/cancel", {})
                        return ""
                    if answer["event"] != "queued":
                        return f"{count} free GPUs: {line!r}"
        finally:
            connection.close()
    except (OSError, ValueError, http.client.HTTPException) as error:
        return f"{count} free GPUs can't be leased: {error!r}"
    return f"{count} free GPUs: no answer"


def _connect(world: World) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", world.lab.port, timeout=4)


def _request(path: str, body: Any) -> tuple[str, str | None, dict[str, str]]:
    headers = {"Authorization": f"token {TOKEN}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body)
    return f"/services/gpus/api/internal/{path}", data, headers


def _ask(world: World, method: str, path: str, body: Any) -> tuple[int, Any]:
    connection = _connect(world)
    try:
        connection.request(method, *_request(path, body))
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()
