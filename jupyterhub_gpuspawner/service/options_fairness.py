"""Options of the line: who is served first, and who may pass whom."""

from __future__ import annotations

import math
from typing import Any

from traitlets import Bool, Dict, Float, Int, TraitError, Unicode, validate
from traitlets.config import Configurable

from ..scheduler.fairshare import Usage
from ..scheduler.policy import Fairness, Share
from .traits import Seconds

#: what a share may say, with the type of each
_SHARE: dict[str, tuple[type, ...]] = {
    "parent": (str,),
    "weight": (int, float),
    "quota": (int,),
    "borrow": (int, type(None)),
}


class FairnessOptions(Configurable):
    """Part of :class:`~.options.GPUScheduler`: what :class:`Fairness` is made of."""

    fair_share = Bool(
        True,
        help="""Whether those who have used less are served first.

        False = in order of arrival, whatever anybody has used. Default: True.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    shares = Dict(
        key_trait=Unicode(),
        value_trait=Dict(),
        help="""Parts of the GPUs by group of the Hub.

        A dict of dicts with ``quota`` (GPUs that are the group's own: below it, the group is
        served before groups above theirs; default 0), ``borrow`` (GPUs above the quota that
        it may hold while they are free; default None = any number), ``weight`` (2 = twice
        the usage of a neighbour counts the same; default 1) and ``parent`` (another share
        that this one is a part of). A user belongs to the first share in the list whose group
        is one of his. Example: ``{"physics": {"quota": 4}, "theory": {"parent": "physics",
        "quota": 2, "borrow": 2}}``. Empty (the default) = all users are equal.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    group_priorities = Dict(
        key_trait=Unicode(),
        value_trait=Int(),
        help="""Groups that are served before, or after, all others.

        A whole number by group; higher is first, 0 is everybody else. A user has the highest
        of his groups. Example: ``{"deadline": 10, "guests": -10}``. Empty (the default) =
        nobody is.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    usage_half_life = Seconds(
        7 * 24 * 3600.0,
        help="""Seconds after which past usage counts half.

        Short: only the last days count. Long: a month of heavy use is remembered. Accepts
        ``"7d"``. Default: 7 days.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    unbounded_length = Seconds(
        24 * 3600.0,
        help="""Seconds that a request without a length is charged for.

        What it did not use is refunded when it ends. Default: 24 hours.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    length_weight = Float(
        4.0,
        min=0.0,
        help="""How much the length asked for counts beside past usage.

        In the order, an hour of length counts as many GPU hours of usage. Higher: short requests
        come first more often, and people wait less on average. 0 = only usage counts, and the
        older request is first among equals. Default: 4.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    age_first = Seconds(
        24 * 3600.0,
        allow_none=True,
        help="""Seconds of waiting after which a request is first in line.

        Before groups, usage and priorities; among those the oldest. The first in line gets a
        reservation, which others may pass only without delaying it. None = never. Default: 24
        hours.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    age_guard = Seconds(
        48 * 3600.0,
        allow_none=True,
        help="""Seconds of waiting after which nobody younger passes.

        Past it a request is served in order of arrival, and GPUs that it could use are kept
        for it, even if they idle. None = never. Default: 48 hours.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    backfill = Bool(
        True,
        help="""Whether requests may pass the first one in line.

        They pass only where that does not delay it, as far as the lengths of what runs tell.
        False = when the first one waits, all wait. Default: True.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    @validate("shares")
    def _validate_shares(self, proposal: Any) -> dict[str, Any]:
        try:
            Usage(Fairness(shares=_shares(proposal.value)))
        except ValueError as error:
            raise TraitError(f"shares: {error}") from None
        return dict(proposal.value)

    def fairness(self) -> Fairness:
        """The numbers that order the line."""
        return Fairness(
            by_usage=self.fair_share,
            shares=_shares(self.shares),
            priorities=dict(self.group_priorities),
            half_life=self.usage_half_life,
            unbounded_length=self.unbounded_length,
            length_weight=self.length_weight,
            age_first=self.age_first,
            age_guard=self.age_guard,
            backfill=self.backfill,
        )


def _shares(value: dict[str, dict[str, Any]]) -> tuple[Share, ...]:
    """The shares of the option; ``ValueError`` with what is wrong and what is allowed."""
    return tuple(_share(name, fields) for name, fields in value.items())


def _share(name: str, fields: dict[str, Any]) -> Share:
    if not name:
        raise ValueError("a share needs the name of a group")
    for word, number in fields.items():
        if word not in _SHARE:
            raise ValueError(f"{name}: there is no {word!r}; known: {', '.join(_SHARE)}")
        if not isinstance(number, _SHARE[word]) or isinstance(number, bool):
            raise ValueError(f"{name}: {word} is {number!r}")
        if isinstance(number, (int, float)) and not 0 <= number < math.inf:
            raise ValueError(f"{name}: {word} is {number!r}; want 0 or more")
    if fields.get("weight") == 0:
        raise ValueError(f"{name}: weight is 0; want a number above 0")
    return Share(name=name, **fields)
