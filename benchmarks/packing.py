"""How much of a cluster's GPUs can be given out: FGD against best fit and random.

``benchmarks/README.md`` says what each number means.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.lib import packing_sim
from benchmarks.lib.jobs import find_trace

POLICIES = ("fgd", "best_fit", "random")


def one(task: tuple[str, int, str]) -> tuple[str, float]:
    """One policy on one seed's arrivals."""
    policy, seed, name = task
    path = find_trace(name)
    trace = packing_sim.read_trace(path) if path else packing_sim.synthetic(random.Random(seed))
    return policy, packing_sim.fill(trace, policy, seed)


def main(words: Sequence[str] | None = None) -> int:
    """All policies on all seeds."""
    parser = argparse.ArgumentParser(prog="benchmarks/run packing", description=__doc__)
    parser.add_argument("trace", nargs="?", default="", help="a pod list's path, or: synthetic")
    parser.add_argument("--seeds", type=int, default=10)
    arguments = parser.parse_args(words)
    path = find_trace(arguments.trace)
    print(
        f"machine: {os.cpu_count()} CPUs, Python {platform.python_version()}; seeds 0 to "
        f"{arguments.seeds - 1}; trace {path.name if path else 'synthetic'}",
        flush=True,
    )
    begun = time.perf_counter()
    found: dict[str, list[float]] = {policy: [] for policy in POLICIES}
    seeds = range(arguments.seeds)
    tasks = [(policy, seed, arguments.trace) for policy in POLICIES for seed in seeds]
    with multiprocessing.Pool(os.cpu_count()) as pool:
        for policy, percent in pool.imap_unordered(one, tasks):
            found[policy].append(percent)
    for policy, values in found.items():
        print(
            f"{policy:8} {statistics.fmean(values):.2f} % ({min(values):.2f} to {max(values):.2f})"
        )
    means = {policy: statistics.fmean(values) for policy, values in found.items()}
    result: dict[str, Any] = {
        "ok": True,
        "allocated_percent": round(means["fgd"], 2),
        "allocated_least": round(min(found["fgd"]), 2),
        "best_fit_percent": round(means["best_fit"], 2),
        "random_percent": round(means["random"], 2),
        "seconds": round(time.perf_counter() - begun, 1),
    }
    missed = []
    # a made-up trace says nothing about the expectation, which is openb's
    if path is not None and means["fgd"] < 95.0:
        missed.append(f"allocated_percent is {result['allocated_percent']}, expected >= 95.0")
    if means["fgd"] <= means["best_fit"]:
        missed.append(f"best fit gives {result['best_fit_percent']}")
    if result["seconds"] >= 60:
        missed.append(f"seconds is {result['seconds']}, expected < 60")
    result["missed"] = missed
    print(json.dumps(result), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
