"""What an image's own settings say about a start, seen from outside. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from ..units import format_memory
from .finding import Finding, Level
from .image_facts import ImageFacts

#: bytes above which a node that has not the image yet takes minutes to fetch it
LARGE = 8 * 1024**3
#: overlay file systems look a file up layer by layer
MANY_LAYERS = 60
_SECRET = re.compile(r"PASSWORD|PASSWD|SECRET|TOKEN|API_?KEY|PRIVATE_KEY", re.IGNORECASE)
_SIGNED_PROXY = re.compile(r"://[^/@\s]+:[^/@\s]+@")
#: minimal programs that reap what others leave behind
_INITS = ("tini", "dumb-init", "catatonit", "s6-svscan", "docker-init", "/init", "/sbin/init")

_E, _W = Level.ERROR, Level.WARNING


def found(check: str, level: Level, what: str, why: str, fix: str) -> Finding:
    """A finding about an image."""
    return Finding(check=f"image.{check}", level=level, what=what, why=why, fix=fix)


def architecture(facts: ImageFacts) -> Iterator[Finding]:
    """It is made for this kind of machine."""
    have, want = facts.inspect.get("Architecture"), facts.engine_architecture
    if have and want and have != want:
        yield found(
            "architecture",
            _E,
            f"it is for {have}, the engine is {want}",
            "Its programs can't run: every start ends with 'exec format error'.",
            f"docker build --platform linux/{want} …, or docker pull --platform linux/{want} …",
        )


def user(facts: ImageFacts) -> Iterator[Finding]:
    """It does not run as root."""
    name = str(facts.config.get("User") or "").partition(":")[0]
    if name in ("", "0", "root"):
        yield found(
            "root-user",
            _E,
            "it runs as root",
            "Notebooks run as root of the container, and files on shared volumes belong to root.",
            "USER 1000 as the last USER line of its Dockerfile",
        )


def gpu_variables(facts: ImageFacts) -> Iterator[Finding]:
    """It asks for no GPU by itself."""
    values = facts.environment
    wanted = values.get("NVIDIA_VISIBLE_DEVICES", "")
    if wanted not in ("", "void", "none"):
        yield found(
            "nvidia-visible-devices",
            _W,
            f"NVIDIA_VISIBLE_DEVICES={wanted} is in its environment",
            "Started by hand, or by another spawner, on NVIDIA's runtime it gets GPUs that "
            "somebody else has leased. This spawner sets void over it.",
            "ENV NVIDIA_VISIBLE_DEVICES=void in its Dockerfile",
        )
    if "CUDA_VISIBLE_DEVICES" in values:
        yield found(
            "cuda-visible-devices",
            _W,
            "CUDA_VISIBLE_DEVICES is in its environment",
            "Programs may see other GPUs than those that the server was given, or none.",
            "leave CUDA_VISIBLE_DEVICES out of its Dockerfile",
        )


def secret_variables(facts: ImageFacts) -> Iterator[Finding]:
    """No password is in its environment."""
    names = [n for n, v in facts.environment.items() if v and _SECRET.search(n)]
    names += [n for n, v in facts.environment.items() if _SIGNED_PROXY.search(v)]
    if names:
        yield found(
            "secret-in-environment",
            _E,
            f"these variables look like secrets: {', '.join(sorted(set(names)))}",
            "Everybody who may start a server, or pull the image, can read them.",
            "leave them out of ENV; give them to a build with RUN --mount=type=secret",
        )


def hub_variables(facts: ImageFacts) -> Iterator[Finding]:
    """No proxy is in its environment that would stand between server and Hub."""
    values = {name.lower(): value for name, value in facts.environment.items()}
    if (values.get("http_proxy") or values.get("https_proxy")) and not values.get("no_proxy"):
        yield found(
            "proxy-without-exceptions",
            _E,
            "it sets http_proxy or https_proxy without no_proxy",
            "The server asks the proxy for the Hub's address, and its start fails or hangs.",
            "give proxies as build arguments only, or ENV no_proxy=localhost,127.0.0.1,HUB-ADDRESS",
        )


def health(facts: ImageFacts) -> Iterator[Finding]:
    """It has a health check."""
    test = (facts.config.get("Healthcheck") or {}).get("Test") or []
    if not test or test[0] == "NONE":
        yield found(
            "no-health-check",
            _W,
            "it has no health check",
            "docker ps does not show a server that hangs.",
            "HEALTHCHECK CMD … in its Dockerfile, as images/singleuser/Dockerfile has it",
        )


def first_process(facts: ImageFacts) -> Iterator[Finding]:
    """Its first process hands signals on and reaps."""
    line = facts.config.get("Entrypoint") or facts.config.get("Cmd") or []
    words = " ".join(map(str, line[:2]))
    if not any(part in words for part in _INITS):
        yield found(
            "no-init",
            _W,
            f"its first process is {words[:60] or 'not set'}, and no init such as tini",
            "What notebooks leave behind becomes zombies and counts for the limit of processes; "
            "a stop may have to wait for its time limit.",
            'ENTRYPOINT ["tini", "-g", "--", …], or '
            'c.GPUDockerSpawner.extra_host_config = {"init": True}',
        )


def declared_volumes(facts: ImageFacts) -> Iterator[Finding]:
    """It declares no volumes: each start would make new ones."""
    names = sorted(facts.config.get("Volumes") or {})
    if names:
        yield found(
            "declared-volumes",
            _W,
            f"it declares volumes: {', '.join(names)}",
            "Each start makes a new nameless volume for each; what users write there is lost.",
            "leave VOLUME out of its Dockerfile",
        )


def size(facts: ImageFacts) -> Iterator[Finding]:
    """It is of bearable size."""
    total = int(facts.inspect.get("Size") or 0)
    if total > LARGE:
        yield found(
            "large",
            _W,
            f"it has {format_memory(total)}",
            "A machine that has not got it yet makes the first user wait for minutes.",
            "remove what nobody uses, one CUDA only; pull it on each machine before users come",
        )
    if facts.layers > MANY_LAYERS:
        yield found(
            "many-layers",
            _W,
            f"it has {facts.layers} layers with files",
            "Each look for a file goes through them, and Docker allows 127 at most.",
            "join RUN lines, and build FROM a smaller base",
        )


OUTSIDE: tuple[Callable[[ImageFacts], Iterator[Finding]], ...] = (
    architecture, user, gpu_variables, secret_variables, hub_variables, health, first_process,
    declared_volumes, size,
)  # fmt: skip
