"""What a benchmark is expected to give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def missed(found: Mapping[str, Any], expected: Mapping[str, tuple[str, float]]) -> list[str]:
    """Which expectations (key -> ``>=`` or ``<=``, and a number) are not met, in words."""
    return [
        f"{name} is {found[name]}, expected {how} {want}"
        for name, (how, want) in expected.items()
        if (found[name] < want if how == ">=" else found[name] > want)
    ]
