"""A site's GPUs and limits by environment variable, for the configs of Hub and scheduler."""

from __future__ import annotations

from typing import Any

from . import environment


def site_gpus(c: Any) -> None:
    """Set in ``c.GPUScheduler`` which GPUs there are, and who may hold how many.

    Variables: ``GPUS_DISCOVERY``, ``GPUS_SIMULATE``, ``GPUS_NODE_NAME``, ``GPUS_AGENT_KEY_FILE``,
    and those of limits, shares, unused servers and large homes; ``GPUS_SCHEDULER_OPTIONS`` has
    what has no variable of its own. A wrong one ends the program with one line.
    """
    options = c.GPUScheduler
    on_swarm = environment.text("GPUS_SPAWNER") == "swarm"
    options.discovery = environment.text("GPUS_DISCOVERY", "swarm" if on_swarm else "auto")
    options.simulate = environment.number("GPUS_SIMULATE", 0, most=256)
    name = environment.text("GPUS_NODE_NAME")
    if name:
        options.node_name = name
    options.agent_key_file = environment.file("GPUS_AGENT_KEY_FILE")
    if environment.text("GPUS_USER_LIMIT"):
        options.user_gpu_limit = environment.number("GPUS_USER_LIMIT", 0)
    options.user_gpu_limits = environment.table("GPUS_USER_LIMITS", int, '{"carol": 4}')
    options.group_gpu_limits = environment.table("GPUS_GROUP_LIMITS", int, '{"students": 6}')
    options.shares = environment.table("GPUS_SHARES", dict, '{"physics": {"quota": 4}}')
    for option, value in (
        ("idle_timeout", environment.duration("GPUS_IDLE_GPU")),
        ("idle_warning", environment.duration("GPUS_IDLE_WARNING")),
        ("idle_min_runtime", environment.duration("GPUS_IDLE_MIN_RUNTIME")),
        ("idle_extension", environment.duration("GPUS_IDLE_EXTENSION")),
        ("cpu_idle_timeout", environment.duration("GPUS_IDLE_CPU")),
        ("reclaim_warning", environment.duration("GPUS_RECLAIM_WARNING")),
        ("home_warning", environment.memory("GPUS_HOME_WARNING")),
    ):
        if value is not None:
            setattr(options, option, value)
    options.group_idle_timeouts = environment.table(
        "GPUS_IDLE_GROUPS", (str, int, type(None)), '{"students": "1h", "staff": null}'
    )
    options.metrics_show_users = environment.flag("GPUS_METRICS_SHOW_USERS")
    environment.more_options(
        "GPUS_SCHEDULER_OPTIONS", options, '{"age_guard": "24h", "queued_per_user": 3}'
    )
