"""Whose engine this is: one scheduler's ledger for each engine.

Two ledgers that grant the devices of one machine would each be right and together wrong. So a
ledger claims an engine with a volume: volumes outlive containers, restarts and upgrades.
"""

from __future__ import annotations

from typing import Any, cast

import docker
import docker.errors

from ..errors import EngineConflict, EngineUnknown
from . import labels
from .faults import explain

#: name of the volume that says which ledger owns the engine
OWNER_VOLUME = "gpus-owner"


def claim_engine(client: docker.DockerClient, ledger_id: str) -> None:
    """Claim the engine for a ledger, or see that it is claimed already. May be repeated.

    Docker answers a create for an existing name with the existing volume and its labels, under
    a lock of its own: of two ledgers that ask at once exactly one reads its own id.

    Raises
    ------
    EngineConflict
        Another ledger owns the engine (its id is in the text), or the volume isn't one of ours.
    """
    wanted = labels.owner_labels(ledger_id)
    client.api.create_volume(name=OWNER_VOLUME, labels=wanted)
    refuse_other(
        engine_owner(client),
        ledger_id,
        what="Docker engine",
        remedy=f"stop its containers and run 'docker volume rm {OWNER_VOLUME}'",
        whom="The machine's",
    )


def engine_owner(client: docker.DockerClient) -> str | None:
    """Return the id of the ledger that owns the engine; None = nobody, or not a ledger of ours."""
    try:
        volume = cast("dict[str, Any]", client.api.inspect_volume(OWNER_VOLUME))
    except docker.errors.NotFound as error:
        if "no such volume" not in explain(error).lower():
            # a proxy's or a router's 404 says nothing about the volume
            raise EngineUnknown(f"volume {OWNER_VOLUME}: 404 with {explain(error)!r}") from error
        return None
    return labels.ledger_of(volume.get("Labels"))


def refuse_other(holder: str | None, ledger_id: str, *, what: str, remedy: str, whom: str) -> None:
    """See that ``holder`` is this ledger.

    Parameters
    ----------
    what, remedy:
        For the log: what is held, and what the admin does where that installation is gone.
    whom:
        For the user: whose GPUs they are.

    Raises
    ------
    EngineConflict
        It is another ledger, or none.
    """
    if holder != ledger_id:
        whose = f"ledger {holder}" if holder else "something that is not a scheduler's ledger"
        raise EngineConflict(
            f"this {what} belongs to {whose}, not to ledger {ledger_id}: nothing is granted on "
            f"it. If that installation is gone, {remedy}",
            f"{whom} GPUs belong to another installation. Please tell your administrator.",
        )
