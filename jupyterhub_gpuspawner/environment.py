"""Environment variables of a config file, read with one clear line where they are wrong."""

from __future__ import annotations

import ipaddress
import os


def number(name: str, default: int, least: int = 0, most: int = 10**6) -> int:
    """The whole number in a variable; empty or not set: the default. SystemExit with one line."""
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    if text.isascii() and text.isdecimal() and len(text) < 10 and least <= int(text) <= most:
        return int(text)
    raise SystemExit(f"{name} is {text!r}; want a whole number from {least} to {most}")


def port(name: str, default: int) -> int:
    """The TCP port in a variable. SystemExit with one line."""
    return number(name, default, 1, 65535)


def address(name: str, default: str) -> str:
    """The IP address in a variable. SystemExit with one line."""
    text = os.environ.get(name, "").strip() or default
    try:
        return str(ipaddress.ip_address(text.strip("[]")))
    except ValueError:
        raise SystemExit(f"{name} is {text!r}; want an IP address, such as {default}") from None
