"""Root file systems made with debootstrap and kept in the testbed's cache folder.

The package mirror comes from ``DEBIAN_MIRROR`` and ``DEBIAN_SECURITY_MIRROR``, a proxy from
``http_proxy`` or from apt's own configuration. Only the standard library is used: ``fetch`` runs
before there is a virtual environment.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: The first Debian whose engine (26.1) knows CDI.
ENGINE_SUITE = "trixie"
#: What ``debian:bookworm-slim`` holds.
BASE_SUITE = "bookworm"
#: What the images of ``deploy/compose`` are made of.
SITE_SUITE = "trixie"

_ENGINE_PACKAGES = ("docker.io", "iptables", "ca-certificates", "iproute2")
_SCRIPTS = Path("/usr/share/debootstrap/scripts")
#: Mount points that an engine needs in its root.
_MOUNT_POINTS = ("data", "out", "etc/docker", "etc/cdi")


def home() -> Path:
    """The testbed's folder: root file systems and the engines' data. ``GPUS_TESTBED_DIR``."""
    return Path(os.environ.get("GPUS_TESTBED_DIR") or "/var/cache/jupyterhub-gpuspawner/testbed")


def engine_root() -> Path:
    """Where the engine's root file system is (or will be)."""
    return home() / "rootfs" / f"engine-{ENGINE_SUITE}"


def base_tar(suite: str = BASE_SUITE) -> Path:
    """Where the base image's file system is (or will be)."""
    return home() / "rootfs" / f"{suite}.tar"


def compose_program() -> Path:
    """Where Debian's docker compose is (or will be)."""
    return home() / "rootfs" / f"compose-{ENGINE_SUITE}" / "docker-compose"


def missing() -> str | None:
    """Why the testbed can't run on this machine, as one line for a skip; None when it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "the testbed needs root on Linux (namespaces, mounts, its own Docker engine)"
    tools = ["ip", "unshare", "nsenter", "mount", "pivot_root"]
    if not (engine_root().exists() and base_tar().exists()):
        tools.append("debootstrap")
    absent = [tool for tool in tools if shutil.which(tool) is None]
    if absent:
        return f"the testbed needs {', '.join(absent)}: apt-get install debootstrap iproute2"
    return None


def mirror() -> str:
    """Where Debian's packages come from; empty = debootstrap's own default."""
    return os.environ.get("DEBIAN_MIRROR", "")


def _sources(bootstrapped: str, suite: str) -> str:
    """A ``sources.list`` with updates and security, from the one that debootstrap wrote."""
    main = mirror() or bootstrapped.split()[1].rstrip("/")
    security = os.environ.get("DEBIAN_SECURITY_MIRROR") or f"{main}-security"
    return (
        f"deb {main} {suite} main\n"
        f"deb {main} {suite}-updates main\n"
        f"deb {security} {suite}-security main\n"
    )


def proxies() -> dict[str, str]:
    """Proxy variables for a command or an image build: the environment's, else apt's own."""
    names = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
    found = {name: os.environ[name] for name in names if os.environ.get(name)}
    if "http_proxy" not in found and shutil.which("apt-config"):
        command = ["apt-config", "shell", "p", "Acquire::http::Proxy"]
        line = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        if "'" in line and (proxy := line.split("'")[1]) not in ("", "DIRECT"):
            found["http_proxy"] = proxy
    return found


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Only one process at a time works on what ``name`` stands for."""
    home().mkdir(parents=True, exist_ok=True)
    with open(home() / f"{name}.lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _debootstrap(suite: str, target: Path, include: tuple[str, ...] = ()) -> None:
    """Make a minimal Debian in ``target``; the log lies beside it."""
    command = ["debootstrap", "--variant=minbase"]
    if include:
        command.append(f"--include={','.join(include)}")
    command += [suite, str(target), mirror()]
    if not (_SCRIPTS / suite).exists():
        # An older debootstrap: newer suites are made as Debian's development suite is.
        command.append(str(_SCRIPTS / "sid"))
    log = target.with_suffix(".log")
    with open(log, "w") as output:
        code = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **proxies()},
            check=False,
        ).returncode
    if code != 0:
        tail = log.read_text(errors="replace").splitlines()[-3:]
        raise RuntimeError(f"debootstrap {suite} failed: {' | '.join(tail)}")


