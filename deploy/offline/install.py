#!/usr/bin/env python3
"""Install what is in this folder, without any network: `./install --help`.

Only Python's standard library is used. First everything is checked, then it is put into a folder of
its own, and only when all of it is there does PREFIX/current point to it.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

MANIFEST, CHECKSUM = "MANIFEST.json", "MANIFEST.json.sha256"
FORMAT = 1
PROXY = "configurable-http-proxy"
_DEFAULT_SOCKET = "/var/run/docker.sock"
#: seconds for a program, and for the engine between two words
LIMIT, ENGINE_LIMIT = 600.0, 600.0
_CHUNK = 1 << 20
#: what of a bundle becomes no smaller on the disk
_PLAIN = ("npm/", "site/")


class InstallError(Exception):
    """Nothing was installed; the text says why, in one line."""


def sha256(path: Path) -> str:
    """Of a file's content, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


# -- what is in the bundle -----------------------------------------------------------------------


def read_manifest(bundle: Path) -> dict[str, Any]:
    """The list of what is in the bundle. InstallError where it is not whole."""
    try:
        text = (bundle / MANIFEST).read_bytes()
        wanted = (bundle / CHECKSUM).read_text().split()
    except (OSError, UnicodeDecodeError) as error:
        raise InstallError(f"{bundle} is no whole bundle: {error}") from None
    if wanted[:1] != [hashlib.sha256(text).hexdigest()]:
        raise InstallError(
            f"{bundle / MANIFEST} is damaged: its checksum is another; copy it again"
        )
    facts: dict[str, Any] = json.loads(text)
    if facts["format"] != FORMAT:
        raise InstallError(
            f"the bundle has format {facts['format']}, this program knows {FORMAT}: "
            "use the `install` that is in it"
        )
    return facts


def check_files(bundle: Path, facts: dict[str, Any]) -> None:
    """InstallError where a file is missing or damaged; it names the first and says how many."""
    wrong = []
    for name, wanted in facts["files"].items():
        path = bundle / name
        if not path.is_file():
            wrong.append(f"{name} is missing")
        elif path.stat().st_size != wanted["size"]:
            wrong.append(f"{name} has {path.stat().st_size} bytes, not {wanted['size']}")
        elif sha256(path) != wanted["sha256"]:
            wrong.append(f"{name} is damaged: its checksum is another")
    if wrong:
        more = f" (and {len(wrong) - 1} more files)" if len(wrong) > 1 else ""
        raise InstallError(f"the bundle is not whole: {wrong[0]}{more}; copy it again")


def check_machine(facts: dict[str, Any], *, with_engine: bool) -> None:
    """InstallError where this machine is not like the one that the bundle was made for."""
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if (python, sysconfig.get_platform()) != (facts["python"], facts["platform"]):
        raise InstallError(
            f"the bundle is for Python {facts['python']} on {facts['platform']}, this is Python "
            f"{python} on {sysconfig.get_platform()}: run `install` with that Python, or make "
            "another bundle"
        )
    try:
        import ensurepip
        import venv
    except ImportError:
        raise InstallError("this Python can't make a virtual environment: python3-venv") from None
    del ensurepip, venv
    if facts["npm"] and shutil.which("node") is None:
        raise InstallError(f"node is missing, which runs {PROXY}: install nodejs, 20 or later")
    if with_engine:
        Engine().call("GET", "/_ping")


