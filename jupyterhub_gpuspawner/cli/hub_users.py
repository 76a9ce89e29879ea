"""Who the Hub knows, read from its database: whose home is whose, and when they were last there."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import Column, DateTime, Integer, MetaData, Table, Unicode, create_engine, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from ..engine.volumes import owner_id
from ..store.failures import words
from .command import CommandError
from .site import state_folder

#: as much of JupyterHub's table as we read; it is the same in 5.4 to 6.1
_users = Table(
    "users",
    MetaData(),
    Column("id", Integer),
    Column("name", Unicode),
    Column("created", DateTime),
    Column("last_activity", DateTime),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class HubUser:
    """A user of the Hub."""

    #: the name now
    name: str
    #: when the Hub last heard of the user or a server of theirs, UTC; None = never
    last_activity: datetime | None


def default_database() -> str:
    """URL of the Hub's database where the shipped configuration puts it."""
    return f"sqlite:///{state_folder() / 'jupyterhub.sqlite'}"


def read_users(url: str, hub: str) -> dict[str, HubUser]:
    """Return the Hub's users by the owner id of their homes. Only reads.

    ``hub`` is the spawner's ``hub_name``. Raises ``CommandError``.
    """
    try:
        engine = create_engine(_read_only(make_url(url)))
    except (SQLAlchemyError, ImportError) as error:
        # the URL may hold a password: don't repeat it
        raise CommandError(
            f"the Hub's database: its URL can't be used ({type(error).__name__})"
        ) from None
    try:
        with engine.connect() as connection:
            rows = connection.execute(select(_users)).all()
    except SQLAlchemyError as error:
        shown = engine.url.render_as_string(hide_password=True)
        raise CommandError(f"the Hub's database {shown} can't be read: {words(error)}") from None
    finally:
        engine.dispose()
    return {
        owner_id(user_id=row.id, created=row.created, hub=hub): HubUser(
            name=row.name, last_activity=row.last_activity
        )
        for row in rows
    }


def _read_only(url: URL) -> URL:
    if url.get_backend_name() != "sqlite" or not url.database:
        return url
    path = Path(url.database).absolute()
    if not path.is_file():
        raise CommandError(
            f"the Hub's database {path}: there is no such file; name it with --hub-db"
        )
    return url.set(database=f"{path.as_uri()}", query={"mode": "ro", "uri": "true"})
