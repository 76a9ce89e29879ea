"""``agent``: tells the scheduler of a Swarm what one machine's GPUs do."""

from __future__ import annotations

import argparse
import os

from ..agent import options_from, run
from .command import Command


def _agent(arguments: argparse.Namespace) -> int:
    return run(options_from(os.environ))


COMMANDS = (
    Command(
        name="agent",
        help="Tell the scheduler of a Swarm what this machine's GPUs do.\n\n"
        "Run it as a global service of the Swarm. It only reads, and goes on until it is stopped. "
        "Its options are variables: GPUS_SCHEDULER_URL, GPUS_NODE_ID, GPUS_NODE_NAME, "
        "GPUS_AGENT_KEY_FILE (default: /run/secrets/gpus-agent-key), GPUS_AGENT_INTERVAL "
        "(seconds; default: 5), GPUS_HOST_PROC (where the machine's /proc is mounted), "
        "GPUS_HOST_ROOT (where its /etc and /usr/bin are, to look at NVIDIA's toolkit), "
        "GPUS_SIMULATE (number of simulated GPUs instead of real ones).",
        has_json=False,
        run=_agent,
    ),
)
