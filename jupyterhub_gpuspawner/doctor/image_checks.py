"""What slows or endangers a server's start, judged from the facts of an image. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..units import format_memory
from .finding import Finding, Level, Unknown, ordered, unseen
from .image_facts import ImageFacts
from .image_outside import OUTSIDE, found

#: bytes in the image's home: every new home gets a copy
LARGE_HOME = 100 * 1024**2
#: bytes that nobody needs
LARGE_REST = 50 * 1024**2
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
Inside = Mapping[str, Any]
_E, _W = Level.ERROR, Level.WARNING


def home(facts: ImageFacts, inside: Inside) -> Iterator[Finding]:
    """A home can be mounted and written, and takes little with it."""
    if not inside["home_exists"]:
        yield found(
            "no-home",
            _E,
            f"it has no folder {facts.home_path}, where homes are mounted",
            "Docker makes it for root: users can't write into their homes.",
            f"RUN install -d -o 1000 -g 100 {facts.home_path}, or c.GPUDockerSpawner.home_path",
        )
    elif not inside["home_writable"] and inside["uid"] != 0:
        yield found(
            "home-not-writable",
            _E,
            f"its user (uid {inside['uid']}) can't write to {inside['home']}",
            "A new home volume takes the owner of that folder: nothing can be saved.",
            f"RUN chown -R {inside['uid']} {inside['home']} as root in its Dockerfile",
        )
    if inside["home_bytes"] > LARGE_HOME:
        yield found(
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
        yield found(
            "no-launcher",
            _E,
            "jupyterhub-singleuser is not on its PATH",
            "No server can start.",
            f"pip install jupyterhub=={facts.hub} jupyterlab in its Dockerfile",
        )
    elif have["jupyterhub"] and _minor(have["jupyterhub"]) != _minor(facts.hub):
        other = have["jupyterhub"].split(".")[0] != facts.hub.split(".")[0]
        yield found(
            "jupyterhub-version",
            _E if other else _W,
            f"it has JupyterHub {have['jupyterhub']}, the Hub is {facts.hub}",
            "Login to servers and reports of activity break between versions."
            if other
            else "Only the same version is tested; each start logs a warning.",
            f"pip install jupyterhub=={facts.hub} in its Dockerfile",
        )
    if inside["launcher"] and not (have["jupyterlab"] or have["notebook"]):
        yield found(
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
        yield found(
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
        yield found(
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
        yield found(
            "rfc3987-syntax",
            _W,
            "the package rfc3987_syntax is installed",
            "It compiles a grammar when it is imported: about 2 s of every start, for a check "
            "that nothing in Jupyter uses (jupyter_server#1559).",
            "RUN pip uninstall -y rfc3987-syntax in its Dockerfile",
        )


def start(facts: ImageFacts, inside: Inside) -> Iterator[Finding]:
    """The server's own code loads, and quickly."""
    began = inside["start"]
    if began["failed"] and inside["launcher"]:
        yield found(
            "launcher-fails",
            _E,
            f"jupyterhub-singleuser does not load: {began['failed']}",
            "No server can start.",
            "pip check in the image, and install what is missing or of a wrong version",
        )
    if began.get("total", 0.0) > SLOW_START:
        yield found(
            "slow-start",
            _W,
            f"a start takes {began['total']:.1f} CPU seconds before the server's own code runs",
            "Each start takes so long, and many at once take it from each other.",
            "build it FROM jupyterhub-gpuspawner/singleuser, and see the other findings",
        )
    for name, seconds in began.get("packages", {}).items():
        if seconds >= SLOW_PACKAGE and name not in _SERVER and name != "rfc3987_syntax":
            yield found(
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
            yield found(
                "broken-extension",
                _W,
                f"the server extension {name} does not load: {about['error']}",
                "It is missing for users, and each start logs a traceback.",
                f"jupyter server extension disable --sys-prefix {name}, or install what it needs",
            )
        elif about["seconds"] >= SLOW_EXTENSION and name != "jupyterlab":
            yield found(
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
        yield found(
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
        yield found(
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
        yield found(
            "secret-files",
            _E,
            f"keys lie in it: {', '.join(inside['secrets'])}",
            "Every user gets them, in every new home.",
            "remove them in the same RUN line, give them as build secrets, and revoke them",
        )
    if inside["sudo"]:
        yield found(
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
        yield found(
            "conda-defaults",
            _W,
            "its conda uses the channel defaults",
            "It asks for terms, and is paid for in organisations of more than 200 people.",
            "conda config --system --add channels conda-forge --add channels nodefaults",
        )


INSIDE: tuple[Callable[[ImageFacts, Inside], Iterator[Finding]], ...] = (
    home, versions, kernels, compiled, grammar, start, extensions, rest, driver, rights, channels,
)  # fmt: skip


def judge(facts: ImageFacts) -> list[Finding]:
    """Everything that is to be said about an image, the worst first."""
    said = [one for check in OUTSIDE for one in check(facts)]
    if isinstance(facts.inside, Unknown):
        said.append(
            unseen("image.inside", facts.inside.why, f"docker run --rm -it {facts.name} sh")
        )
    else:
        said += [one for check in INSIDE for one in check(facts, facts.inside)]
    return ordered(said)
