"""Build images on an engine: with progress, once, and with a readable error.

A :class:`Recipe` says what an image is made of. Its digest is stored in a label of the image, so a
second run finds the image and skips, and a changed file, argument or base builds again. Mirrors,
proxies and a private CA say only *how* packages arrive: they are not part of the digest.

The engine's own builder is used (``POST /build``): every Docker since 20.10 has it, no plugin is
needed, and the build may use the machine's network, which is where mirrors and proxies answer.
"""

from __future__ import annotations

import hashlib
import json
import queue
import re
import tarfile
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound
from docker.utils import parse_repository_tag
from urllib3.exceptions import HTTPError

from jupyterhub_gpuspawner.errors import EngineError, EngineUnknown, ImageMissing

#: Label with the digest of the recipe that made the image.
RECIPE_LABEL = "jupyterhub-gpuspawner.recipe"
#: How many of the last lines of a failed build are shown.
LAST_LINES = 15
#: Seconds without a word from the engine after which a build counts as stuck. A step that
#: compiles or downloads may be silent for minutes.
SILENCE_LIMIT = 900.0
#: Seconds a registry has for each answer during a pull.
PULL_SILENCE_LIMIT = 20.0

#: Build arguments that every Dockerfile takes without declaring them, and that leave no trace.
PROXY_ARGUMENTS = (
    "http_proxy",
    "https_proxy",
    "ftp_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "FTP_PROXY",
    "NO_PROXY",
)

#: No answer, or one that was cut: a stream shows the last as urllib3's own error.
_SILENT = (DockerException, requests.RequestException, HTTPError)

#: Receives one line for people, without a line feed.
Progress = Callable[[str], None]

#: A step that takes time; ARG, ENV, LABEL and the like only fill the screen.
_STEP = re.compile(r"Step (\d+)/(\d+) : ((?:FROM|RUN|COPY|ADD)\b.*)")
_DECLARED = re.compile(r"^\s*ARG\s+([A-Za-z_][A-Za-z0-9_]*)", re.MULTILINE | re.IGNORECASE)
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
#: Never part of an image, and changes by looking at it.
_LEFT_OUT = {"__pycache__", ".git", ".ipynb_checkpoints"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """What an image is made of."""

    #: Name without tag, such as ``jupyterhub-gpuspawner/base``. Tags: the digest, and ``latest``.
    repository: str
    #: Folder with the Dockerfile; everything in it goes to the engine.
    context: Path
    #: Build arguments that change what the image is.
    arguments: Mapping[str, str] = field(default_factory=dict)
    #: Build arguments that change only how packages arrive (mirrors, proxies).
    transport: Mapping[str, str] = field(default_factory=dict)
    #: More files of the context: name -> a file on this machine. Not read for the digest.
    extra_files: Mapping[str, Path] = field(default_factory=dict)
    #: Stands for what the digest does not read: the base image's id, a version.
    salt: str = ""

    @property
    def dockerfile(self) -> str:
        """The text of the Dockerfile. Raises ``OSError`` where there is none."""
        return (self.context / "Dockerfile").read_text(encoding="utf-8")

    def digest(self) -> str:
        """SHA-256 (hex) of the context (names, modes, contents), the arguments and the salt."""
        digest = hashlib.sha256()
        for path in context_files(self.context):
            name = path.relative_to(self.context).as_posix()
            executable = bool(path.stat().st_mode & 0o100)
            _add(digest, name.encode(), b"x" if executable else b"-", path.read_bytes())
        _add(digest, json.dumps(dict(self.arguments), sort_keys=True).encode(), self.salt.encode())
        return digest.hexdigest()

    @property
    def tag(self) -> str:
        """``repository:<first 12 characters of the digest>``."""
        return f"{self.repository}:{self.digest()[:12]}"

    def build_arguments(self) -> dict[str, str]:
        """The arguments that the Dockerfile declares, and proxies; the engine warns of others."""
        declared = set(_DECLARED.findall(self.dockerfile)) | set(PROXY_ARGUMENTS)
        merged = {**self.transport, **self.arguments}
        return {name: value for name, value in merged.items() if name in declared and value}


@dataclass(frozen=True, kw_only=True, slots=True)
class Image:
    """An image on the engine."""

    #: ``sha256:…``
    id: str
    #: The tag that names exactly this recipe.
    tag: str
    #: Seconds the build took; 0.0 where the image was there already.
    seconds: float


def _add(digest: Any, *parts: bytes) -> None:
    """Feed parts with their lengths, so that no two lists give one stream."""
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)


