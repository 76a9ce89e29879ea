"""``python -m tests.fake_engine SOCKET [CDI NAME...]``: serve until killed."""

from __future__ import annotations

import sys

from aiohttp import web

from tests.fake_engine.server import Engine

if __name__ == "__main__":
    engine = Engine(set(sys.argv[2:]))
    web.run_app(
        engine.app, path=sys.argv[1], print=None, access_log=None, shutdown_timeout=0.1,
        handle_signals=False,
    )  # fmt: skip
