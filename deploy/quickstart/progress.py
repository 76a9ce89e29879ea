"""Lines of progress on stderr, in the form of ``step`` in ``deploy/lib.sh``."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

#: When the command began, Unix time.
_BEGUN = float(os.environ.get("GPUS_STARTED") or time.time())
#: Seconds after which a silent step says that it is still at work.
_PATIENCE = 15.0


def step(text: str) -> None:
    """One line, with the seconds since the command began."""
    print(f"==> [{int(time.time() - _BEGUN):4d} s] {text}", file=sys.stderr, flush=True)


@contextmanager
def ticking() -> Iterator[None]:
    """Within, a line every 15 s tells that the work goes on."""
    done = threading.Event()

    def tick() -> None:
        begun = time.monotonic()
        while not done.wait(_PATIENCE):
            step(f"still at it ({time.monotonic() - begun:.0f} s)")

    thread = threading.Thread(target=tick, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
