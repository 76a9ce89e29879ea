"""``python -m tests.model``: look at every world of a larger site; by hand, minutes."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from tests.model.check import Extent, look


def _tell(depth: int, worlds: int, ahead: int, seconds: float) -> None:
    print(f"depth {depth}: {worlds} worlds, {ahead} ahead, {seconds:.0f} s", flush=True)


def main(words: Sequence[str] | None = None) -> int:
    """0 where nothing is broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.model", description=__doc__)
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--users", default="ann,bob,cy", help="one for each server")
    parser.add_argument("--faults", type=int, default=2)
    parser.add_argument("--starts", type=int, default=1)
    parser.add_argument("--no-strays", action="store_true", help="no message comes twice")
    parser.add_argument(
        "--trouble", action="store_true", help="silent nodes, hung stops, restored ledgers"
    )
    asked = parser.parse_args(words)
    extent = Extent(
        devices=asked.devices,
        users=tuple(asked.users.split(",")),
        faults=asked.faults,
        starts=asked.starts,
        strays=not asked.no_strays,
        trouble=asked.trouble,
    )
    found, scheduler = look(extent, _tell)
    told = {
        "worlds": found.worlds,
        "steps": found.steps,
        "seconds": round(found.seconds, 1),
        "depth": max(found.depths),
        "events": scheduler.handled,
        "commits": scheduler.commits,
        **found.met,
    }
    for step in found.way:
        print(step)
    print(json.dumps({**told, "broken": found.broken}))
    return 1 if found.broken else 0


if __name__ == "__main__":
    sys.exit(main())
