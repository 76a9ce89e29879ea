"""``ledger copy``, ``backup`` and ``version``."""

from __future__ import annotations

import argparse
import os
import platform
import shlex
from importlib import metadata

from .. import __version__
from ..store import backup as backups
from ..store import place as places
from ..store import transfer
from ..store.tables import REVISION
from .command import OK, Argument, Command, CommandError, Progress, answer, say, say_json
from .site import CONFIG, options

_LEDGER = Argument(
    name="--ledger URL",
    help="the ledger's database, instead of what the configuration says",
)


def _copy(arguments: argparse.Namespace) -> int:
    urls = vars(arguments)["from"], arguments.to
    counts = transfer.copy(*urls, Progress())
    source, target = (places.find(url).name for url in urls)
    if arguments.json:
        say_json({"from": source, "to": target, "rows": counts})
    else:
        rows = ", ".join(f"{table} {count}" for table, count in counts.items())
        say(f"copied {source} to {target}, read back and found the same; rows: {rows}")
        say("set c.GPUScheduler.ledger_url to it, and move the old one away: both have one id")
    return OK


def _backup(arguments: argparse.Namespace) -> int:
    place = places.find(arguments.ledger or options(arguments).ledger)
    if place.path is None:
        shown = place.url._replace(drivername="postgresql", password=None).render_as_string()
        command = shlex.join(
            ["pg_dump", "--format=custom", f"--file={arguments.file}", f"--dbname={shown}"]
        )
        raise CommandError(
            f"ledger {place.name} is on a database server, nothing was copied; run: {command}"
        )
    transfer.must_exist(place)
    backups.back_up(place, arguments.file)
    size = os.path.getsize(arguments.file)
    found = {"ledger": place.name, "file": arguments.file, "bytes": size}
    return answer(arguments, found, f"backed up {place.name} to {arguments.file}: {size} bytes")


def _version(arguments: argparse.Namespace) -> int:
    versions = {
        "jupyterhub-gpuspawner": __version__,
        "ledger": REVISION,
        "python": platform.python_version(),
        **{name: _installed(name) for name in ("jupyterhub", "dockerspawner", "docker", "psycopg")},
    }
    if arguments.json:
        say_json(versions)
    else:
        for name, version in versions.items():
            say(f"{name} {version or 'not installed'}")
    return OK


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


COMMANDS = (
    Command(
        name="ledger copy",
        help="Copy the whole ledger to another database.\n\n"
        "From SQLite to PostgreSQL or back, with its id, epoch and journal. Stop the Hub first: "
        "a scheduler that runs holds the ledger, and the command refuses. The target has to be "
        "empty. It has everything in the end, read back and compared, or stays empty, also where "
        "this is killed in the middle. Give passwords by PGPASSWORD or ~/.pgpass: everybody on "
        "the machine can see what stands on the command line.",
        arguments=(
            Argument(
                name="FROM",
                help="URL of the ledger: sqlite:////folder/ledger.sqlite (an absolute path) or "
                "postgresql://USER@HOST/NAME",
            ),
            Argument(name="TO", help="URL of an empty database, or of an SQLite file to be made"),
        ),
        run=_copy,
    ),
    Command(
        name="backup",
        help="Copy an SQLite ledger to a new file, also while it is in use.\n\n"
        "The file appears complete or not at all, with mode 0600. For PostgreSQL it prints the "
        "command of pg_dump, and fails: nothing was backed up.",
        arguments=(Argument(name="FILE", help="the new file"), _LEDGER, CONFIG),
        run=_backup,
    ),
    Command(
        name="version",
        help="Print the versions of this package and of what it stands on.",
        run=_version,
    ),
)
