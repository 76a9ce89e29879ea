"""What slows or endangers a server's start, judged from the facts of an image. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..units import format_memory
from .finding import Finding, Level, Unknown, ordered, unseen
from .image_facts import ImageFacts

#: bytes above which a node that has not the image yet takes minutes to fetch it
LARGE = 8 * 1024**3
#: bytes in the image's home: every new home gets a copy
LARGE_HOME = 100 * 1024**2
#: bytes that nobody needs
LARGE_REST = 50 * 1024**2
#: overlay file systems look a file up layer by layer
MANY_LAYERS = 60
#: CPU seconds that one package may take of every start
SLOW_PACKAGE = 0.3
#: and one server extension, with all that it imports
SLOW_EXTENSION = 0.4
#: and the whole start until the server's own code runs
SLOW_START = 2.5
#: part of the modules that may be without .pyc: some packages ship files that can't be compiled
PYC_MISSING = 0.02
#: parts of the server itself: nobody can leave them out, and SLOW_START speaks of them
_SERVER = {
    "jupyterlab", "jupyterhub", "jupyter_server", "jupyter_client", "tornado", "traitlets",
    "asyncio", "IPython", "ipykernel", "zmq", "nbconvert", "site", "encodings", "jupyter_core",
}  # fmt: skip
_SECRET = re.compile(r"PASSWORD|PASSWD|SECRET|TOKEN|API_?KEY|PRIVATE_KEY", re.IGNORECASE)
_SIGNED_PROXY = re.compile(r"://[^/@\s]+:[^/@\s]+@")
#: minimal programs that reap what others leave behind
_INITS = ("tini", "dumb-init", "catatonit", "s6-svscan", "docker-init", "/init", "/sbin/init")

Inside = Mapping[str, Any]
_E, _W = Level.ERROR, Level.WARNING


def _found(check: str, level: Level, what: str, why: str, fix: str) -> Finding:
    return Finding(check=f"image.{check}", level=level, what=what, why=why, fix=fix)


# -- from outside: the image's own settings -----------------------------------------------------


def architecture(facts: ImageFacts) -> Iterator[Finding]:
    """It is made for this kind of machine."""
    have, want = facts.inspect.get("Architecture"), facts.engine_architecture
    if have and want and have != want:
        yield _found(
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
        yield _found(
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
        yield _found(
            "nvidia-visible-devices",
            _W,
            f"NVIDIA_VISIBLE_DEVICES={wanted} is in its environment",
            "Started by hand, or by another spawner, on NVIDIA's runtime it gets GPUs that "
            "somebody else has leased. This spawner sets void over it.",
            "ENV NVIDIA_VISIBLE_DEVICES=void in its Dockerfile",
        )
    if "CUDA_VISIBLE_DEVICES" in values:
        yield _found(
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
        yield _found(
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
        yield _found(
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
        yield _found(
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
        yield _found(
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
        yield _found(
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
        yield _found(
            "large",
            _W,
            f"it has {format_memory(total)}",
            "A machine that has not got it yet makes the first user wait for minutes.",
            "remove what nobody uses, one CUDA only; pull it on each machine before users come",
        )
    if facts.layers > MANY_LAYERS:
        yield _found(
            "many-layers",
            _W,
            f"it has {facts.layers} layers with files",
            "Each look for a file goes through them, and Docker allows 127 at most.",
            "join RUN lines, and build FROM a smaller base",
        )


# -- from inside -------------------------------------------------------------------------------


def home(facts: ImageFacts, inside: Inside) -> Iterator[Finding]:
    """A home can be mounted and written, and takes little with it."""
    if not inside["home_exists"]:
        yield _found(
            "no-home",
            _E,
            f"it has no folder {facts.home_path}, where homes are mounted",
            "Docker makes it for root: users can't write into their homes.",
            f"RUN install -d -o 1000 -g 100 {facts.home_path}, or c.GPUDockerSpawner.home_path",
        )
    elif not inside["home_writable"] and inside["uid"] != 0:
        yield _found(
            "home-not-writable",
            _E,
            f"its user (uid {inside['uid']}) can't write to {inside['home']}",
            "A new home volume takes the owner of that folder: nothing can be saved.",
            f"RUN chown -R {inside['uid']} {inside['home']} as root in its Dockerfile",
        )
    if inside["home_bytes"] > LARGE_HOME:
        yield _found(
            "large-home",
            _W,
            f"{format_memory(inside['home_bytes'])} lie in {facts.home_path}",
            "Docker copies them into every new home: the first start waits for it, and it takes "
            "the room once for each user.",
            "put data and environments elsewhere, such as /opt, or on a shared volume",
        )


def versions(facts: ImageFacts, inside: Inside) -> Iterator[Finding]:
    """What a server needs is there, in the Hub's version."""
    have = inside["versions"]
    if not inside["launcher"]:
        yield _found(
            "no-launcher",
            _E,
            "jupyterhub-singleuser is not on its PATH",
            "No server can start.",
            f"pip install jupyterhub=={facts.hub} jupyterlab in its Dockerfile",
        )
    elif have["jupyterhub"] and _minor(have["jupyterhub"]) != _minor(facts.hub):
        other = have["jupyterhub"].split(".")[0] != facts.hub.split(".")[0]
        yield _found(
            "jupyterhub-version",
            _E if other else _W,
            f"it has JupyterHub {have['jupyterhub']}, the Hub is {facts.hub}",
            "Login to servers and reports of activity break between versions."
            if other
            else "Only the same version is tested; each start logs a warning.",
            f"pip install jupyterhub=={facts.hub} in its Dockerfile",
        )
    if inside["launcher"] and not (have["jupyterlab"] or have["notebook"]):
        yield _found(
            "no-frontend",
            _W,
            "neither jupyterlab nor notebook is installed",
            "Users get a server without pages.",
            "pip install jupyterlab in its Dockerfile",
        )


