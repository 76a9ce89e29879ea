"""What a database error means for us. Pure: reads the error, does nothing."""

from __future__ import annotations

import re

from sqlalchemy.exc import DBAPIError

from ..errors import DoubleClaim, LedgerError, LedgerFull, LedgerLocked

#: what a person in the browser reads, whatever it was
USER_MESSAGE = (
    "The scheduler can't store its decisions at the moment, so it grants nothing. "
    "Your place in the queue is kept. Please tell an administrator."
)

# SQLite's texts come from its sqlite3ErrStr() and have not changed in years. Its error codes
# reach Python only from 3.11 on.
_FULL = (
    "database or disk is full",
    "readonly database",
    "disk i/o error",
    "unable to open database file",
)
_LOCKED = ("database is locked", "table is locked", "locking protocol")
_DAMAGED = ("malformed", "not a database", "malformed database schema")

# https://www.postgresql.org/docs/current/errcodes-appendix.html
_STATE_FULL = ("53100", "53200", "25006", "58030", "54000")
_STATE_LOCKED = ("55P03", "57014", "40P01", "40001", "55006")
#: a failed connection carries no code: only its words say what is wrong
_REFUSED = (
    ("authentication failed", "look at user and password in the ledger's URL"),
    ("no password supplied", "the ledger's URL needs a password: //USER:PASSWORD@HOST/NAME"),
    ("no pg_hba.conf entry", "let this machine and user in, in the server's pg_hba.conf"),
    ('role ".*" does not exist', "look at the user in the ledger's URL"),
    ('database ".*" does not exist', "create it: createdb --owner USER NAME"),
    ("permission denied", "make the ledger's user the owner of its database"),
)
_GONE = (
    "connection failed",
    "connection refused",
    "connection timeout",
    "connection is lost",
    "connection is closed",
    "closed the connection",
    "terminating connection",
    "consuming input failed",
    "could not send data",
    "starting up",
    "shutting down",
    "could not receive data",
    "failed to resolve host",
    "too many clients",
)


def sqlstate(error: DBAPIError) -> str:
    """Return PostgreSQL's five-letter code (psycopg 3 or 2), or the empty string."""
    origin = error.orig
    return getattr(origin, "sqlstate", None) or getattr(origin, "pgcode", None) or ""


def words(error: BaseException) -> str:
    """Return what the database said, on one line."""
    origin = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    # PostgreSQL's first line, without the statement and the row
    said = getattr(getattr(origin, "diag", None), "message_primary", None) or str(origin)
    return " ".join(said.split()) or type(origin).__name__


def translate(error: Exception, ledger: str) -> LedgerError:
    """Return the error of ours that says what ``error`` means; raise it ``from`` the error.

    ``ledger`` is the ledger's name for people. An error that is ours already comes back as it
    is.
    """
    if isinstance(error, LedgerError):
        return error
    text = words(error)
    state = sqlstate(error) if isinstance(error, DBAPIError) else ""
    kind, advice = _meaning(text, state)
    return kind(f"ledger {ledger}: {text}; {advice}", USER_MESSAGE)


def _meaning(text: str, state: str) -> tuple[type[LedgerError], str]:
    lower = text.lower()
    if state == "23505" or "unique constraint" in lower:
        if "claims" in lower:
            return DoubleClaim, "an atom of the grant is claimed already, nothing was granted"
        if "leases" in lower:
            return DoubleClaim, "the server has a live lease already, nothing was granted"
    if state in _STATE_FULL or any(part in lower for part in _FULL):
        return LedgerFull, "it can't be written: look at free space, quota and permissions"
    if state in _STATE_LOCKED or any(part in lower for part in _LOCKED):
        return LedgerLocked, "another program holds it (a backup, a database shell?)"
    for part, advice in _REFUSED:
        if re.search(part, lower):
            return LedgerError, advice
    if any(part in lower for part in _GONE):
        return LedgerError, "nothing of the change happened; tried again by itself"
    if any(part in lower for part in _DAMAGED):
        return LedgerError, "the file is damaged: restore a backup or move it away"
    return LedgerError, "nothing of the change happened"
