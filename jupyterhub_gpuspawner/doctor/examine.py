"""``examine``: every check of a site, on facts that were gathered."""

from __future__ import annotations

from . import (  # noqa: F401 - each puts its checks into the list
    checks_devices,
    checks_engine,
    checks_hub,
    checks_images,
    checks_network,
    checks_store,
    checks_swarm,
)
from .checks_swarm import COLUMNS as NODE_COLUMNS
from .checks_swarm import rows as node_rows
from .facts import Facts
from .finding import Finding, Level, ordered
from .registry import CHECKS, examine

__all__ = ["NODE_COLUMNS", "findings", "node_rows"]


def findings(facts: Facts, trouble: str = "") -> list[Finding]:
    """Everything that is to be said about a site, the worst first.

    ``trouble``: what is wrong with the Hub's configuration itself.
    """
    found = examine(facts, CHECKS)
    if trouble:
        wrong = Finding(
            check="hub.config",
            level=Level.ERROR,
            what=trouble,
            why="The Hub does not start with this configuration.",
            fix="correct what the line names; docs/reference/options.md and environment.md",
        )
        found.insert(0, wrong)
    return ordered(found)
