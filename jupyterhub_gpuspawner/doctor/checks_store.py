"""Databases, disks, this machine's clock, volumes. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from ..units import format_memory
from .facts import Database, Facts
from .registry import Found, check, error, warning

#: bytes without which the ledger or a pull soon fails; and with which it is time to look
FULL, NEARLY = 1024**3, 5 * 1024**3
#: kinds of file systems on which SQLite's locks can't be relied on
_REMOTE = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "fuse.s3fs", "9p", "ceph")


@check("database.hub", "hub_database")
def hub_database(facts: Facts) -> Iterator[Found]:
    """The Hub's database answers, and is of the Hub's version."""
    found: Database = facts.hub_database
    if found.error:
        yield error(
            f"the Hub's database {found.name}: {found.error}",
            "The Hub does not start.",
            "c.JupyterHub.db_url, or GPUS_DB_URL; psql with the same URL says more",
        )
    elif found.revision and found.wanted and found.revision != found.wanted:
        yield error(
            f"the Hub's database is of another version (revision {found.revision}, JupyterHub "
            f"here wants {found.wanted})",
            "The Hub does not start.",
            "back it up, then: jupyterhub upgrade-db; if it is newer, install that JupyterHub",
        )


@check("database.ledger", "ledger")
def ledger(facts: Facts) -> Iterator[Found]:
    """The ledger answers, and is of a version that is known here."""
    found: Database = facts.ledger
    if found.error:
        yield error(
            f"the ledger {found.name}: {found.error}",
            "Nothing is granted.",
            "c.GPUScheduler.ledger_url, or GPUS_LEDGER_URL; and the rights of the Hub's user",
        )
    elif found.revision and found.revision > found.wanted:
        yield error(
            f"the ledger {found.name} is of a newer version (revision {found.revision}, this "
            f"program knows {found.wanted})",
            "The scheduler refuses it, and nothing is granted.",
            "pip install --upgrade jupyterhub-gpuspawner, or restore the backup from before",
        )


@check("database.one-for-two", "hub_database", "ledger")
def one_for_two(facts: Facts) -> Iterator[Found]:
    """Hub and ledger have a database each."""
    if facts.hub_database.name == facts.ledger.name:
        yield error(
            f"the Hub and the ledger share {facts.ledger.name}",
            "The Hub expects to be alone: a foreign writer stops it for seconds.",
            "another c.GPUScheduler.ledger_url",
        )


@check("database.durable", "ledger")
def durable(facts: Facts) -> Iterator[Found]:
    """What PostgreSQL has confirmed survives a power cut."""
    for name in ("fsync", "synchronous_commit", "full_page_writes"):
        if facts.ledger.settings.get(name) == "off":
            yield error(
                f"PostgreSQL has {name} = off",
                "After a power cut grants that were made are forgotten, and a GPU is given out "
                "twice.",
                f"ALTER SYSTEM SET {name} = on; SELECT pg_reload_conf();",
            )


@check("database.clock", "ledger")
def database_clock(facts: Facts) -> Iterator[Found]:
    """The clock of the database server and ours agree."""
    off = facts.ledger.clock
    if off is not None and abs(off) > 5:
        yield warning(
            f"the clock of the ledger's server is {off:+.0f} s off this machine's",
            "Times in reports and backups don't fit together.",
            "timedatectl set-ntp true on both",
        )


@check("database.place", "ledger", "disks")
def place(facts: Facts) -> Iterator[Found]:
    """An SQLite ledger is on a disk of this machine."""
    disk = facts.disks.get(facts.ledger.name)
    if disk is not None and disk.kind in _REMOTE:
        yield error(
            f"the ledger is on {disk.kind}",
            "SQLite's locks can't be relied on there: two schedulers could grant one GPU.",
            "c.GPUScheduler.state_dir on a disk of this machine, or a ledger on PostgreSQL",
        )


@check("disk.space", "disks")
def space(facts: Facts) -> Iterator[Found]:
    """There is room for the ledger, for images and for homes."""
    for path, disk in facts.disks.items():
        if disk.free < FULL:
            yield error(
                f"{path} has {format_memory(disk.free)} left",
                "When it is full nothing is granted, and servers can't save.",
                "docker system df; jupyterhub-gpuspawner storage; move or remove what nobody needs",
                about=path,
            )
        elif disk.free < NEARLY and disk.free < disk.total * 0.1:
            yield warning(
                f"{path} has {format_memory(disk.free)} of {format_memory(disk.total)} left",
                "When it is full nothing is granted, and servers can't save.",
                "docker system df; jupyterhub-gpuspawner storage",
                about=path,
            )


@check("disk.files", "disks")
def files(facts: Facts) -> Iterator[Found]:
    """There is room for more files."""
    for path, disk in facts.disks.items():
        if disk.inodes and disk.free_inodes < disk.inodes * 0.02:
            yield error(
                f"{path} has room for {disk.free_inodes} more files only",
                "It is full while df shows free space ('No space left on device').",
                "df -i; remove environments and caches with many small files",
                about=path,
            )


@check("clock.set", "clock_set")
def clock_set(facts: Facts) -> Iterator[Found]:
    """This machine's clock is set from elsewhere."""
    if not facts.clock_set:
        yield warning(
            "nothing keeps this machine's clock right",
            "Lengths, bookings and certificates go by it; logins by OpenID fail when it is off.",
            "timedatectl set-ntp true, or install chrony",
        )


@check("volume.driver", "info", "spawner")
def driver(facts: Facts) -> Iterator[Found]:
    """The engine has the volume driver of the homes."""
    wanted = getattr(facts.spawner, "home_driver", "local") or "local"
    there = (facts.info.get("Plugins") or {}).get("Volume") or ["local"]
    if wanted not in there and f"{wanted}:latest" not in there:
        yield error(
            f"homes want the volume driver {wanted}, the engine has {', '.join(there)}",
            "Nobody who has no home yet can start a server.",
            f"docker plugin install {wanted}, or c.GPUDockerSpawner.home_driver = 'local'",
        )


@check("volume.nfs", "spawner")
def nfs(facts: Facts) -> Iterator[Found]:
    """Options for homes on NFS name a server and a folder."""
    options = dict(getattr(facts.spawner, "home_options", None) or {})
    if options.get("type") not in ("nfs", "nfs4"):
        return
    device = options.get("device", "")
    if "addr=" not in options.get("o", ""):
        yield error(
            "home_options are for NFS and name no server",
            "Docker can't mount the homes: no server starts.",
            'c.GPUDockerSpawner.home_options: "o": "addr=10.0.0.5,rw,nfsvers=4"',
        )
    if not device.startswith(":"):
        yield error(
            f"home_options have the device {device!r}; for NFS it begins with a colon",
            "Docker can't mount the homes: no server starts.",
            'c.GPUDockerSpawner.home_options: "device": ":/homes/{volume}"',
        )
    elif "{volume}" not in device and "{username}" not in device:
        yield error(
            f"home_options have the device {device!r} for everybody",
            "All users share one folder as their home.",
            'c.GPUDockerSpawner.home_options: "device": ":/homes/{volume}"',
        )


@check("volume.folder", "bind_sources")
def folder(facts: Facts) -> Iterator[Found]:
    """Folders that servers mount are on the machine."""
    for path, there in facts.bind_sources.items():
        if not there:
            yield error(
                f"servers mount {path}, and there is no such folder",
                "Docker makes an empty one, of root: users see no data, and can't write.",
                f"mkdir -p {path} with the right owner, or mount what belongs there",
                about=path,
            )
