"""Faults per call, armed by the test."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

#: what may happen to a call: ``status`` (refused with ``status``/``message``), ``cut`` (the
#: connection ends before anything happens), ``lost`` (it happens, the connection ends before the
#: answer), ``broken`` (it happens, the answer is no JSON), ``slow`` (begins after ``seconds``),
#: ``late`` (answers ``seconds`` after it happened), ``hang`` (never begins, never answers)
ACTIONS = frozenset({"status", "cut", "lost", "broken", "slow", "late", "hang"})


@dataclass(kw_only=True)
class Fault:
    """One armed fault."""

    #: regular expression for ``METHOD /path`` (without the version)
    call: str
    action: str
    #: calls that match before it strikes
    skip: int = 0
    #: how often it strikes
    times: int = 1
    status: int = 500
    message: str = "fault injected"
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise ValueError(f"{self.action!r} is no fault; known: {sorted(ACTIONS)}")


@dataclass(kw_only=True)
class Faults:
    """What is armed."""

    armed: list[Fault] = field(default_factory=list)

    def arm(self, data: dict[str, Any]) -> None:
        """Arm a fault from its JSON."""
        self.armed.append(Fault(**data))

    def strikes(self, call: str) -> Fault | None:
        """The fault that strikes this call, if any."""
        for fault in self.armed:
            if fault.times > 0 and re.search(fault.call, call):
                if fault.skip > 0:
                    fault.skip -= 1
                    continue
                fault.times -= 1
                return fault
        return None
