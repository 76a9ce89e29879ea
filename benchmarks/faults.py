# needs: testbed proxy init
"""What holds when things fail: crash matrix, real-engine sample, engine faults, and a soak.

Nothing is timed but the recovery from kills. The last line is one JSON object;
``benchmarks/README.md`` says what each number means.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from deploy.quickstart.progress import step
from tests.soak.run import Result, soak
from tests.soak.vitals import percentile
from tests.summary import count
from tests.testbed.engine import Engine
from tests.testbed.images import ensure_stub

ROOT = Path(__file__).resolve().parents[1]
#: the crash matrix on the real engine, and the rest of that folder: the table of engine faults
SAMPLE, TABLE = ROOT / "tests/faults/test_crash_sample.py", ROOT / "tests/faults"
#: violations that the auditor counts
KINDS = (
    *("double_grants", "lost_gpus", "leaked_containers", "wrong_devices"),
    *("stopped_running", "book_errors"),
    *("over_capacity", "over_quota", "barred_devices", "repeated"),
)
#: seconds from a kill until all is right again
RECOVERY = 10.0
#: what the soak kills
KILLED = ("hub", "scheduler", "engine")
#: seconds for one pytest run
LONGEST = 3600


@dataclass(kw_only=True)
class Sums:
    """What was counted."""

    cases: int = 0
    passed: int = 0
    #: by kind of violation
    violations: Counter[str] = field(default_factory=Counter)
    #: more keys of the result
    extra: dict[str, Any] = field(default_factory=dict)
    #: parts that are not in this tree
    missing: list[str] = field(default_factory=list)

    def add(self, found: Counter[str]) -> int:
        """Take in what pytest reported; how many ran."""
        ran = found["passed"] + found["failed"]
        self.cases += ran
        self.passed += found["passed"]
        self.violations.update({kind: found[kind] for kind in KINDS})
        return ran


def crash_matrix(sums: Sums, everything: bool, most: int) -> None:
    """The crash matrix on the fake engine; ``most`` cases of it, 0 = all."""
    if importlib.util.find_spec("tests.crash.matrix") is None:
        sums.missing.append("crash matrix")
        return
    from tests.crash import matrix

    share = matrix.EVERYTHING if everything else matrix.SHARE
    outcome = matrix.run(share=share, most=most)
    counts = outcome.counts
    sums.cases += counts.cases
    sums.passed += counts.passed
    sums.extra.update(matrix_cases=counts.cases, matrix_points=counts.points)
    sums.violations.update({kind: getattr(counts, kind, 0) for kind in KINDS})
    if outcome.failed:
        print(matrix.report(outcome.failed), file=sys.stderr)
    step(f"crash matrix: {counts}")


def real_engine(sums: Sums) -> None:
    """The sample of the crash matrix, and the table of faults, on the testbed's engine."""
    sums.extra["real_engine_cases"] = sums.extra["fault_cases"] = 0
    if SAMPLE.exists():
        sums.extra["real_engine_cases"] = sums.add(run_pytest(SAMPLE))
    else:
        sums.missing.append("real-engine sample")
    if list(TABLE.glob("test_*.py")):
        found = run_pytest(TABLE, f"--ignore={SAMPLE}")
        sums.extra["fault_cases"] = sums.add(found)
    else:
        sums.missing.append("engine faults")


def run_pytest(path: Path, *more: str) -> Counter[str]:
    """Run tests, their output on stderr; passed, failed and skipped."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", str(path), "-q", f"--junitxml={report}", *more]
        code = subprocess.run(
            command, cwd=ROOT, stdout=sys.stderr, timeout=LONGEST, check=False
        ).returncode
        found, cases = count(report, code), crash_cases(report)
        if cases["passed"]:
            # the cases are what is counted, not the few tests that play them
            found = Counter({**cases, "failed": max(cases["failed"], found["failed"])})
    step(f"{path.name}: {found['passed']} passed, {found['failed']} failed")
    return found


def crash_cases(report: Path) -> Counter[str]:
    """What tests say of the crash cases that they have played: each is a case of its own."""
    found: Counter[str] = Counter()
    if report.exists():
        for one in ElementTree.parse(report).getroot().iter("property"):
            if one.get("name") == "crash_real":
                counts = json.loads(one.get("value") or "{}")
                found["passed"] += counts["passed"]
                found["failed"] += counts["cases"] - counts["passed"]
                found.update({kind: counts.get(kind, 0) for kind in KINDS})
    return found


def run_soak(sums: Sums, minutes: float, seed: int) -> Result:
    """The soak; one more case, which passes or not."""
    engine = Engine.from_environment()
    client = engine.client(timeout=600)
    image = ensure_stub(client)
    client.close()
    result = soak(engine, image, minutes=minutes, seed=seed, say=step)
    for line in result.lines():
        step(line)
    if not result.ok:
        print(result.log, file=sys.stderr)
    sums.cases += 1
    sums.passed += int(result.ok)
    sums.violations.update({kind: getattr(result.verdict, kind) for kind in KINDS})
    sums.extra.update(
        soak_spawns=result.spawns,
        soak_kills=result.kills,
        soak_faults=result.faults,
        soak_recoveries=len(result.recoveries),
        soak_seed=result.seed,
        recovery_p50_s=round(percentile(result.times, 0.5), 2),
        recovery_p99_s=round(percentile(result.times, 0.99), 2),
        new_server_p99_s=round(percentile(result.newcomers, 0.99), 2),
        hub_alone_s=round(result.hub_alone, 2),
        **{
            f"recovery_{name}_p99_s": round(percentile(result.times_of(name), 0.99), 2)
            for name in KILLED
        },
    )
    return result


def verdict(found: dict[str, Any]) -> list[str]:
    """Which expectations are not met."""
    wrong = [f"{kind} is {found[kind]}, expected 0" for kind in KINDS if found[kind]]
    if found["passed"] != found["cases"]:
        wrong.append(f"{found['cases'] - found['passed']} of {found['cases']} cases failed")
    if found.get("recovery_p99_s", 0.0) >= RECOVERY:
        wrong.append(f"recovery_p99_s is {found['recovery_p99_s']}, expected below {RECOVERY:g}")
    return wrong + [f"not run: {part}" for part in found["missing"]]


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks/run faults", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="of the soak; 0 = none")
    parser.add_argument("--seed", type=int, default=1, help="of the soak")
    parser.add_argument("--all", action="store_true", help="every crash case, not CI's share")
    parser.add_argument("--cases", type=int, default=0, help="at most so many crash cases; 0 = all")
    parser.add_argument("--soak-only", action="store_true", help="leave the cases out")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Run it; 0 = every case passed and nothing was violated."""
    arguments = parse(words)
    begun = time.monotonic()
    print(
        f"machine: {platform.machine()}, Python {platform.python_version()}; "
        f"seed of the soak: {arguments.seed}",
        flush=True,
    )
    sums = Sums()
    if not arguments.soak_only:
        crash_matrix(sums, arguments.all, arguments.cases)
        real_engine(sums)
    if arguments.minutes:
        run_soak(sums, arguments.minutes, arguments.seed)
    found: dict[str, Any] = {
        "cases": sums.cases,
        "passed": sums.passed,
        **sums.extra,
        **{kind: sums.violations[kind] for kind in KINDS},
        "missing": sums.missing,
        "seconds": round(time.monotonic() - begun, 1),
    }
    found["missed"] = verdict(found)
    print(json.dumps(found), flush=True)
    return 0 if sums.cases == sums.passed and not sum(sums.violations.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
