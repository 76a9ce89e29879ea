"""Build the image of a profile: one stage for each environment, so that each is cached by itself.

Packages arrive in stages of their own: indexes, proxies, channels and a private CA leave no trace
in the image. What was installed is in a lock inside of each environment; the image's label has the
digest of all of them.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

import docker
import docker.errors
import requests

from .. import ways
from ..engine.faults import translate
from ..errors import ConfigError, ImageMissing
from ..images import Progress, Recipe, ensure, follow_build, present
from . import spec
from .spec import Environment

#: digest of everything that was installed
LOCK_LABEL = "jupyterhub-gpuspawner.lock"
#: the program that solves and installs conda packages: from PyPI, so that no installer is needed
RATTLER = "py-rattler==0.28.0"
_SCRIPT = "install_environment.py"
_BUILD = "/tmp/build"

_HEAD = """\
ARG BASE
FROM ${{BASE}} AS tool
USER root
ARG PIP_INDEX_URL=
ARG PIP_EXTRA_INDEX_URL=
ARG PIP_TRUSTED_HOST=
COPY ca.crt* empty {build}/
RUN ca={build}/ca.crt; [ ! -f $ca ] || export PIP_CERT=$ca; \\
    python -m pip install --quiet --no-cache-dir --disable-pip-version-check \\
    --root-user-action=ignore --target /tmp/tool {rattler}
"""
_STAGE = """\
FROM tool AS env{number}
ARG PIP_INDEX_URL=
ARG PIP_EXTRA_INDEX_URL=
ARG PIP_TRUSTED_HOST=
COPY {copied} {build}/
{channels}RUN ca={build}/ca.crt; [ ! -f $ca ] || export PIP_CERT=$ca SSL_CERT_FILE=$ca; \\
    PYTHONPATH=/tmp/tool python {build}/{script} {build}/env{number}.json {lock}
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is to be built, and how packages reach it."""

    #: name of the image below ``jupyterhub-gpuspawner/``
    name: str
    #: the file of each environment, with what it says
    environments: Sequence[tuple[Path, Environment]]
    #: the image below; it has Python, and belongs on the engine
    base: str
    #: channel -> address, or a folder of this machine
    channels: Mapping[str, str] = field(default_factory=dict)
    #: CUDA of the machines that it will run on; empty = none
    cuda: str = "12.8"
    #: variant of Python; None = as the files say
    python: str | None = None
    #: build arguments for mirrors and proxies, and a private CA
    transport: Mapping[str, str] = field(default_factory=dict)
    ca: Path | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Built:
    """An image that was built."""

    #: names the locks exactly: ``jupyterhub-gpuspawner/pytorch:0123456789ab``
    tag: str
    id: str
    #: ``sha256:…`` of the locks
    lock: str
    #: the lock of each environment, by its name
    locks: Mapping[str, bytes]
    #: seconds; 0.0 = it was there
    seconds: float


def build(client: docker.DockerClient, plan: Plan, progress: Progress) -> Built:
    """Build, label and tag. Raises ``ConfigError``, ``ImageMissing`` or ``EngineError``."""
    if not present(client, plan.base):
        raise ImageMissing(
            f"image {plan.base} is not on the engine; ./quickstart builds it, or name one by --base"
        )
    base_id = str(client.images.get(plan.base).id)
    with tempfile.TemporaryDirectory(prefix="gpus-image-") as folder:
        context = Path(folder)
        write_context(plan, context)
        extra = {"ca.crt": plan.ca} if plan.ca else {}
        recipe = Recipe(
            repository=f"jupyterhub-gpuspawner/{plan.name}-unlabelled",
            context=context,
            arguments={"BASE": plan.base},
            transport=plan.transport,
            extra_files=extra,
            salt=base_id,
        )
        # The CA is how packages arrive: it is not in the digest, but COPY wants it in the context.
        made = ensure(client, recipe, progress, latest=False)
    locks = read_locks(client, made.id, [one.name for _, one in plan.environments])
    lock = digest_of(locks)
    tag = f"jupyterhub-gpuspawner/{plan.name}:{lock[:12]}"
    image_id = _label(client, made.id, tag, lock)
    client.images.get(image_id).tag(f"jupyterhub-gpuspawner/{plan.name}", "latest")
    return Built(tag=tag, id=image_id, lock=f"sha256:{lock}", locks=locks, seconds=made.seconds)


def write_context(plan: Plan, folder: Path) -> None:
    """The files of the build: a Dockerfile, the script, a wish and a lock for each environment."""
    source = resources.files(__package__).joinpath(_SCRIPT).read_text(encoding="utf-8")
    (folder / _SCRIPT).write_text(source, encoding="utf-8")
    # COPY with a pattern wants one file at least
    (folder / "empty").touch()
    local = _local_channels(plan, folder)
    stages, copies = [], []
    for number, (file, environment) in enumerate(plan.environments):
        copied = [f"env{number}.json", _SCRIPT]
        wish = {
            "name": environment.name,
            "digest": environment.digest(),
            "channels": [
                local.get(one) or spec.channel_url(one, plan.channels)
                for one in environment.channels
            ],
            "conda": environment.conda,
            "pip": environment.pip,
            "cuda": plan.cuda,
        }
        text = json.dumps(wish, indent=1)
        (folder / f"env{number}.json").write_text(text, encoding="utf-8")
        lock = spec.read_lock(spec.lock_of(file, plan.python), environment)
        if lock is not None:
            (folder / f"lock{number}.json").write_bytes(lock)
            copied.append(f"lock{number}.json")
        stages.append(
            _STAGE.format(
                number=number,
                build=_BUILD,
                copied=" ".join(copied),
                script=_SCRIPT,
                channels=f"COPY channels {_BUILD}/channels\n" if local else "",
                lock=f"{_BUILD}/lock{number}.json" if lock is not None else "",
            )
        )
        kernel = f"/usr/local/share/jupyter/kernels/{environment.name}"
        copies.append(f"COPY --from=env{number} /opt/envs/ /opt/envs/")
        copies.append(f"COPY --from=env{number} {kernel} {kernel}")
    head = _HEAD.format(build=_BUILD, rattler=RATTLER)
    text = "\n".join([head, *stages, "FROM ${BASE}", *copies, ""])
    (folder / "Dockerfile").write_text(text, encoding="utf-8")


def _local_channels(plan: Plan, folder: Path) -> dict[str, str]:
    """Channels that are folders of this machine go into the build's context."""
    found: dict[str, str] = {}
    used = {name for _, one in plan.environments for name in one.channels}
    for name in sorted(used):
        where = spec.channel_url(name, plan.channels).removeprefix("file://")
        if not where.startswith("/"):
            continue
        if not any(Path(where).glob("*/repodata.json*")):
            raise ConfigError(f"channel {name}: {where} has no SUBDIR/repodata.json")
        number = len(found)
        shutil.copytree(where, folder / "channels" / str(number))
        found[name] = f"file://{_BUILD}/channels/{number}"
    return found


