"""The admin page's data at a large site: what the service spends on it, in CPU milliseconds."""

from __future__ import annotations

import json
import statistics
import time

from benchmarks.decisions import Site
from jupyterhub_gpuspawner.i18n import words_of
from jupyterhub_gpuspawner.service.admin_data import admin_data
from jupyterhub_gpuspawner.service.page_data import View, Viewer

#: devices are ten for each node
NODES, QUEUED = 100, 5000


def admin_ms(seed: int = 1, times: int = 15) -> dict[str, float]:
    """The median and the longest time for one whole page, from the state to JSON."""
    site = Site(nodes=NODES, seed=seed, queued=QUEUED)
    site.build()
    words, took, size = words_of("zh_CN"), [], 0
    for _ in range(times):
        # something has changed, so that nothing is remembered
        site.end(next(iter(site.state.tables.leases)))
        site.begin_fresh()
        while len(site.state.tables.queued_of) < QUEUED:
            site.submit()
        begun = time.thread_time()
        view = View(state=site.state, viewer=Viewer(name="", admin=True), now=site.now)
        size = len(json.dumps(admin_data(view, words)))
        took.append(1000 * (time.thread_time() - begun))
    return {
        "admin_ms": round(statistics.median(took), 1),
        "admin_ms_most": round(max(took), 1),
        "admin_kb": round(size / 1000),
    }
