"""Adds up the phases of ./run-tests: a table, then one closing line in pytest's words.

``python tests/summary.py REPORTS`` reads ``REPORTS/phases`` (a line "<name> <seconds> <exit code>"
per phase, in order) and pytest's ``REPORTS/<name>.xml`` where a phase ran pytest. A phase without
such a file counts as one check. Exits 1 when any phase failed. Standard library only.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree


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


def main(folder: Path) -> int:
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
    sys.exit(main(Path(sys.argv[1])))
