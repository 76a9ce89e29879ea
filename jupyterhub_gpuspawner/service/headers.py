"""Headers that every answer of the service has: what a browser may do with it.

Imports nothing: the port answers before the rest is there.
"""

from __future__ import annotations

from typing import Any

#: for what is no page: nothing of it is shown, run or framed
NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

#: for pages: our style, the scripts that have the page's nonce, and our own stream and API
PAGE = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'self'; img-src 'self'; "
    "font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)


def protect(handler: Any, nonce: str = "") -> None:
    """Set them on a handler's answer. ``nonce``: of a page with a script; empty = no page."""
    policy = PAGE.format(nonce=nonce) if nonce else NOTHING
    handler.set_header("Content-Security-Policy", policy)
    handler.set_header("X-Content-Type-Options", "nosniff")
    handler.set_header("X-Frame-Options", "DENY")
    handler.set_header("Referrer-Policy", "same-origin")
    handler.set_header("Cache-Control", "no-store")
    handler.clear_header("Server")
