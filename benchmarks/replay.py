"""How long people wait: a trace of a real cluster on 2 nodes of 8 GPUs, under several policies.

Strict order of arrival, the same with backfill, a multifactor priority like Slurm's with backfill,
and ours, all through the shipped scheduler on simulated time. ``benchmarks/README.md`` says what
each number means.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.lib import expected
from benchmarks.lib import jobs as jobs_of
from benchmarks.lib.replaying import GPUS, POLICIES, replay

#: what we want
EXPECTED = {
    "wait_vs_fifo": ("<=", 0.10),
    "wait_vs_fifo_overasked": ("<=", 0.30),
    "wait_vs_multifactor": ("<=", 1.0),
    "wait_vs_multifactor_overasked": ("<=", 1.0),
    "guard_violations": ("<=", 0),
    "guard_violations_overasked": ("<=", 0),
    "utilisation_vs_best": (">=", 1.0),
}
#: t of Student for 95 %, by degrees of freedom, then the normal's
T95 = {1: 12.7, 2: 4.3, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26}


Found = dict[str, Any]


def one(task: tuple[str, bool, int, int, float, str]) -> tuple[str, bool, int, Found]:
    """One policy on one seed's jobs."""
    name, over, seed, count, load, trace = task
    path = jobs_of.find_trace(trace)
    tasks = (
        jobs_of.read_trace(path)
        if path is not None
        else jobs_of.synthetic(2 * count, random.Random(seed))
    )
    jobs = jobs_of.sample(tasks, count, load, seed)
    if name == "oracle":
        jobs = jobs_of.oracle(jobs)
    elif over:
        jobs = jobs_of.overasked(jobs, seed)
    policy = POLICIES["ours_guard" if name == "oracle" else name]
    out = replay(jobs, policy, estimates=name == "ours_guard")
    found: Found = {
        "wait": out.wait,
        "p90": sorted(out.waits)[len(out.waits) * 9 // 10],
        "most": max(out.waits),
        "jain": out.jain,
        "utilisation": out.utilisation,
        "violations": out.violations,
        "errors": out.errors,
    }
    if seed == 0:
        found |= {"waits": out.waits, "held": out.held}
    return name, over, seed, found


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and half the width of its 95 % confidence interval."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, 0.0
    t = T95.get(len(values) - 1, 1.96)
    return mean, t * statistics.stdev(values) / len(values) ** 0.5


class Table:
    """All runs, by policy and kind of users."""

    def __init__(self) -> None:
        self.runs: dict[tuple[str, bool], dict[int, Found]] = {}

    def add(self, name: str, over: bool, seed: int, found: Found) -> None:
        """One run."""
        self.runs.setdefault((name, over), {})[seed] = found

    def values(self, name: str, over: bool, key: str) -> list[float]:
        """By seed."""
        runs = self.runs[name, over]
        return [runs[seed][key] for seed in sorted(runs)]

    def ratio(self, name: str, other: str, over: bool, key: str = "wait") -> tuple[float, float]:
        """Mean over the seeds of one's value / the other's, with its interval."""
        mine, theirs = self.values(name, over, key), self.values(other, over, key)
        return interval([a / b for a, b in zip(mine, theirs, strict=True)])

    def show(self) -> None:
        """One line for each policy."""
        for (name, over), runs in sorted(self.runs.items(), key=lambda item: item[0][1]):
            mean, half = self.ratio(name, "fifo", over)
            hours = {
                key: statistics.fmean(run[key] for run in runs.values()) / 3600
                for key in ("wait", "p90", "most")
            }
            more = {
                key: interval(self.values(name, over, key))[0] for key in ("jain", "utilisation")
            }
            broken = sum(self.values(name, over, "violations"))
            print(
                f"{'overasked' if over else 'fitting':9} {name:12} "
                f"wait {hours['wait']:6.2f} h ({mean:.3f} +- {half:.3f} of fifo), "
                f"90 % {hours['p90']:6.2f} h, longest {hours['most']:5.0f} h, "
                f"jain {more['jain']:.3f}, use {more['utilisation']:.3f}, passed {broken:.0f}"
            )

    def results(self) -> dict[str, Any]:
        """The keys of the last line."""
        found: dict[str, Any] = {}
        for over, tail in ((False, ""), (True, "_overasked")):
            for key, other in (("wait_vs_fifo", "fifo"), ("wait_vs_multifactor", "multifactor")):
                mean, half = self.ratio("ours_guard", other, over)
                found[key + tail] = round(mean, 3)
                found[f"{key}{tail}_ci"] = round(half, 3)
            for key, mine, other in (
                ("unguarded", "ours", "multifactor"),
                ("guarded", "ours_guard", "multifactor_guard"),
            ):
                ratio = self.ratio(mine, other, over)[0]
                found[f"wait_vs_multifactor_{key}{tail}"] = round(ratio, 3)
            errors = sorted(
                error / 60
                for run in self.runs["ours_guard", over].values()
                for error in run["errors"]
            )
            found[f"estimate_median_error{tail}"] = round(statistics.median(errors), 1)
            found[f"estimate_p90_error{tail}"] = round(errors[len(errors) * 9 // 10], 1)
            found[f"wait_vs_oracle{tail}"] = round(self.ratio("ours_guard", "oracle", over)[0], 3)
            for key, name in (
                ("jain", "ours"),
                ("jain_guard", "ours_guard"),
                ("jain_multifactor", "multifactor"),
            ):
                found[key + tail] = round(interval(self.values(name, over, "jain"))[0], 3)
            best = max(
                interval(self.values(name, over, "utilisation"))[0]
                for name in ("fifo", "backfill", "multifactor")
            )
            mine = interval(self.values("ours_guard", over, "utilisation"))[0]
            found[f"utilisation_vs_best{tail}"] = round(mine / best, 3)
            found[f"guard_violations{tail}"] = round(
                sum(self.values("ours_guard", over, "violations"))
            )
        return found


#: policy -> its line in the plots
LINES = {
    "fifo": "order of arrival",
    "backfill": "with backfill",
    "multifactor_guard": "multifactor, guarded",
    "ours_guard": "ours, guarded",
    "oracle": "ours, had everybody known exactly",
}


def plot(table: Table, folder: Path) -> None:
    """Waits by policy, and GPUs in use over time, of the first seed. Needs matplotlib."""
    import matplotlib

    matplotlib.use("svg")
    # the same bytes for the same numbers
    matplotlib.rcParams.update({"svg.hashsalt": "replay", "svg.fonttype": "none"})
    from matplotlib import pyplot

    runs = {name: table.runs[name, False][0] for name in LINES}
    figure, axes = pyplot.subplots(figsize=(7, 4))
    for name, label in LINES.items():
        waits = sorted(max(wait / 60, 0.1) for wait in runs[name]["waits"])
        axes.plot(waits, [100 * (k + 1) / len(waits) for k in range(len(waits))], label=label)
    axes.set(xscale="log", xlabel="wait, minutes", ylabel="% of servers that waited no longer")
    _save(figure, axes, folder / "replay-waits.svg")
    figure, axes = pyplot.subplots(figsize=(7, 4))
    for name in ("fifo", "ours_guard"):
        hours, used = by_day(runs[name]["held"])
        axes.plot(hours, used, label=LINES[name], drawstyle="steps-post")
    axes.set(xlabel="days", ylabel=f"GPUs in use, of {GPUS}, mean of each day", ylim=(0, GPUS))
    _save(figure, axes, folder / "replay-use.svg")


def by_day(held: Sequence[tuple[float, int]]) -> tuple[list[float], list[float]]:
    """Days from the beginning, and GPUs held in each on average."""
    day, used = 86400.0, [0.0]
    for (since, gpus), (until, _) in itertools.pairwise(held):
        while since < until:
            index = int(since // day)
            used += [0.0] * (index + 1 - len(used))
            upto = min(until, (index + 1) * day)
            used[index] += gpus * (upto - since) / day
            since = upto
    return [float(index) for index in range(len(used))], used


def _save(figure: Any, axes: Any, path: Path) -> None:
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    print(f"plot: {path}")


def missed(found: dict[str, Any]) -> list[str]:
    """Which expectations are not met."""
    late = expected.missed(found, EXPECTED)
    for tail in ("", "_overasked"):
        ours, theirs = found[f"jain{tail}"], found[f"jain_multifactor{tail}"]
        if ours < theirs - 0.02:
            late.append(f"jain{tail} is {ours}, multifactor's {theirs}")
    return late


def main(words: Sequence[str] | None = None) -> int:
    """All policies on all seeds."""
    parser = argparse.ArgumentParser(prog="benchmarks/run replay", description=__doc__)
    parser.add_argument("trace", nargs="?", default="", help="a trace's path, or: synthetic")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=3000, help="tasks of each seed")
    parser.add_argument("--load", type=float, default=0.9, help="work offered / GPUs there are")
    parser.add_argument("--plots", type=Path, help="folder for the plots; needs matplotlib")
    arguments = parser.parse_args(words)
    path = jobs_of.find_trace(arguments.trace)
    print(
        f"machine: {os.cpu_count()} CPUs, Python {platform.python_version()}; seeds 0 to "
        f"{arguments.seeds - 1}; trace {path.name if path else 'synthetic'}",
        flush=True,
    )
    begun = time.perf_counter()
    tasks = [
        (name, over, seed, arguments.jobs, arguments.load, arguments.trace)
        for seed in range(arguments.seeds)
        for over in (False, True)
        for name in [*POLICIES, "oracle"]
    ]
    table = Table()
    with multiprocessing.Pool(os.cpu_count()) as pool:
        for done in pool.imap_unordered(one, tasks):
            table.add(*done)
    table.show()
    if arguments.plots:
        plot(table, arguments.plots)
    result: dict[str, Any] = {"ok": True, **table.results()}
    result["missed"] = missed(result)
    result["seconds"] = round(time.perf_counter() - begun, 1)
    print(json.dumps(result), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
