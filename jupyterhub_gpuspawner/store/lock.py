"""One scheduler per ledger: a lock that the kernel takes back when its process dies."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading

from ..errors import LedgerError, LedgerFull, LedgerLocked

# fcntl locks belong to the process: a second open() in the same process would be let in, and
# its close() would drop the first one's lock. So this process remembers what it holds.
_held: set[str] = set()
_held_guard = threading.Lock()

_WRITE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


class FileLock:
    """An exclusive lock on ``path``, held from construction to :meth:`close`.

    A POSIX record lock, not ``flock``: children made by ``fork`` don't inherit it, so a child
    that outlives a killed scheduler doesn't keep the next one out.

    Raises :class:`LedgerLocked` with the holder's process id, if it wrote one.
    """

    def __init__(self, path: str, ledger: str) -> None:
        self.path = path
        with _held_guard:
            if path in _held:
                raise _locked(ledger, path, os.getpid())
            self._file = _open(path, ledger)
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                holder = _holder(self._file)
                os.close(self._file)
                raise _locked(ledger, path, holder) from error
            _held.add(path)
        # For people only. A full disk must not keep a scheduler from reading its ledger.
        with contextlib.suppress(OSError):
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def close(self) -> None:
        """Give the lock back. The file stays: removing it would let two processes in."""
        with _held_guard:
            if self.path in _held:
                _held.remove(self.path)
                os.close(self._file)


def _open(path: str, ledger: str) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        kind = LedgerFull if error.errno in _WRITE_ERRORS else LedgerError
        raise kind(
            f"ledger {ledger}: its lock file {path} can't be opened: {error.strerror}"
        ) from error


def _holder(file: int) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        return int(os.pread(file, 32, 0))
    return None


def _locked(ledger: str, path: str, holder: int | None) -> LedgerLocked:
    who = f"process {holder}" if holder else "another process"
    return LedgerLocked(
        f"ledger {ledger} is in use by {who} (lock {path}); one scheduler may have it at a time"
    )
