"""Options of budgets: GPU hours of users and groups in each period."""

from __future__ import annotations

from typing import Any

from traitlets import Dict, TraitError, Unicode, validate
from traitlets.config import Configurable

from ..scheduler.policy import HOUR, Budget
from ..units import parse_duration

_EXAMPLE = '{"hours": 100, "period": "7d"}'


class BudgetOptions(Configurable):
    """Part of :class:`~.options.GPUScheduler`: who may use how much in each period."""

    user_gpu_budget = Dict(
        key_trait=Unicode(),
        help="""GPU hours that each user may use in a period.

        A dict with ``hours`` (GPUs times hours) and ``period`` (seconds, or text such as
        ``"7d"``; at least one hour). A grant is charged for its whole length (a request without
        one for ``unbounded_length``), and what is not used is refunded when the server ends. A
        request above what is left waits for a refund or the next period; one above the whole
        budget is refused. Periods of 7 days begin on Mondays, 00:00 UTC. Example:
        ``{"hours": 100, "period": "7d"}``. Empty (the default) = no budget.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    user_gpu_budgets = Dict(
        key_trait=Unicode(),
        help="""GPU hours by user name; replaces ``user_gpu_budget``.

        Values as for ``user_gpu_budget``; None = no budget. Example: ``{"alice": {"hours": 500,
        "period": "7d"}, "root": None}``. Empty (the default) = no exceptions.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    group_gpu_budgets = Dict(
        key_trait=Unicode(),
        help="""GPU hours that a group's members share in a period.

        Values as for ``user_gpu_budget``, by group name. A user in several groups needs hours in
        each of them. Example: ``{"students": {"hours": 1000, "period": "30d"}}``. Empty (the
        default) = no budgets.

        .. versionadded:: 0.1
        """,
    ).tag(config=True)

    @validate("user_gpu_budget")
    def _validate_budget(self, proposal: Any) -> dict[str, Any]:
        if proposal.value:
            _budget("user_gpu_budget", proposal.value)
        return dict(proposal.value)

    @validate("user_gpu_budgets", "group_gpu_budgets")
    def _validate_budgets(self, proposal: Any) -> dict[str, Any]:
        for name, value in proposal.value.items():
            if value is not None or proposal.trait.name != "user_gpu_budgets":
                _budget(f"{proposal.trait.name}: {name}", value)
        return dict(proposal.value)

    def budgets(self) -> dict[str, Any]:
        """The budgets, as :class:`~..scheduler.models.Limits` has them."""
        return {
            "user_budget": _budget("", self.user_gpu_budget) if self.user_gpu_budget else None,
            "user_budgets": {
                name: None if value is None else _budget(name, value)
                for name, value in self.user_gpu_budgets.items()
            },
            "group_budgets": {n: _budget(n, v) for n, v in self.group_gpu_budgets.items()},
        }


def _budget(where: str, value: Any) -> Budget:
    if not isinstance(value, dict) or set(value) != {"hours", "period"}:
        raise TraitError(f"{where} is {value!r}; want hours and period, e.g. {_EXAMPLE}")
    hours = value["hours"]
    if isinstance(hours, bool) or not isinstance(hours, (int, float)) or not 0 <= hours < 1e9:
        raise TraitError(f"{where}: hours is {hours!r}; want 0 or more, e.g. {_EXAMPLE}")
    try:
        period = parse_duration(value["period"])
    except ValueError as error:
        raise TraitError(f"{where}: period: {error}") from None
    if period < HOUR:
        raise TraitError(f"{where}: period is {value['period']!r}; want at least an hour")
    return Budget(hours=float(hours), period=period)