def check_room(bundle: Path, prefix: Path, facts: dict[str, Any]) -> None:
    """InstallError where the disk can't hold what is in the bundle; how much more is not known.

    Before anything is written: of a program that ends for want of room not each says so.
    """
    wanted = sum(one["size"] for name, one in facts["files"].items() if name.startswith(_PLAIN))
    for wheel in (bundle / "wheels").glob("*.whl"):
        try:
            with zipfile.ZipFile(wheel) as archive:
                wanted += sum(member.file_size for member in archive.infolist())
        except zipfile.BadZipFile as error:
            raise InstallError(f"{wheel} is no package of Python: {error}") from None
    place = next(path for path in (prefix, *prefix.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    if free < wanted:
        raise InstallError(
            f"{prefix}: No space left on device: {wanted / 1e6:.1f} MB are needed at least, and "
            f"{free / 1e6:.1f} MB are free; make room, or name another --prefix"
        )


# -- the engine ----------------------------------------------------------------------------------


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("engine", timeout=ENGINE_LIMIT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(ENGINE_LIMIT)
        self.sock.connect(self._path)


class Engine:
    """The Docker engine of this machine, as far as images go."""

    def __init__(self) -> None:
        host = os.environ.get("DOCKER_HOST") or f"unix://{_DEFAULT_SOCKET}"
        if not host.startswith("unix://"):
            raise InstallError(f"DOCKER_HOST is {host!r}; want unix:// and a path")
        self._path = host.removeprefix("unix://")

    def call(self, method: str, path: str, body: BinaryIO | None = None) -> tuple[int, bytes]:
        """One call; status and answer. InstallError where the engine does not answer."""
        connection = _Connection(self._path)
        headers = {} if body is None else {"Content-Type": "application/x-tar"}
        try:
            connection.request(method, path, body=body, headers=headers, encode_chunked=False)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise InstallError(
                f"Docker does not answer at {self._path}: {error}; start it, set DOCKER_HOST, "
                "or say --no-images"
            ) from None
        finally:
            connection.close()

    def image_id(self, name: str) -> str:
        """The id of an image; empty = it is not there."""
        status, answer = self.call("GET", f"/images/{name}/json")
        return str(json.loads(answer)["Id"]) if status == 200 else ""

    def load(self, archive: Path) -> None:
        """``docker load``. InstallError with the engine's own words."""
        with archive.open("rb") as file:
            status, answer = self.call("POST", "/images/load?quiet=1", file)
        lines = [json.loads(line) for line in answer.splitlines() if line.startswith(b"{")]
        errors = [line["error"] for line in lines if "error" in line]
        if status != 200 or errors:
            words = errors[0] if errors else answer.decode(errors="replace")[:300]
            raise InstallError(f"the engine refused {archive.name}: {words.strip()}")

    def tag(self, image: str, name: str) -> None:
        """Have ``name`` mean ``image`` (an id)."""
        repository, _, tag = name.rpartition(":")
        self.call("POST", f"/images/{image}/tag?repo={repository}&tag={tag}")

    def forget(self, name: str) -> None:
        """Remove a name, and the image where nothing else needs it."""
        self.call("DELETE", f"/images/{name}")


def load_images(bundle: Path, facts: dict[str, Any], engine: Engine) -> None:
    """All images or none: after a failure the engine's names are what they were."""
    before = {one["name"]: engine.image_id(one["name"]) for one in facts["images"]}
    try:
        for one in facts["images"]:
            if before[one["name"]] != one["id"]:
                say(f"image {one['name']}")
                engine.load(bundle / one["file"])
                found = engine.image_id(one["name"])
                if found != one["id"]:
                    raise InstallError(
                        f"image {one['name']} is {found or 'not there'} after its load"
                    )
    except BaseException:
        for name, image in before.items():
            if engine.image_id(name) != image:
                if image:
                    engine.tag(image, name)
                else:
                    engine.forget(name)
        raise


# -- Python and node -----------------------------------------------------------------------------


def make_environment(bundle: Path, release: Path) -> None:
    """A virtual environment with exactly the wheels of the bundle."""
    say("Python packages")
    venv = release / "venv"
    _run([sys.executable, "-m", "venv", str(venv)])
    python = str(venv / "bin" / "python")
    wheels = sorted(str(path) for path in (bundle / "wheels").glob("*.whl"))
    # --isolated: no index and no folder of this machine's settings
    pip = [python, "-m", "pip", "--isolated", "--disable-pip-version-check"]
    _run([*pip, "install", "--quiet", "--no-index", "--no-deps", *wheels])
    _run([*pip, "check"])


def make_proxy(bundle: Path, release: Path, packages: Sequence[dict[str, str]]) -> None:
    """``node_modules`` with the packages at the places that they had, and the proxy's command."""
    if not packages:
        return
    say("the proxy")
    top = release / "node_modules"
    for package in packages:
        target = top / package["place"]
        with tarfile.open(bundle / package["file"]) as archive:
            for member in archive:
                inner = PurePosixPath(member.name)
                if not member.isfile() or ".." in inner.parts or inner.parts[:1] != ("package",):
                    raise InstallError(f"{package['file']}: {member.name} has no place there")
                path = target.joinpath(*inner.parts[1:])
                path.parent.mkdir(parents=True, exist_ok=True)
                file = archive.extractfile(member)
                assert file is not None
                with path.open("wb") as out:
                    shutil.copyfileobj(file, out)
                path.chmod(0o755 if member.mode & 0o100 else 0o644)
    # beside jupyterhub, which looks for it in PATH
    command = release / "venv" / "bin" / PROXY
    command.symlink_to(f"../../node_modules/{PROXY}/bin/{PROXY}")
    _run([str(command), "--version"])


def _run(command: Sequence[str]) -> None:
    environment = {name: value for name, value in os.environ.items() if not _leads_astray(name)}
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InstallError(f"{Path(command[0]).name} failed: {error}") from None
    if done.returncode != 0:
        last = " | ".join(done.stdout.strip().splitlines()[-3:])
        raise InstallError(f"{' '.join(command[:4])} … failed: {last or done.returncode}")


def _leads_astray(name: str) -> bool:
    return name.startswith(("PIP_", "PYTHON", "NODE_", "NPM_", "npm_"))


# -- all of it -----------------------------------------------------------------------------------


def install(bundle: Path, prefix: Path, *, images: bool) -> Path:
    """Install; the folder of the release. InstallError, and then nothing of it is left."""
    facts = read_manifest(bundle)
    say("checking the bundle")
    check_files(bundle, facts)
    with_engine = images and bool(facts["images"])
    check_machine(facts, with_engine=with_engine)
    digest = sha256(bundle / MANIFEST)
    release = prefix / "releases" / f"{facts['version']}-{digest[:12]}"
    try:
        if _current(prefix) != release:
            check_room(bundle, prefix, facts)
            _make_release(bundle, release, facts)
        if with_engine:
            load_images(bundle, facts, Engine())
        _point(prefix, release)
    except BaseException as error:
        if _current(prefix) != release:
            shutil.rmtree(release, ignore_errors=True)
            _remove_empty(prefix)
        if isinstance(error, OSError):
            raise InstallError(f"{error.filename or prefix}: {error.strerror or error}") from None
        raise
    return release


def _make_release(bundle: Path, release: Path, facts: dict[str, Any]) -> None:
    # what a killed run left
    shutil.rmtree(release, ignore_errors=True)
    release.mkdir(parents=True)
    make_environment(bundle, release)
    make_proxy(bundle, release, facts["npm"])
    shutil.copytree(bundle / "site", release / "site")


def _current(prefix: Path) -> Path | None:
    link = prefix / "current"
    return prefix / os.readlink(link) if link.is_symlink() else None


def _point(prefix: Path, release: Path) -> None:
    """Have ``current`` mean the release, in one step."""
    draft = prefix / f".current.{os.getpid()}"
    draft.symlink_to(release.relative_to(prefix))
    os.replace(draft, prefix / "current")


def _remove_empty(prefix: Path) -> None:
    for folder in (prefix / "releases", prefix):
        try:
            folder.rmdir()
        except OSError:
            return


def say(text: str) -> None:
    """One line of progress."""
    print(f"==> {text}", file=sys.stderr, flush=True)


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(
        prog="install", description="Install this bundle, without any network."
    )
    parser.add_argument(
        "--prefix",
        default="/opt/jupyterhub-gpuspawner",
        help="where it goes (default: %(default)s)",
    )
    parser.add_argument("--no-images", action="store_true", help="load no images into Docker")
    parser.add_argument(
        "--check", action="store_true", help="only look whether the bundle is whole"
    )
    arguments = parser.parse_args()
    bundle = Path(__file__).resolve().parent
    try:
        if arguments.check:
            check_files(bundle, read_manifest(bundle))
            say("the bundle is whole")
            return 0
        prefix = Path(arguments.prefix).absolute()
        release = install(bundle, prefix, images=not arguments.no_images)
    except InstallError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted; nothing was installed", file=sys.stderr)
        return 130
    say(f"installed: {release}, which is {prefix / 'current'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
