"""What the pages cost: the admin page of a large site, on the server.

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

from benchmarks.lib.admin_data import admin_ms
from benchmarks.lib.expected import missed

#: what we want
EXPECTED = {"admin_ms": ("<=", 50.0)}


def main(words: Sequence[str] | None = None) -> int:
    """Measure."""
    parser = argparse.ArgumentParser(prog="benchmarks/run pages", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args(words)
    print(
        f"machine: {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, "
        f"Python {platform.python_version()}; seed {arguments.seed}",
        flush=True,
    )
    result: dict[str, Any] = {"ok": True, **admin_ms(arguments.seed)}
    result["missed"] = missed(result, EXPECTED)
    print(json.dumps(result), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
