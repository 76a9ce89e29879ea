"""What a container uses now, from Docker's statistics."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import docker
import docker.errors


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One look."""

    #: POSIX seconds
    at: float
    #: seconds of all processors since it started
    cpu_seconds: float
    #: bytes, without the files that the kernel keeps in memory while there is room
    memory: int


def sample(client: docker.DockerClient, container_id: str) -> Sample | None:
    """Ask about one container; None where it does not run."""
    try:
        # one-shot: without it Docker takes two looks, a second apart
        raw = client.api.stats(container_id, stream=False, one_shot=True)
    except docker.errors.NotFound:
        return None
    return read_sample(cast("Mapping[str, Any]", raw), time.time())


def read_sample(raw: Mapping[str, Any], now: float) -> Sample | None:
    """From Docker's JSON; None where it says nothing, as of a container that does not run."""
    memory, cpu = raw.get("memory_stats") or {}, raw.get("cpu_stats") or {}
    usage, spent = memory.get("usage"), (cpu.get("cpu_usage") or {}).get("total_usage")
    if usage is None or spent is None:
        return None
    details = memory.get("stats") or {}
    # the names of cgroup v1 and v2
    files = details.get("total_inactive_file", details.get("inactive_file", 0))
    return Sample(at=now, cpu_seconds=spent / 1e9, memory=max(int(usage) - int(files), 0))
