"""What the pages cost: the admin page of a large site, 200 open pages, a change to a screen.

``benchmarks/README.md`` says what each number means.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks.lib import large_page, live_pages
from benchmarks.lib.admin_data import admin_ms
from benchmarks.lib.expected import missed

#: what we want
EXPECTED = {
    "admin_ms": ("<=", 50.0),
    "live200_cpu_percent": ("<=", 5.0),
    "event_to_screen_s": ("<=", 1.0),
    "large_page_s": ("<=", 1.0),
}


def main(words: Sequence[str] | None = None) -> int:
    """Measure."""
    parser = argparse.ArgumentParser(prog="benchmarks/run pages", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pages", type=int, default=200, help="open pages")
    parser.add_argument("--seconds", type=float, default=20.0, help="of looking at their cost")
    arguments = parser.parse_args(words)
    print(
        f"machine: {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, "
        f"Python {platform.python_version()}; seed {arguments.seed}",
        flush=True,
    )
    result: dict[str, Any] = {"ok": True, **admin_ms(arguments.seed)}
    result |= live_pages.measure(arguments.pages, arguments.seconds)
    chromium = live_pages.browser()
    if chromium is not None:
        result |= large_page.measure(chromium)
    wanted = {name: limit for name, limit in EXPECTED.items() if name in result}
    result["missed"] = missed(result, wanted)
    print(json.dumps(result), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
