"""Options of the agents on the nodes of a Swarm."""

from __future__ import annotations

from traitlets.config import Configurable

from ..kinds import FilePath
from .traits import Seconds


class AgentOptions(Configurable):
    """Part of :class:`~.options.GPUScheduler`: who tells what the nodes' GPUs do."""

    agent_key_file = FilePath(
        help="""File with the key that agents sign their reports with.

        At least 32 characters, the same as the Swarm's secret ``gpus-agent-key``. With it, a node
        that has GPUs gives out none until its agent has reported, and none while it is silent.
        Only with ``discovery`` ``swarm``. Empty (the default): there are no agents, and what the
        manager lists is all that is known.

        .. versionadded:: 0.2
        """,
    ).tag(config=True)

    agent_silence = Seconds(
        30.0,
        help="""Seconds without a report after which a node is silent.

        Its GPUs are not given out then, its servers run on, and nothing is given back.

        .. versionadded:: 0.2
        """,
    ).tag(config=True)
