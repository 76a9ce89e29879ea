"""``python -m tests.crash.zygote SOCKET``: has imported everything, instrumented, and forks.

It makes an empty ledger beside the socket, plays a rehearsal, and then forks: a request is one
JSON line ``{"role": "hub"|"scheduler", …}``, the answer ``{"pid": …}``. Starting Python and
importing JupyterHub takes seconds; a fork takes milliseconds, and the kill of what was forked is
as real.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from typing import Any

_PR_SET_PDEATHSIG = 1


def main(path: str) -> None:
    """Serve until the controller hangs up."""
    from tests.crash import instrument

    instrument.install()
    from tests.crash import hub_process, rehearsal, scheduler_process

    roles: dict[str, Callable[[dict[str, Any]], None]] = {
        "hub": hub_process.main,
        "scheduler": scheduler_process.main,
    }
    hub_process.prepare()
    scheduler_process.prepare(os.path.dirname(path))
    # children are reaped by the kernel
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        with connection.makefile("rb") as requests:
            rehearsal.rehearse(json.loads(requests.readline()))
            _settle()
            connection.sendall(json.dumps(_hello(instrument)).encode() + b"\n")
            for line in requests:
                order = json.loads(line)
                pid = os.fork()
                if pid == 0:
                    connection.close()
                    _child(roles[order["role"]], order)
                connection.sendall(json.dumps({"pid": pid}).encode() + b"\n")


def _hello(instrument: Any) -> dict[str, Any]:
    """What is there: the number of points by module, and all modules."""
    prefix = f"{instrument.PACKAGE}."
    return {
        "found": {name: len(found) for name, found in instrument.FOUND.items()},
        "loaded": [n.removeprefix(prefix) for n in sys.modules if n.startswith(prefix)],
    }


def _settle() -> None:
    """Children live for seconds, and copy each page that a collection touches."""
    gc.collect()
    gc.freeze()
    gc.disable()


def _child(work: Callable[[dict[str, Any]], None], order: dict[str, Any]) -> None:
    """Do the work and end, never returning into the zygote's code."""
    code = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        work(order)
        code = 0
    except BaseException:  # noqa: BLE001 - it has to end here, with its reason in the log
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1])
