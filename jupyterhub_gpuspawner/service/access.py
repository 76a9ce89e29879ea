"""What a caller of the API may see and do. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from .page_data import Viewer
from .scopes import ADMIN, READ


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """Somebody who is known."""

    #: for the journal
    name: str
    #: what of the state may be seen
    viewer: Viewer
    #: may change what is not the caller's own
    acts: bool


#: a scope that is bound to one group, of which the name follows
_OF_GROUP = f"{READ}!group="
#: who has the service token: an admin at the machine, or the Hub
SERVICE = Caller(name="service token", viewer=Viewer(name="", admin=True), acts=True)


def caller_of(user: Mapping[str, Any], access: Collection[str], *, token: bool) -> Caller | None:
    """The caller that a Hub's user model stands for; None where it may not come here.

    Parameters
    ----------
    user:
        The Hub's model, with ``scopes``: those of the session or of the token.
    access:
        Scopes of which one opens the service.
    token:
        It came with a token: that counts by its own scopes, whoever owns it. In a session an
        admin is an admin.
    """
    scopes = set(user.get("scopes") or ())
    acts = ADMIN in scopes
    reads = acts or READ in scopes
    if not token and user.get("admin"):
        acts = reads = True
    leads = frozenset(one[len(_OF_GROUP) :] for one in scopes if one.startswith(_OF_GROUP))
    if token and not reads and not leads and not scopes.intersection(access):
        return None
    # a service may have the same name as a user
    own = str(user["name"]) if user.get("kind", "user") == "user" else ""
    name = own or f"service {user['name']}"
    return Caller(name=name, viewer=Viewer(name=own, admin=reads, groups=leads), acts=acts)
