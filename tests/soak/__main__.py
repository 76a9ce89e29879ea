"""``python -m tests.soak [--minutes M] [--seed N]``: random users, kills and engine faults.

A real Hub on the testbed's engine (which has to be up), stub servers, simulated GPUs, and the
auditor beside them. Exits 1 on any violation, complaint or growth without end.
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.soak.run import soak
from tests.testbed.engine import Engine
from tests.testbed.images import ensure_stub


def main(words: list[str]) -> int:
    """Run it and print what came of it."""
    parser = argparse.ArgumentParser(prog="./run-tests soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="how long (default: 5)")
    parser.add_argument("--seed", type=int, default=None, help="default: from the clock, printed")
    given = parser.parse_args(words)
    seed = int(time.time()) if given.seed is None else given.seed
    engine = Engine.from_environment()
    if not engine.answers():
        print("error: the testbed is down (python -m tests.testbed up)", file=sys.stderr)
        return 2
    client = engine.client(timeout=600)
    image = ensure_stub(client)
    client.close()
    say(f"soak: {given.minutes:g} minutes, seed {seed}")
    result = soak(engine, image, minutes=given.minutes, seed=seed, say=say)
    if not result.ok:
        print(result.log)
    for line in result.lines():
        say(line)
    print("soak: ok" if result.ok else "soak: FAILED", flush=True)
    return 0 if result.ok else 1


def say(text: str) -> None:
    """A line with the time."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