def _minor(version: str) -> tuple[str, ...]:
    return tuple(version.split(".")[:2])


def kernels(facts: ImageFacts, inside: Inside) -> Iterator[Finding]:
    """There is a kernel, and each one's program exists."""
    start = inside["start"]
    if "kernels" in start and inside["launcher"] and not start["kernels"] and not start["failed"]:
        yield _found(
            "no-kernel",
            _E,
            "it has no kernel",
            "Users can open notebooks and run nothing.",
            "pip install ipykernel in its Dockerfile",
        )


def compiled(facts: ImageFacts, inside: Inside) -> Iterator[Finding]:
    """The modules are compiled."""
    state = inside["compiled"]
    late = state["missing"] + state["stale"]
    if late > max(20, PYC_MISSING * state["modules"]):
        where = f"; most in {', '.join(state['most'])}" if state["most"] else ""
        old = f", {state['stale']} of them an old one" if state["stale"] else ""
        yield _found(
            "no-pyc",
            _W,
            f"{late} of {state['modules']} modules have no usable .pyc{old}{where}",
            "Every start compiles them again, and takes about twice as long.",
            f"RUN {inside['prefix']}/bin/python -m compileall -q {inside['prefix']}/lib, "
            "as the last step that changes packages",
        )


def grammar(facts: ImageFacts, inside: Inside) -> Iterator[Finding]:
    """jsonschema's check of addresses, which nothing in Jupyter uses, is not there."""
    if inside["rfc3987"]:
        yield _found(
            "rfc3987-syntax",
            _W,
            "the package rfc3987_syntax is installed",
            "It compiles a grammar when it is imported: about 2 s of every start, for a check "
            "that nothing in Jupyter uses (jupyter_server#1559).",
            "RUN pip uninstall -y rfc3987-syntax in its Dockerfile",
        )


def start(facts: ImageFacts, inside: Inside) -> Iterator[Finding]:
    """The server's own code loads, and quickly."""
    found = inside["start"]
    if found["failed"] and inside["launcher"]:
        yield _found(
            "launcher-fails",
            _E,
            f"jupyterhub-singleuser does not load: {found['failed']}",
            "No server can start.",
            "pip check in the image, and install what is missing or of a wrong version",
        )
    if found.get("total", 0.0) > SLOW_START:
        yield _found(
            "slow-start",
            _W,
            f"a start takes {found['total']:.1f} CPU seconds before the server's own code runs",
            "Each start takes so long, and many at once take it from each other.",
            "build it FROM jupyterhub-gpuspawner/singleuser, and see the other findings",
        )
    for name, seconds in found.get("packages", {}).items():
        if seconds >= SLOW_PACKAGE and name not in _SERVER and name != "rfc3987_syntax":
            yield _found(
                "slow-import",
                _W,
                f"the package {name} takes {seconds:.1f} CPU seconds of each start",
                "Something imports it when the server starts, whether it is used or not.",
                f"pip uninstall {name}, or switch off the extension that imports it: "
                "jupyter server extension list",
            )