def context_files(context: Path) -> list[Path]:
    """The files below a build context, in a stable order, without caches."""
    return sorted(
        path
        for path in context.rglob("*")
        if path.is_file() and not _LEFT_OUT & set(path.relative_to(context).parts)
    )


def pack(recipe: Recipe, out: IO[bytes]) -> None:
    """Write the build context as a tar: owner root, the recipe's files, then the extra ones."""
    with tarfile.open(fileobj=out, mode="w") as archive:
        for path in context_files(recipe.context):
            archive.add(path, path.relative_to(recipe.context).as_posix(), filter=as_root)
        for name, path in recipe.extra_files.items():
            archive.add(path, name, filter=as_root)


def as_root(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """A member of an archive without the owner and the mode that it has on this machine."""
    info.uid = info.gid = 0
    info.uname = info.gname = "root"
    info.mode = 0o755 if info.mode & 0o100 else 0o644
    return info


def present(client: docker.DockerClient, name: str, digest: str | None = None) -> bool:
    """Is the image on the engine (and made by the recipe with this digest)?

    Raises
    ------
    EngineUnknown
        The engine did not answer, so nothing is known.
    """
    try:
        image = client.images.get(name)
    except ImageNotFound:
        return False
    except _SILENT as error:
        raise EngineUnknown(f"image {name}: the engine does not answer: {error}") from error
    return digest is None or (image.labels or {}).get(RECIPE_LABEL) == digest


def ensure(
    client: docker.DockerClient, recipe: Recipe, progress: Progress, *, latest: bool = True
) -> Image:
    """The image of a recipe: the one on the engine, or a new build.

    ``latest`` also moves ``repository:latest`` to it.

    Raises
    ------
    EngineError
        The build failed; the text ends with its last lines.
    EngineUnknown
        The engine did not answer.
    """
    digest, seconds = recipe.digest(), 0.0
    if present(client, recipe.tag, digest):
        image_id = str(client.images.get(recipe.tag).id)
    else:
        begun = time.monotonic()
        image_id = build(client, recipe, progress)
        seconds = time.monotonic() - begun
    if latest:
        client.images.get(image_id).tag(recipe.repository, "latest")
    return Image(id=image_id, tag=recipe.tag, seconds=seconds)


def build(client: docker.DockerClient, recipe: Recipe, progress: Progress) -> str:
    """Build a recipe and tag it with its digest; returns the image's id. Errors as ``ensure``."""
    with tempfile.TemporaryFile() as context:
        pack(recipe, context)
        context.seek(0)
        try:
            events = client.api.build(
                fileobj=context,
                custom_context=True,
                tag=recipe.tag,
                labels={RECIPE_LABEL: recipe.digest()},
                buildargs=recipe.build_arguments(),
                network_mode="host",
                rm=True,
                forcerm=True,
                decode=True,
                timeout=SILENCE_LIMIT,
            )
            return follow_build(recipe.repository, events, progress)
        except APIError as error:
            raise EngineError(f"{recipe.repository}: the build was refused: {error}") from error
        except _SILENT as error:
            raise EngineUnknown(f"{recipe.repository}: the engine went silent: {error}") from error


def follow_build(name: str, events: Iterable[Mapping[str, Any]], progress: Progress) -> str:
    """Read a build's event stream; returns the image's id.

    ``progress`` gets one line per Dockerfile step that does work. Raises ``EngineError`` with the
    last lines of the log where the stream carries an error or ends without an image.
    """
    last: deque[str] = deque(maxlen=LAST_LINES)
    image_id = ""
    for event in events:
        for line in _lines(event.get("stream", "")):
            last.append(line)
            step = _STEP.match(line)
            if step:
                progress(f"{name}: step {step[1]} of {step[2]}: {_shortened(step[3])}")
        image_id = str((event.get("aux") or {}).get("ID") or image_id)
        if "error" in event:
            raise EngineError(_failure(name, str(event["error"]), last))
    if not image_id:
        raise EngineError(_failure(name, "the build ended without an image", last))
    return image_id


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in _COLOUR.sub("", text).splitlines() if line.strip()]


