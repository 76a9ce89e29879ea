"""Jobs to replay: from a trace of a real cluster, or made up."""

from __future__ import annotations

import csv
import random
from dataclasses import dataclass, replace
from pathlib import Path

HOUR = 3600.0
#: the length classes that people choose from
CLASSES = (1 * HOUR, 4 * HOUR, 8 * HOUR, 24 * HOUR)
USERS = 24


@dataclass(frozen=True)
class Job:
    """One server that somebody wants."""

    #: when, seconds from the beginning
    at: float
    user: str
    gpus: int
    #: seconds that it is really used
    seconds: float
    #: the class that the user chose
    length: float


def find_trace(name: str) -> Path | None:
    """A trace by path; by default openb beside the repository, None where there is none."""
    if name == "synthetic":
        return None
    if name:
        return Path(name)
    beside = Path(__file__).resolve().parents[2].parent / "shared" / "traces"
    trace = beside / "openb_pod_list_default.csv"
    return trace if trace.exists() else None


def read_trace(path: Path) -> list[tuple[float, int, float]]:
    """(arrival, GPUs, seconds) of each task with GPUs; a part of a GPU counts as one."""
    found = []
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            gpus = int(row["num_gpu"])
            if gpus and row["scheduled_time"] and row["deletion_time"]:
                seconds = float(row["deletion_time"]) - float(row["scheduled_time"])
                found.append((float(row["creation_time"]), gpus, seconds))
    return sorted(found)


def synthetic(count: int, rng: random.Random) -> list[tuple[float, int, float]]:
    """Arrivals in bursts by day, mostly one GPU, lengths over four orders of magnitude."""
    found, now = [], 0.0
    for _ in range(count):
        busy = 0.2 + (9 <= now / HOUR % 24 <= 18)
        now += rng.expovariate(busy / 600)
        gpus = rng.choices((1, 2, 4, 8), (80, 10, 5, 5))[0]
        found.append((now, gpus, rng.lognormvariate(8.0, 1.8)))
    return found


def sample(tasks: list[tuple[float, int, float]], count: int, load: float, seed: int) -> list[Job]:
    """``count`` tasks in a row, with users, squeezed to ``load`` of 16 GPUs.

    The seed says where the row begins and whose each task is: few users have many (the k-th of
    24 has a weight of 1/k), as everywhere. Lengths are cut to 1 minute and 24 hours.
    """
    rng = random.Random(seed)
    begin = rng.randrange(max(len(tasks) - count, 1))
    chosen = tasks[begin : begin + count]
    names = [f"user-{k:02d}" for k in range(USERS)]
    weights = [1 / (k + 1) for k in range(USERS)]
    jobs = []
    for at, gpus, seconds in chosen:
        seconds = min(max(seconds, 60.0), CLASSES[-1])
        length = next(limit for limit in CLASSES if seconds <= limit)
        user = rng.choices(names, weights)[0]
        jobs.append(Job(at=at, user=user, gpus=min(gpus, 8), seconds=seconds, length=length))
    work = sum(job.gpus * job.seconds for job in jobs)
    first, last = jobs[0].at, jobs[-1].at
    scale = work / (16 * load) / max(last - first, 1.0)
    return [replace(job, at=(job.at - first) * scale) for job in jobs]


def overasked(jobs: list[Job], seed: int) -> list[Job]:
    """The same jobs, but half of them with the longest class, whatever they need."""
    rng = random.Random(seed + 1_000_000)
    return [replace(job, length=CLASSES[-1]) if rng.random() < 0.5 else job for job in jobs]


def oracle(jobs: list[Job]) -> list[Job]:
    """The same jobs, had everybody known exactly."""
    return [replace(job, length=job.seconds) for job in jobs]