def _clean(root: Path) -> None:
    """Take away what apt can fetch again."""
    for folder in ("var/cache/apt/archives", "var/lib/apt/lists"):
        for entry in (root / folder).iterdir():
            if entry.is_file():
                entry.unlink()


def ensure_engine_root() -> Path:
    """The engine's root file system; made once (about 40 s, 500 MB)."""
    root = engine_root()
    with locked("engine-root"):
        if root.exists():
            return root
        partial = root.with_name(root.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.parent.mkdir(parents=True, exist_ok=True)
        _debootstrap(ENGINE_SUITE, partial, _ENGINE_PACKAGES)
        _clean(partial)
        for folder in _MOUNT_POINTS:
            (partial / folder).mkdir(parents=True, exist_ok=True)
        # Refuses at once: the engine must not wait for a registry that is not there.
        (partial / "etc/resolv.conf").write_text("nameserver 127.0.0.1\n")
        partial.rename(root)
    return root


def ensure_base_tar(suite: str = BASE_SUITE) -> Path:
    """``debian:<suite>-slim`` as a tar that an engine can import; made once (about 30 s)."""
    tar = base_tar(suite)
    with locked("base-tar" if suite == BASE_SUITE else f"base-tar-{suite}"):
        if tar.exists():
            return tar
        root = tar.with_suffix(".partial")
        shutil.rmtree(root, ignore_errors=True)
        root.parent.mkdir(parents=True, exist_ok=True)
        _debootstrap(suite, root)
        _clean(root)
        sources = root / "etc/apt/sources.list"
        sources.write_text(_sources(sources.read_text(), suite))
        packed = tar.with_suffix(".tar.partial")
        subprocess.run(["tar", "--numeric-owner", "-C", root, "-cf", packed, "."], check=True)
        shutil.rmtree(root)
        packed.rename(tar)
    return tar


#: Runs in a mount namespace of its own; the engine's root file system stays as it is.
_FETCH_COMPOSE = """
set -e
mount -t tmpfs tmpfs "$1/tmp"
mkdir -p "$1/tmp/lists/partial" "$1/tmp/cache/archives/partial"
mount --bind /etc/resolv.conf "$1/etc/resolv.conf"
chroot "$1" sh -ec '
  cd /tmp
  set -- -q -o Dir::State::lists=/tmp/lists -o Dir::Cache=/tmp/cache -o APT::Sandbox::User=root
  apt-get "$@" update
  apt-get "$@" download docker-compose
  dpkg-deb -x docker-compose_*.deb x
'
cp "$1/tmp/x/usr/libexec/docker/cli-plugins/docker-compose" "$2"
"""


def ensure_compose() -> Path:
    """Debian's docker compose, of the engine's release; fetched once (about 5 s).

    The program is Go's and asks little of the C library: it runs on this machine as it is.
    """
    program = compose_program()
    root = ensure_engine_root()
    with locked("compose"):
        if program.exists():
            return program
        program.parent.mkdir(parents=True, exist_ok=True)
        partial = program.with_suffix(".partial")
        done = subprocess.run(
            [
                *("unshare", "--mount", "--propagation", "private"),
                *("sh", "-c", _FETCH_COMPOSE, "fetch", str(root), str(partial)),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env={**os.environ, **proxies()},
            check=False,
        )
        if done.returncode != 0:
            tail = (done.stdout + done.stderr).splitlines()[-3:]
            raise RuntimeError(f"docker-compose can't be fetched: {' | '.join(tail)}")
        partial.rename(program)
    return program
