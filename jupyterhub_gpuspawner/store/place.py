"""Where the ledger lives: the URL, and for SQLite the file and its folder."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from ..errors import LedgerError, LedgerFull

_MAGIC = b"SQLite format 3\x00"


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A ledger's place, checked as far as possible without opening the database."""

    #: what SQLAlchemy opens; for SQLite with the file's real path
    url: URL
    #: for messages, without a password
    name: str
    #: the SQLite file; None for a database server
    path: str | None


def find(url: str) -> Place:
    """Return the place that ``url`` names. Raises :class:`LedgerError` for a wrong URL."""
    try:
        parsed = make_url(url)
    except ArgumentError:
        # The URL may hold a password: don't repeat it.
        raise LedgerError(
            "the ledger's URL can't be read; give sqlite:////folder/file or postgresql://…"
        ) from None
    backend = parsed.get_backend_name()
    name = parsed.render_as_string(hide_password=True)
    if backend == "postgresql":
        return Place(url=_with_driver(parsed, name), name=name, path=None)
    if backend != "sqlite":
        raise LedgerError(f"ledger {name}: {backend} is not supported; use sqlite or postgresql")
    if parsed.drivername not in ("sqlite", "sqlite+pysqlite") or parsed.query:
        raise LedgerError(f"ledger {name}: an SQLite ledger takes a file path and nothing else")
    if parsed.database in (None, "", ":memory:"):
        raise LedgerError(
            f"ledger {name}: a ledger in memory forgets every lease at a restart; give a file"
        )
    path = os.path.realpath(str(parsed.database))
    return Place(url=parsed.set(database=path), name=path, path=path)


def _with_driver(url: URL, name: str) -> URL:
    """Return a PostgreSQL URL that names the one driver we know."""
    if "password" in url.query:
        # this part of a URL is shown in messages
        raise LedgerError("the ledger's URL has its password after the ?; write USER:PASSWORD@HOST")
    if url.drivername not in ("postgresql", "postgresql+psycopg"):
        raise LedgerError(f"ledger {name}: use postgresql+psycopg://, no other driver is tested")
    if importlib.util.find_spec("psycopg") is None:
        raise LedgerError(
            f"ledger {name}: the driver psycopg is missing; "
            "run: pip install 'jupyterhub-gpuspawner[postgresql]'"
        )
    return url.set(drivername="postgresql+psycopg")


def prepare_folder(path: str) -> None:
    """Make sure that the folder of the file ``path`` is there and writable; 0700 if created.

    Only the last folder is created: a missing parent is more likely a typing error or a disk
    that is not mounted. Raises :class:`LedgerFull` where it can't be written, else
    :class:`LedgerError`.
    """
    folder = os.path.dirname(path)
    if not os.path.exists(folder):
        _create_folder(path, folder)
    if not os.path.isdir(folder):
        raise LedgerError(f"ledger {path}: {folder} is not a folder")
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
        raise LedgerFull(
            f"ledger {path}: the folder {folder} is not writable by this user; "
            "SQLite keeps its log there"
        )


def _create_folder(path: str, folder: str) -> None:
    try:
        os.mkdir(folder, 0o700)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise LedgerError(
            f"ledger {path}: the folder {os.path.dirname(folder)} does not exist; create it"
        ) from error
    except OSError as error:
        raise LedgerFull(
            f"ledger {path}: the folder {folder} can't be created: {error.strerror}"
        ) from error


def prepare_file(path: str) -> None:
    """Make sure that ``path`` can be an SQLite file; an empty one (0600) is created.

    Call it with the ledger's lock held: closing a file that SQLite has open in this process
    would drop SQLite's own locks. Raises like :func:`prepare_folder`.
    """
    if os.path.isdir(path):
        raise LedgerError(f"ledger {path} is a folder; give the path of a file in it")
    try:
        # SQLite gives its -wal and -shm files the mode of this one.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        return
    except FileExistsError:
        pass
    except OSError as error:
        raise LedgerFull(f"ledger {path} can't be created: {error.strerror}") from error
    if not os.path.isfile(path):
        raise LedgerError(f"ledger {path} is not a regular file")
    if not os.access(path, os.R_OK | os.W_OK, effective_ids=True):
        raise LedgerFull(f"ledger {path} is not writable by this user; change its owner or mode")
    with open(path, "rb") as file:
        head = file.read(len(_MAGIC))
    if head not in (b"", _MAGIC):
        raise LedgerError(f"ledger {path} is not an SQLite database; move that file away")
