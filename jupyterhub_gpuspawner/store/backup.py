"""A copy of the ledger for the admin's backups."""

from __future__ import annotations

import contextlib
import os
import sqlite3

from ..errors import LedgerError, LedgerFull
from .place import Place


def back_up(place: Place, target: str) -> None:
    """Copy the SQLite ledger at ``place`` to the new file ``target``, also while it is in use.

    The copy appears complete or not at all. Raises :class:`LedgerFull` if there is no space
    or no permission, else :class:`LedgerError`.
    """
    if place.path is None:
        raise LedgerError(f"ledger {place.name} is on a database server: use its tool (pg_dump)")
    if os.path.lexists(target):
        raise LedgerError(f"backup {target} exists already; give a new name")
    part = f"{target}.part"
    try:
        # VACUUM INTO takes an empty file, and so ours has its mode before the first byte.
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        try:
            _copy(place.path, part)
            os.rename(part, target)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(part)
            raise
    except (OSError, sqlite3.Error) as error:
        raise LedgerFull(f"backup {target} can't be written: {error}") from error


def _copy(source: str, part: str) -> None:
    # A connection of its own: it reads one state of the ledger, and commits don't wait for it.
    connection = sqlite3.connect(source, isolation_level=None)
    try:
        connection.execute("VACUUM INTO ?", (part,))
    finally:
        connection.close()
    file = os.open(part, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
