"""The replay that compares policies: it has to run with the scheduler as it is."""

from __future__ import annotations

import random

import pytest

from benchmarks.lib import jobs
from benchmarks.lib.replaying import POLICIES, replay

JOBS = jobs.sample(jobs.synthetic(160, random.Random(1)), 80, 0.9, 1)


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_every_policy_serves_all_jobs(name):
    found = replay(JOBS, POLICIES[name])
    assert len(found.waits) == len(JOBS)
    assert min(found.waits) >= 0.0
    assert 0.0 < found.jain <= 1.0
    # nothing holds more GPUs than there are, and in the end nobody holds any
    assert max(held for _, held in found.held) <= 16
    assert found.held[-1][1] == 0
