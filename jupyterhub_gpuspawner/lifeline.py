"""Ends this process when its parent is gone.

After a kill -9 of the Hub its children live on. An orphaned scheduler would hold the port, and
the next Hub would take it for its own.
"""

from __future__ import annotations

import ctypes
import os
import signal

#: from <linux/prctl.h>
_PR_SET_PDEATHSIG = 1


def die_with_parent(sig: signal.Signals, expected: int | None = None) -> bool:
    """Ask the kernel to send ``sig`` to this process when its parent ends.

    Parameters
    ----------
    sig:
        What is sent.
    expected:
        Process id that the parent should have; None = whoever it is now.

    Returns
    -------
    bool
        False where ``expected`` is not the parent (any more): then nothing will be sent, and
        the caller should end.

    The kernel forgets the wish when the process changes its user, so call this after that.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(sig), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    # The parent may have ended before the call: the kernel does not tell that afterwards.
    return expected is None or os.getppid() == expected
