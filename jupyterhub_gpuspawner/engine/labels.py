"""Names of the labels that containers, volumes and networks of ours carry, and how to read them.

Labels are the identity of what we made: a name can be taken by anybody, a label with our
ledger's id can't be there by chance. Pure functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..scheduler.models import Text

PREFIX = "jupyterhub-gpuspawner."

#: id of the ledger that the thing belongs to
LEDGER = PREFIX + "ledger"
#: id of the lease a container was made for
LEASE = PREFIX + "lease"
#: JupyterHub's name of the user, unchanged
USER = PREFIX + "user"
#: name of the named server; empty for the default server
SERVER = PREFIX + "server"
#: device ids, joined with commas
DEVICES = PREFIX + "devices"
#: owner id (:func:`~.volumes.owner_id`) of the person behind the user name
OWNER = PREFIX + "owner"
#: id of the lease whose server a companion stands beside. Not LEASE: it holds nothing of it
COMPANION_OF = PREFIX + "companion-of"
#: a volume that exists on one node of a Swarm, and the name of that node
VOLUME = PREFIX + "volume"
NODE = PREFIX + "node"
#: one of :class:`Kind`
KIND = PREFIX + "kind"
#: what people read in ``docker ps --format``
NAME = PREFIX + "name"
#: labels that dashboards of the field join on
HUB_USERNAME = "hub.jupyter.org/username"
HUB_SERVERNAME = "hub.jupyter.org/servername"


class Kind(Text):
    """What a container, volume or network is for."""

    SERVER = "server"
    HOME = "home"
    #: what a profile starts beside a server
    COMPANION = "companion"
    #: a user's own network
    NETWORK = "network"
    #: the volume that says which ledger owns the engine
    OWNER = "owner"
    #: the config of a Swarm that says on which node a volume is
    WHEREABOUTS = "whereabouts"
    #: a config of a Swarm that says which nodes have pulled an image, and the task that pulls it
    IMAGE = "image"
    #: an admin's: a container that sees GPUs and only watches them, such as dcgm-exporter
    OBSERVER = "observer"


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """Who and what a container was made for, as its labels say."""

    #: id of the ledger
    ledger: str
    #: id of the lease
    lease: str
    #: JupyterHub's name of the user
    user: str
    #: named server; empty = the default server
    server: str = ""
    #: ids of the leased devices, in claim order; empty = a server without GPU
    devices: tuple[str, ...] = ()
    #: owner id of the person; empty = not known
    owner: str = ""

    @property
    def display(self) -> str:
        """``alice`` or ``alice/train``, as log lines have it."""
        return f"{self.user}/{self.server}" if self.server else self.user


def server_labels(identity: Identity) -> dict[str, str]:
    """Return the labels of a server's container.

    Raises
    ------
    ValueError
        A device id is empty or has a comma: it would not be read back as it was.
    """
    return {
        KIND: Kind.SERVER.value,
        LEDGER: identity.ledger,
        LEASE: identity.lease,
        USER: identity.user,
        SERVER: identity.server,
        DEVICES: join_devices(identity.devices),
        OWNER: identity.owner,
        NAME: identity.display,
        HUB_USERNAME: identity.user,
        HUB_SERVERNAME: identity.server,
    }


def companion_labels(identity: Identity, name: str) -> dict[str, str]:
    """Return the labels of a companion called ``name`` of a server."""
    return {
        **server_labels(identity),
        KIND: Kind.COMPANION.value,
        LEASE: "",
        DEVICES: "",
        COMPANION_OF: identity.lease,
        NAME: f"{name} of {identity.display}",
    }


def home_labels(*, ledger: str, user: str, owner: str) -> dict[str, str]:
    """Return the labels of a user's home volume. ``user`` is the name when it was made."""
    return _personal(Kind.HOME, ledger, user, owner)


def network_labels(*, ledger: str, user: str, owner: str) -> dict[str, str]:
    """Return the labels of a user's network. ``user`` is the name when it was made."""
    return _personal(Kind.NETWORK, ledger, user, owner)


def owner_labels(ledger: str) -> dict[str, str]:
    """Return the labels of what claims an engine (a volume) or a Swarm (a config) for a ledger."""
    return {KIND: Kind.OWNER.value, LEDGER: ledger, NAME: f"owned by ledger {ledger}"}


def whereabouts_labels(*, ledger: str, volume: str, node: str) -> dict[str, str]:
    """Return the labels of what says on which node of a Swarm a volume is."""
    return {
        KIND: Kind.WHEREABOUTS.value,
        LEDGER: ledger,
        VOLUME: volume,
        NODE: node,
        NAME: f"volume {volume} is on {node}",
    }


def ledger_of(found: Mapping[str, str] | None) -> str | None:
    """Read the labels of such a claim: the ledger; None = not a claim of any."""
    if not found or found.get(KIND) != Kind.OWNER.value:
        return None
    return found.get(LEDGER) or None


def _personal(kind: Kind, ledger: str, user: str, owner: str) -> dict[str, str]:
    return {
        KIND: kind.value,
        LEDGER: ledger,
        USER: user,
        OWNER: owner,
        NAME: f"{kind.value} of {user}",
        HUB_USERNAME: user,
    }


def parse(labels: Mapping[str, str] | None) -> Identity | None:
    """Read the labels of a container; None if it is not a server of any ledger.

    The answer may belong to another ledger: compare ``.ledger``.
    """
    if not labels or labels.get(KIND) != Kind.SERVER.value:
        return None
    ledger, lease = labels.get(LEDGER, ""), labels.get(LEASE, "")
    if not ledger or not lease:
        return None
    return Identity(
        ledger=ledger,
        lease=lease,
        user=labels.get(USER, ""),
        server=labels.get(SERVER, ""),
        devices=split_devices(labels.get(DEVICES, "")),
        owner=labels.get(OWNER, ""),
    )


def join_devices(devices: Iterable[str]) -> str:
    """Join device ids for the label. ValueError for an id that is empty or has a comma."""
    ids = tuple(devices)
    for device in ids:
        if not device or "," in device:
            raise ValueError(f"device id {device!r} can't be part of a label")
    return ",".join(ids)


def split_devices(text: str) -> tuple[str, ...]:
    """Split the label's value into device ids; an empty value is no device."""
    return tuple(part for part in text.split(",") if part)


def selectors(ledger: str, kind: Kind) -> list[str]:
    """Return the ``label`` filter (for list and events) of what one ledger owns."""
    return [f"{LEDGER}={ledger}", f"{KIND}={kind.value}"]
