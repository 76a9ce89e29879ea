"""What the logs of our processes hold."""

from __future__ import annotations

import re


def tracebacks(log: str) -> list[str]:
    """The entries of a log that have a traceback, whole: a test that fails on one tells which."""
    return [entry for entry in re.split(r"(?m)^(?=\[[A-Z] )", log) if "Traceback" in entry]