def extensions(facts: ImageFacts, inside: Inside) -> Iterator[Finding]:
    """The server extensions load, and quickly."""
    for name, about in inside["start"].get("extensions", {}).items():
        if about["error"]:
            yield _found(
                "broken-extension",
                _W,
                f"the server extension {name} does not load: {about['error']}",
                "It is missing for users, and each start logs a traceback.",
                f"jupyter server extension disable --sys-prefix {name}, or install what it needs",
            )
        elif about["seconds"] >= SLOW_EXTENSION and name != "jupyterlab":
            yield _found(
                "heavy-extension",
                _W,
                f"the server extension {name} takes {about['seconds']:.1f} CPU seconds to load",
                "Each start waits for it, whether it is used or not.",
                f"jupyter server extension disable --sys-prefix {name}, if few need it",
            )


def rest(facts: ImageFacts, inside: Inside) -> Iterator[Finding]:
    """No caches are left in it."""
    left = {path: size for path, size in inside["bytes_left"].items() if size > LARGE_REST}
    if left:
        shown = ", ".join(f"{path} {format_memory(size)}" for path, size in left.items())
        yield _found(
            "caches",
            _W,
            f"caches are left in it: {shown}",
            "They are pulled to each machine and used by nobody.",
            "remove them in the same RUN line: pip install --no-cache-dir, conda clean --all "
            "--yes, rm -rf /var/lib/apt/lists/*",
        )


def driver(facts: ImageFacts, inside: Inside) -> Iterator[Finding]:
    """NVIDIA's driver is not in it: the engine brings the machine's."""
    if inside["driver_libraries"]:
        yield _found(
            "driver-inside",
            _E,
            f"it has libraries of NVIDIA's driver: {', '.join(inside['driver_libraries'])}",
            "They must be of the machine's own version. Another one gives 'Driver/library version "
            "mismatch', and no program sees a GPU.",
            "install CUDA without the driver: cuda-toolkit, not cuda or nvidia-driver",
        )


def rights(facts: ImageFacts, inside: Inside) -> Iterator[Finding]:
    """Nobody's keys are in it, and nothing relies on becoming root."""
    if inside["secrets"]:
        yield _found(
            "secret-files",
            _E,
            f"keys lie in it: {', '.join(inside['secrets'])}",
            "Every user gets them, in every new home.",
            "remove them in the same RUN line, give them as build secrets, and revoke them",
        )
    if inside["sudo"]:
        yield _found(
            "sudo",
            _W,
            f"it has {inside['sudo']}",
            "Servers can't gain rights (no-new-privileges), so that it only confuses.",
            "leave sudo out",
        )


def channels(facts: ImageFacts, inside: Inside) -> Iterator[Finding]:
    """conda does not use the channel that asks for terms."""
    text = inside["condarc"]
    if re.search(r"^\s*-\s*defaults\s*$", text, re.MULTILINE) and "nodefaults" not in text:
        yield _found(
            "conda-defaults",
            _W,
            "its conda uses the channel defaults",
            "It asks for terms, and is paid for in organisations of more than 200 people.",
            "conda config --system --add channels conda-forge --add channels nodefaults",
        )


OUTSIDE: tuple[Callable[[ImageFacts], Iterator[Finding]], ...] = (
    architecture, user, gpu_variables, secret_variables, hub_variables, health, first_process,
    declared_volumes, size,
)  # fmt: skip
INSIDE: tuple[Callable[[ImageFacts, Inside], Iterator[Finding]], ...] = (
    home, versions, kernels, compiled, grammar, start, extensions, rest, driver, rights, channels,
)  # fmt: skip


def judge(facts: ImageFacts) -> list[Finding]:
    """Everything that is to be said about an image, the worst first."""
    found = [one for check in OUTSIDE for one in check(facts)]
    if isinstance(facts.inside, Unknown):
        found.append(
            unseen("image.inside", facts.inside.why, f"docker run --rm -it {facts.name} sh")
        )
    else:
        found += [one for check in INSIDE for one in check(facts, facts.inside)]
    return ordered(found)
