"""Facts of the databases. They are only read."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, inspect, text
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.exc import SQLAlchemyError

from ..errors import GPUSpawnerError
from ..store import place as places
from ..store.failures import words
from ..store.tables import REVISION, VERSION_TABLE
from .facts import Database
from .finding import Unknown

#: seconds to connect
_LIMIT = 10
_SETTINGS = ("fsync", "synchronous_commit", "full_page_writes")


def ledger(url: str) -> Database | Unknown:
    """The ledger at a URL."""
    try:
        place = places.find(url)
    except GPUSpawnerError as error:
        return Database(name="(its URL)", error=str(error))
    if place.path is not None and not Path(place.path).exists():
        # the first start makes it; its folder is looked at by its disk
        return Database(name=place.name)
    return _ask(place.name, place.url, VERSION_TABLE, REVISION)


def hub(url: str) -> Database | Unknown:
    """The Hub's database at a URL."""
    try:
        parsed = make_url(url)
        name = parsed.render_as_string(hide_password=True)
    except SQLAlchemyError:
        return Database(name="(its URL)", error="the URL can't be read")
    if parsed.get_backend_name() == "sqlite":
        name = str(Path(parsed.database or "").absolute())
        if not Path(name).exists():
            return Database(name=name)
    return _ask(name, parsed, "alembic_version", _hub_revision())


def _hub_revision() -> str:
    """What the JupyterHub here wants its database to be."""
    import jupyterhub.dbutil
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option(
        "script_location", str(Path(jupyterhub.dbutil.__file__).with_name("alembic"))
    )
    return str(ScriptDirectory.from_config(config).get_current_head() or "")


def _ask(name: str, url: Any, version_table: str, wanted: str) -> Database | Unknown:
    sqlite = url.get_backend_name() == "sqlite"
    if sqlite:
        path = Path(url.database).absolute()
        try:
            path.open("rb").close()
        except PermissionError as error:
            return Unknown(why=f"{path}: {error.strerror}")
        except OSError as error:
            return Database(name=name, error=str(error.strerror))
        url = url.set(database=path.as_uri(), query={"mode": "ro", "uri": "true"})
    arguments = {"timeout": _LIMIT} if sqlite else {"connect_timeout": _LIMIT}
    try:
        engine = create_engine(url, connect_args=arguments)
    except (SQLAlchemyError, ImportError) as error:
        return Database(name=name, error=f"its driver can't be used ({type(error).__name__})")
    try:
        with engine.connect() as connection:
            return _read(connection, name, version_table, wanted)
    except SQLAlchemyError as error:
        return Database(name=name, error=words(error))
    finally:
        engine.dispose()


def _read(connection: Connection, name: str, version_table: str, wanted: str) -> Database:
    tables = inspect(connection).get_table_names()
    revision = ledger_id = ""
    if version_table in tables:
        found = connection.execute(text(f'select version_num from "{version_table}"')).scalar()
        revision = str(found or "")
    if "meta" in tables and version_table == VERSION_TABLE:
        ledger_id = str(connection.execute(text("select ledger from meta")).scalar() or "")
    settings: dict[str, str] = {}
    clock = None
    if connection.dialect.name == "postgresql":
        for setting in _SETTINGS:
            settings[setting] = str(connection.execute(text(f"show {setting}")).scalar())
        now = connection.execute(text("select extract(epoch from clock_timestamp())")).scalar()
        clock = float(now or 0) - time.time()
    return Database(
        name=name,
        ledger=ledger_id,
        revision=revision,
        wanted=wanted,
        settings=settings,
        clock=clock,
    )
