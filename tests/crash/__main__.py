"""Cases by hand.

``python -m tests.crash points [SCENARIO...]``       the points, as found now
``python -m tests.crash run [SCENARIO...] [--all]``  the cases that CI runs, or all
``python -m tests.crash finish FILE``                all of them, except those that FILE has passed
``python -m tests.crash case SCENARIO POINT FAULT``  one case, with its log; POINT is ``role|point``
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from tests.crash import matrix
from tests.crash.case import Case
from tests.crash.scenarios import SCENARIOS


def say(line: str) -> None:
    """At once, also into a file."""
    print(line, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("what", choices=["points", "run", "finish", "case"])
    parser.add_argument("words", nargs="*")
    parser.add_argument("--all", action="store_true", help="every case, not CI's share")
    cores = os.cpu_count() or 1
    parser.add_argument("--at-once", type=int, default=5 * cores, help="cases of `finish`")
    options = parser.parse_args()
    if options.what in ("run", "finish"):
        if options.what == "finish":
            (file,) = options.words
            outcome = matrix.finish(Path(file), options.at_once, say)
        else:
            share = matrix.EVERYTHING if options.all else matrix.SHARE
            outcome = matrix.run(options.words, share)
        print(matrix.report(outcome.failed))
        print(outcome.counts)
        return 1 if outcome.failed else 0
    with matrix.Workshop() as shop:
        if options.what == "points":
            for name, found in shop.record(options.words or list(SCENARIOS)).items():
                for point in found:
                    print(f"{name} {point}")
            return 0
        scenario, fault, point = options.words[0], options.words[-1], " ".join(options.words[1:-1])
        outcome = shop.play([Case(scenario=scenario, point=point, fault=fault)])
        print(matrix.report(outcome.results))
        return 1 if outcome.failed else 0


if __name__ == "__main__":
    sys.exit(main())
