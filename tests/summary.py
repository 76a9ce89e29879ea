"""Adds up the phases of ./run-tests: what failed, a table, one closing line in pytest's words.

``python tests/summary.py REPORTS`` reads ``REPORTS/phases`` (a line "<name> <seconds> <exit code>"
per phase, in order), pytest's ``REPORTS/<name>.xml`` where a phase ran pytest, and else
``REPORTS/<name>.log``, what it printed. A phase without pytest counts as one check. What failed is
told again here, because hours of output may stand before it, and may be cut off. Exits 1 when any
phase failed. ``python tests/summary.py REPORTS NAME`` only tells what failed in one phase: one in
the background prints nothing else until it ends. Standard library only.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

#: lines that are told again: of each failed test, of each check without pytest
OF_A_TEST, OF_A_CHECK = 12, 40


def count(report: Path, code: int) -> Counter[str]:
    """Passed, failed and skipped of one phase; a failure that no report tells counts as one."""
    if not report.exists():
        return Counter(passed=int(code == 0), failed=int(code != 0))
    found: Counter[str] = Counter()
    for suite in ElementTree.parse(report).getroot().iter("testsuite"):
        failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        skipped = int(suite.get("skipped", 0))
        found["failed"] += failed
        found["skipped"] += skipped
        found["passed"] += max(0, int(suite.get("tests", 0)) - failed - skipped)
    if code != 0 and not found["failed"]:
        found["failed"] = 1
    return found


def failures(folder: Path, name: str) -> Iterator[str]:
    """What went wrong in one phase, in lines."""
    report, log = folder / f"{name}.xml", folder / f"{name}.log"
    if report.exists():
        for case in ElementTree.parse(report).getroot().iter("testcase"):
            for kind in ("failure", "error"):
                for found in case.iter(kind):
                    yield f"{kind}: {case.get('classname')}::{case.get('name')}"
                    yield from last_lines(found.get("message") or found.text or "", OF_A_TEST)
    elif log.exists():
        yield from last_lines(log.read_text(errors="replace"), OF_A_CHECK)


def last_lines(text: str, number: int) -> Iterator[str]:
    """The end of a text, indented."""
    return (f"    {line[:300]}" for line in text.rstrip().splitlines()[-number:])


def tell_failures(folder: Path) -> None:
    """Print what went wrong, phase by phase."""
    for line in (folder / "phases").read_text().splitlines():
        name, _, code = line.rsplit(maxsplit=2)
        if count(folder / f"{name}.xml", int(code))["failed"]:
            print(f"\n{name} failed (exit code {code})")
            for told in failures(folder, name):
                print(told)


def main(folder: Path) -> int:
    tell_failures(folder)
    total: Counter[str] = Counter()
    print(f"\n{'phase':24} {'result':>8} {'passed':>7} {'failed':>7} {'skipped':>8} {'seconds':>8}")
    for line in (folder / "phases").read_text().splitlines():
        name, seconds, code = line.rsplit(maxsplit=2)
        found = count(folder / f"{name}.xml", int(code))
        result = "failed" if found["failed"] else "ok"
        numbers = f"{found['passed']:7} {found['failed']:7} {found['skipped']:8} {seconds:>8}"
        print(f"{name:24} {result:>8} {numbers}")
        total += found
    closing = f"{total['passed']} passed, {total['failed']} failed"
    print(closing + (f", {total['skipped']} skipped" if total["skipped"] else ""))
    return 1 if total["failed"] else 0


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print("\n".join(failures(Path(sys.argv[1]), sys.argv[2])))
    else:
        sys.exit(main(Path(sys.argv[1])))
