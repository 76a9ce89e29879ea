"""The matrix: which cases there are, which of them run, and what came of them.

Callable without pytest: ``tests.crash.matrix.run(...)``, or ``python -m tests.crash``.
"""

from __future__ import annotations

import hashlib
import itertools
import queue
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import TypeVar

from tests.auditor.verdict import Kind
from tests.crash import case as cases
from tests.crash import points as points_module
from tests.crash.case import Bench, Case, Result
from tests.crash.engines import CaseEngine, FakeCaseEngine
from tests.crash.lab import Lab, Zygote, shm
from tests.crash.results import Results, fingerprint
from tests.crash.scenarios import SCENARIOS, Scenario

T = TypeVar("T")
R = TypeVar("R")

#: cases at a time in one process; most of a case is waiting
AT_ONCE = 6


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """Percent of the cases that run, by kind of fault.

    ``once``: in one scenario (always the same one) of those that hit a point; ``again``: in the
    others.
    """

    once: Mapping[str, int]
    again: Mapping[str, int]


KINDS = ("own-kill", "other-kill", "exception", "lost", "cancel", "hang")
#: what CI runs
SHARE = Share(
    once={
        "own-kill": 100, "other-kill": 50, "exception": 20, "lost": 30, "cancel": 20, "hang": 6,
    },
    again={"own-kill": 8, "other-kill": 1, "exception": 3, "lost": 3, "cancel": 3, "hang": 1},
)  # fmt: skip
EVERYTHING = Share(once=dict.fromkeys(KINDS, 100), again=dict.fromkeys(KINDS, 100))


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """The sum of many results."""

    cases: int = 0
    passed: int = 0
    #: cases whose point was not hit this time, although the record has it
    missed: int = 0
    double_grants: int = 0
    lost_gpus: int = 0
    leaked_containers: int = 0
    wrong_devices: int = 0
    stopped_running: int = 0
    book_errors: int = 0
    over_capacity: int = 0
    over_quota: int = 0
    barred_devices: int = 0
    repeated: int = 0
    recovery_p99_s: float = 0.0
    points: int = 0
    seconds: float = 0.0

    @classmethod
    def of(cls, results: Sequence[Result], points: int, seconds: float) -> Counts:
        """Sum up."""
        times = sorted(result.recovery for result in results)
        kinds = [kind.value for kind in Kind]
        return cls(
            cases=len(results),
            passed=sum(result.ok for result in results),
            missed=sum(not result.struck for result in results),
            recovery_p99_s=round(times[(99 * len(times) - 1) // 100], 3) if times else 0.0,
            points=points,
            seconds=round(seconds, 1),
            **{kind: sum(getattr(r.verdict, kind) for r in results) for kind in kinds},
        )

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in asdict(self).items())


@dataclass(kw_only=True)
class Outcome:
    """All results of a run."""

    counts: Counts
    results: list[Result] = field(default_factory=list)

    @classmethod
    def of(cls, results: Sequence[Result], seconds: float) -> Outcome:
        """Sum up."""
        points = len({(result.case.scenario, result.case.point) for result in results})
        return cls(counts=Counts.of(results, points, seconds), results=list(results))

    @property
    def failed(self) -> list[Result]:
        return [result for result in self.results if not result.ok]


def faults_of(point: str) -> tuple[str, ...]:
    """What can happen at a point."""
    kills = ("kill-hub", "kill-scheduler")
    outside = _outside(point)
    if point.endswith(":before"):
        return (*kills, "exception", "hang") if outside else (*kills, "exception", "cancel", "hang")
    return (*kills, "lost") if outside else (*kills, "lost", "cancel")


def all_cases(scenario: str, points: Iterable[str]) -> list[Case]:
    """Every case of a scenario."""
    return [
        Case(scenario=scenario, point=point, fault=fault)
        for point in sorted(points)
        for fault in faults_of(point)
    ]


def choose(points: Mapping[str, Sequence[str]], share: Share = SHARE) -> list[Case]:
    """The cases of a share: always the same ones for the same points.

    Parameters
    ----------
    points:
        Scenario -> its points.
    """
    homes: dict[str, list[str]] = {}
    for scenario in sorted(points):
        for point in points[scenario]:
            homes.setdefault(point, []).append(scenario)
    found = []
    for scenario in sorted(points):
        for case in all_cases(scenario, points[scenario]):
            places = homes[case.point]
            home = places[_number(f"{case.point} {case.fault}") % len(places)]
            percent = share.once if scenario == home else share.again
            if _number(str(case)) % 100 < percent[_kind(case)]:
                found.append(case)
    return found


def sample(points: Mapping[str, Sequence[str]], scenarios: Sequence[str], most: int) -> list[Case]:
    """A fixed sample for a slow engine: exchanges first, each scenario and fault in its turn."""
    lanes = []
    for scenario in scenarios:
        found = all_cases(scenario, points[scenario])
        found.sort(key=lambda case: (not _outside(case.point), _number(str(case))))
        kinds = {fault: [c for c in found if c.fault == fault] for fault in points_module.FAULTS}
        lanes += [lane for lane in kinds.values() if lane]
    turns = [case for turn in zip_longest(*lanes) for case in turn if case is not None]
    return sorted(turns[:most])


def _outside(point: str) -> bool:
    return point.partition("|")[2].startswith(("engine ", "ledger "))


def _kind(case: Case) -> str:
    if not case.fault.startswith("kill-"):
        return case.fault
    role = case.point.partition("|")[0]
    return "own-kill" if case.fault == f"kill-{role}" else "other-kill"


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def complaints(scenario: Scenario, points: Sequence[str]) -> list[str]:
    """Where a scenario hits less than it must: the instrumentation or the operation is broken."""
    found = []
    for role, least in scenario.least.items():
        hit = sum(point.startswith(f"{role}|") for point in points)
        if hit < least:
            found.append(f"{scenario.name}: {hit} points in the {role}, at least {least} expected")
    for module in scenario.through:
        if not any(point.partition("|")[2].startswith(f"{module}:") for point in points):
            found.append(f"{scenario.name}: no point in {module}")
    return found


class Workshop:
    """A zygote and engines for cases; a context manager.

    Parameters
    ----------
    engines:
        Makes the engine of each thread; their number is how many cases run at a time.
    """

    def __init__(self, engines: Sequence[Callable[[Path], CaseEngine]] = ()) -> None:
        self._makers = list(engines) or [FakeCaseEngine] * AT_ONCE
        self._stack = ExitStack()
        self._benches: list[Bench] = []
        self.zygote: Zygote

    def __enter__(self) -> Workshop:
        with ExitStack() as stack:
            folder = shm()
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            self.zygote = Zygote(folder)
            stack.callback(self.zygote.close)
            for number, make in enumerate(self._makers):
                place = folder / str(number)
                place.mkdir()
                engine = make(place)
                stack.callback(engine.close)
                lab = Lab(self.zygote, engine, place)
                stack.callback(lab.close)
                bench = Bench(lab)
                stack.callback(bench.close)
                self._benches.append(bench)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def empty(self) -> None:
        """Leave nothing on the engines."""
        for bench in self._benches:
            bench.close()
            bench.lab.engine.reset()

    def record(self, names: Sequence[str]) -> dict[str, list[str]]:
        """Scenario -> its points."""
        return dict(
            zip(
                names,
                self._each(names, lambda bench, name: cases.record(bench.lab, SCENARIOS[name])),
                strict=True,
            )
        )

    def play(
        self, wanted: Sequence[Case], done: Callable[[Result], None] = lambda result: None
    ) -> Outcome:
        """Run cases, several at a time; results in the order of ``wanted``.

        ``done`` hears of each as it is over, in the thread that has played it.
        """
        begun = time.monotonic()

        def work(bench: Bench, case: Case) -> Result:
            result = bench.play(case)
            done(result)
            return result

        results = self._each(wanted, work)
        return Outcome.of(results, time.monotonic() - begun)

    def _each(self, wanted: Sequence[T], work: Callable[[Bench, T], R]) -> list[R]:
        """``work`` for each of ``wanted``, in a thread for each bench. Raises the first error."""
        todo: queue.SimpleQueue[int] = queue.SimpleQueue()
        for number in range(len(wanted)):
            todo.put(number)
        results: dict[int, R] = {}
        errors: list[BaseException] = []

        def labour(bench: Bench) -> None:
            try:
                while not errors:
                    number = todo.get_nowait()
                    results[number] = work(bench, wanted[number])
            except queue.Empty:
                pass
            except BaseException as error:  # noqa: BLE001 - told by the one who waits
                errors.append(error)

        threads = [threading.Thread(target=labour, args=(bench,)) for bench in self._benches]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        return [results[number] for number in range(len(wanted))]


def run(
    names: Sequence[str] = (),
    share: Share = SHARE,
    engines: Sequence[Callable[[Path], CaseEngine]] = (),
    most: int = 0,
) -> Outcome:
    """Record and play; the outcome of everything.

    Parameters
    ----------
    names:
        Scenarios; none = all.
    engines:
        See :class:`Workshop`.
    most:
        At most so many of the cases, from all over; 0 = all.
    """
    with Workshop(engines) as shop:
        chosen = choose(shop.record(list(names or SCENARIOS)), share)
        return shop.play(chosen[:: -(-len(chosen) // most) or 1] if most else chosen)


def finish(file: Path, at_once: int, say: Callable[[str], None]) -> Outcome:
    """Play every case that has not passed yet; the outcome of all of them.

    Parameters
    ----------
    file:
        Where the results are: of a run that was interrupted, and from now on.
    at_once:
        Cases at a time.
    say:
        Hears how far it is.
    """
    results, begun = Results(file, fingerprint()), time.monotonic()
    with Workshop([FakeCaseEngine] * at_once) as shop:
        if not results.points:
            results.begin(shop.record(list(SCENARIOS)))
        every = choose(results.points, EVERYTHING)
        # in no order, so that what is left after a while is like what was played
        left = sorted(results.left(every), key=lambda case: _number(str(case)))
        number = itertools.count(len(every) - len(left) + 1)

        def done(result: Result) -> None:
            results.add(result)
            now = next(number)
            if not result.ok:
                say(f"FAILED {result.case}")
            if now % 100 == 0:
                say(f"{now} of {len(every)} after {time.monotonic() - begun:.0f} s")

        shop.play(left, done)
    return Outcome.of([results.played[case] for case in every], time.monotonic() - begun)


def report(results: Iterable[Result]) -> str:
    """What failed, in words, with the logs."""
    return "\n\n".join(
        f"{result.case}\n{result.verdict} {result.trouble}\nstruck: {result.struck}\n{result.log}"
        for result in results
    )
