"""The nodes of a Swarm: how GPUs get exactly into servers there. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from ..discovery.toolkit import FIX
from .facts import Facts
from .finding import Level
from .registry import Found, check, error

#: above the table of :func:`rows`
COLUMNS = ("node", "NVIDIA's toolkit", "GPUs by", "what that keeps")


@check("swarm.toolkit", "toolkits")
def toolkit(facts: Facts) -> Iterator[Found]:
    """The toolkit of each node of a Swarm gives servers exactly the leased GPUs."""
    for node, verdict in (facts.toolkits or {}).items():
        if verdict is None:
            yield Found(
                what=f"{node}: nobody has looked at its NVIDIA toolkit",
                why="A version or a setting that names no GPU exactly would not be noticed.",
                fix="have the node's agent run, with GPUS_HOST_ROOT and the folders that it needs: "
                "docs/howto/swarm.md",
                about=node,
                level=Level.UNKNOWN,
            )
        elif verdict["trouble"]:
            yield error(
                f"{node}: {verdict['trouble'].partition('; ')[0]}",
                "None of its GPUs is given out.",
                f"on {node}: {FIX}, then systemctl restart docker",
                about=node,
            )


def rows(facts: Facts) -> list[tuple[str, str, str, str]]:
    """Node, toolkit, way and what it keeps, of each node that an agent has told of."""
    if facts.unknown("toolkits") is not None:
        return []
    return [
        (
            node,
            verdict["version"] or "none",
            str(verdict["way"]),
            verdict["enforces"] or "no GPU of it is given out",
        )
        for node, verdict in (facts.toolkits or {}).items()
        if verdict is not None
    ]
