"""Memory and time as admins write them, and as people read them.

Pure functions. What can't be read raises ``ValueError`` with a text that names the value and
the accepted forms; the caller says where the value stood.
"""

from __future__ import annotations

import math
import re

#: bytes per suffix. K, M, G, T are powers of 1024, as in JupyterHub's own ``mem_limit``
_MEMORY_UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}
_MEMORY = re.compile(r"(\d{1,15}(?:\.\d{1,6})?) ?([KMGT]?)(?:i?B)?", re.ASCII | re.IGNORECASE)
_MEMORY_FORMS = 'use bytes or a number with K, M, G or T, such as "512M" or "8G"'

#: seconds per suffix
_TIME_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_TIME_PART = re.compile(r"(\d{1,9}(?:\.\d{1,6})?) ?(s|min|m|h|d)", re.ASCII | re.IGNORECASE)
_TIME_FORMS = 'use seconds or a number with s, m, h or d, such as "30m" or "4h"'

#: larger than any machine; keeps sums inside the 64 bits that databases store
MAX_MEMORY = 2**60
#: ten years, in seconds
MAX_DURATION = 10 * 365 * 86400.0


def parse_memory(value: object) -> int:
    """Bytes in ``value``: an int, or text such as ``"512M"``, ``"8G"``, ``"1.5 GiB"``.

    Suffixes are powers of 1024, as in JupyterHub. 0 is returned as 0.

    Raises
    ------
    ValueError
        Not such a value, negative, or more than :data:`MAX_MEMORY`.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f"{show_value(value)} is not an amount of memory: {_MEMORY_FORMS}")
    if isinstance(value, str):
        match = _MEMORY.fullmatch(value.strip())
        if match is None:
            raise ValueError(f"{show_value(value)} is not an amount of memory: {_MEMORY_FORMS}")
        amount = float(match[1]) * _MEMORY_UNITS[match[2].upper()]
    else:
        amount = value
    if not 0 <= amount <= MAX_MEMORY:  # also False for nan
        raise ValueError(f"{show_value(value)} is not between 0 and {format_memory(MAX_MEMORY)}")
    return int(amount)


def parse_duration(value: object) -> float:
    """Seconds in ``value``: a number, or text such as ``"90s"``, ``"30m"``, ``"4h"``, ``"1h30m"``.

    Raises
    ------
    ValueError
        Not such a value, not above 0, or more than :data:`MAX_DURATION`.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f"{show_value(value)} is not a length of time: {_TIME_FORMS}")
    seconds = _seconds(value) if isinstance(value, str) else value
    if not 0 < seconds <= MAX_DURATION:  # also False for nan
        raise ValueError(
            f"{show_value(value)} is not between 0 s and {format_duration(MAX_DURATION)}"
        )
    return float(seconds)


def format_memory(size: int) -> str:
    """``8 GiB`` for ``8 * 1024**3``; at most one decimal.

    >>> format_memory(1610612736), format_memory(512 * 1024**2), format_memory(0)
    ('1.5 GiB', '512 MiB', '0 B')
    """
    amount, unit = float(size), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        # 1023.95 would print as "1024" of the smaller unit
        if amount < 1023.95 or unit == "TiB":
            break
        amount /= 1024
    return f"{_number(amount)} {unit}"


def format_duration(seconds: float) -> str:
    """``4 h`` for ``14400``; the largest unit that is reached, at most one decimal.

    >>> format_duration(5400), format_duration(90), format_duration(86400)
    ('1.5 h', '1.5 min', '24 h')
    """
    if seconds >= 2 * 86400:
        return f"{_number(seconds / 86400)} days"
    if seconds >= 3600:
        return f"{_number(seconds / 3600)} h"
    if seconds >= 60:
        return f"{_number(seconds / 60)} min"
    return f"{_number(seconds)} s"


def show_value(value: object) -> str:
    """``repr`` of a value that was refused, short enough for one line of a log."""
    if isinstance(value, int) and abs(value) >= 10**60:
        return "a number of more than 60 digits"  # repr of a huge int may itself raise
    text = repr(value) if isinstance(value, (int, float, str)) else type(value).__name__
    return text if len(text) <= 60 else text[:57] + "…"


def _seconds(text: str) -> float:
    text = text.strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,6})?", text, re.ASCII):
        return float(text)
    total, end = 0.0, 0
    while end < len(text):
        match = _TIME_PART.match(text, end)
        if match is None:
            total = math.nan
            break
        total += float(match[1]) * _TIME_UNITS[match[2][0].lower()]
        end = match.end()
    if not text or math.isnan(total):
        raise ValueError(f"{show_value(text)} is not a length of time: {_TIME_FORMS}")
    return total


def _number(amount: float) -> str:
    """At most one decimal, and none where it is 0."""
    return f"{amount:.1f}".removesuffix(".0")