def read_locks(client: docker.DockerClient, image: str, names: Sequence[str]) -> dict[str, bytes]:
    """The locks out of an image, from a container that is created, never started, and removed."""
    try:
        made = client.api.create_container(image, command=["true"], use_config_proxy=False)
    except (docker.errors.DockerException, requests.RequestException, OSError) as error:
        raise translate(error) from error
    try:
        return {
            name: _file(client, str(made["Id"]), f"/opt/envs/{name}/gpus-lock.json")
            for name in names
        }
    finally:
        client.api.remove_container(made["Id"], force=True, v=True)


def _file(client: docker.DockerClient, container: str, path: str) -> bytes:
    chunks, _ = client.api.get_archive(container, path)
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
        member = archive.extractfile(os.path.basename(path))
        assert member is not None
        return member.read()


def digest_of(locks: Mapping[str, bytes]) -> str:
    """SHA-256 (hex) of all locks."""
    digest = hashlib.sha256()
    for name, content in sorted(locks.items()):
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def _label(client: docker.DockerClient, image: str, tag: str, lock: str) -> str:
    """The same image with a label more."""
    dockerfile = f'FROM {image}\nLABEL {LOCK_LABEL}="sha256:{lock}"\n'
    events: Any = client.api.build(
        fileobj=io.BytesIO(dockerfile.encode()), tag=tag, rm=True, forcerm=True, decode=True
    )
    return follow_build(tag, events, lambda _: None)


def transport(
    environ: Mapping[str, str], *, index: str | None, proxy: str | None, ca: str | None
) -> tuple[dict[str, str], Path | None]:
    """How packages reach the build: as this machine does it, but for what the command says."""
    settings = ways.pip_settings()
    found = ways.transport(environ, settings)
    if index:
        found["PIP_INDEX_URL"] = index
    if proxy:
        found.update(dict.fromkeys(("http_proxy", "https_proxy"), proxy))
    if ca and not Path(ca).is_file():
        raise ConfigError(f"--ca {ca}: there is no such file")
    return found, Path(ca) if ca else ways.certificates(environ, settings)


def plan_of(profile: str, *, python: str | None, base: str) -> Plan:
    """The plan for a folder, a file, or a name below ``images``. ConfigError."""
    candidates = [Path(profile), Path("images") / profile]
    path = next((one for one in candidates if one.exists()), None)
    if path is None:
        tried = " and ".join(map(str, candidates))
        raise ConfigError(f"there is no profile {profile!r}: tried {tried}")
    found = spec.folder(path, python=python)
    name = (path.absolute().name if path.is_dir() else found[0][1].name).lower()
    if not spec.NAME.fullmatch(name):
        raise ConfigError(f"{path}: {name!r} can't be the name of an image; rename the folder")
    plan = Plan(name=name, environments=found, base=base, python=python)
    return replace(plan, name=f"{name}-py{python.replace('.', '')}") if python else plan