def _shortened(text: str, width: int = 70) -> str:
    text = " ".join(text.split())
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _failure(name: str, what: str, last: Iterable[str]) -> str:
    # The engine repeats the whole command of a failed step, with every build argument: a mirror's
    # password may be among them. The log lines say what happened.
    code = re.search(r"returned a non-zero code: (\d+)", what)
    reason = f"a step ended with {code[1]}" if code else _shortened(what, 300)
    text = "\n".join(f"    {line}" for line in last)
    return f"{name}: the image could not be built: {reason}. Last lines:\n{text or '    (none)'}"


def pull(
    client: docker.DockerClient,
    name: str,
    progress: Progress,
    *,
    silence: float = PULL_SILENCE_LIMIT,
) -> None:
    """Pull an image; a registry that stays silent for ``silence`` seconds is given up.

    Raises
    ------
    ImageMissing
        The registry does not answer, does not know the image, or does not hand it out.
    """
    repository, tag = parse_repository_tag(name)
    events: queue.Queue[Mapping[str, Any] | Exception | None] = queue.Queue()

    def read() -> None:
        # In a thread of its own: the SDK sets no time limit on a pull.
        try:
            for event in client.api.pull(repository, tag=tag or "latest", stream=True, decode=True):
                events.put(event)
            events.put(None)
        except _SILENT as error:
            events.put(error)

    threading.Thread(target=read, name=f"pull {name}", daemon=True).start()
    seen = ""
    while True:
        try:
            event = events.get(timeout=silence)
        except queue.Empty:
            text = f"image {name} could not be pulled: no answer for {silence:.0f} s"
            raise ImageMissing(text) from None
        if event is None:
            return
        if isinstance(event, Exception):
            raise ImageMissing(f"image {name} could not be pulled: {_cause(event)}") from event
        if "error" in event:
            raise ImageMissing(f"image {name} could not be pulled: {event['error']}")
        status = str(event.get("status", ""))
        if status and status != seen and not event.get("progressDetail"):
            progress(f"{name}: {status}")
            seen = status


def _cause(error: Exception) -> str:
    if isinstance(error, APIError) and error.explanation:
        return _shortened(str(error.explanation), 300)
    return _shortened(str(error), 300)


def import_tar(
    client: docker.DockerClient, name: str, archive: IO[bytes], *, labels: Mapping[str, str]
) -> str:
    """Make an image from a tar of a root file system; returns its id.

    Raises ``EngineError`` where the engine refuses the archive.
    """
    repository, tag = parse_repository_tag(name)
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    changes = ['CMD ["bash"]', f"ENV PATH={path}"]
    changes += [f"LABEL {json.dumps(key)}={json.dumps(value)}" for key, value in labels.items()]
    try:
        answer = client.api.import_image_from_data(
            archive, repository=repository, tag=tag or "latest", changes=changes
        )
        for line in filter(None, str(answer).splitlines()):
            event = json.loads(line)
            if "error" in event:
                raise EngineError(f"image {name} could not be imported: {event['error']}")
        return str(client.images.get(name).id)
    except _SILENT as error:
        raise EngineError(f"image {name} could not be imported: {_cause(error)}") from error
