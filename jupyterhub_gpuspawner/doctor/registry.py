"""The checks of ``doctor``: each has a name, the facts that it needs, and a pure function."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from .facts import Facts
from .finding import Finding, Level, unseen


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What a check says; its name is added later."""

    what: str
    why: str
    fix: str
    about: str = ""
    level: Level = Level.WARNING


Run = Callable[[Facts], Iterator[Found]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One thing that ``doctor`` looks at."""

    #: ``engine.default-runtime``
    name: str
    #: facts without which it can't be said
    needs: tuple[str, ...]
    #: what is right, in one sentence
    help: str
    run: Run


#: in the order in which they were defined
CHECKS: list[Check] = []

#: fact -> how it could be known
HOW = {
    "info": "start Docker, name it with --engine, and run this as a user who may use it",
    "config": "name the Hub's configuration with --hub-config FILE, with its variables set",
    "images": "leave out --no-images, and have the images on the engine",
    "reach": "have an image with bash on the engine, and run this on the Hub's machine",
    "nvml": "run nvidia-smi, and see the kernel's log",
    "toolkit": "run nvidia-ctk --version on the engine's machine",
    "toolkit_config": "run this on the engine's machine, as a user who may read it",
    "cdi_specs": "run this on the engine's machine, as a user who may read them",
    "cdi_folders": "run this on the engine's machine",
    "clock_set": "timedatectl",
    "modes": "run this as the user whose Hub it is",
    "ledger": "run this as the user whose Hub it is",
    "hub_database": "run this as the user whose Hub it is",
    "owner": "docker volume inspect gpus-owner",
    "toolkits": "run this where the scheduler can be reached, as the user whose Hub it is",
}
#: facts that come with another one
_WITH = {
    "version": "info",
    "networks": "info",
    "engine_clock": "info",
    "spawner": "config",
    "options": "config",
}


def check(name: str, *needs: str) -> Callable[[Run], Run]:
    """Put a function into the list of checks. Its docstring says what is right."""

    def add(run: Run) -> Run:
        text = " ".join((run.__doc__ or "").split())
        CHECKS.append(Check(name=name, needs=needs, help=text, run=run))
        return run

    return add


def error(what: str, why: str, fix: str, about: str = "") -> Found:
    """Servers fail, are lost, or somebody reaches what they must not."""
    return Found(what=what, why=why, fix=fix, about=about, level=Level.ERROR)


def warning(what: str, why: str, fix: str, about: str = "") -> Found:
    """It works, but slower or with less safety."""
    return Found(what=what, why=why, fix=fix, about=about)


def examine(facts: Facts, checks: Iterable[Check] | None = None) -> list[Finding]:
    """Run the checks. Of what is not known, one finding says which checks it kept from looking."""
    found: list[Finding] = []
    blind: dict[tuple[str, str], list[str]] = {}
    for one in CHECKS if checks is None else checks:
        missing = next((n for n in one.needs if facts.unknown(n) is not None), None)
        if missing is not None:
            unknown = facts.unknown(missing)
            assert unknown is not None
            blind.setdefault((_WITH.get(missing, missing), unknown.why), []).append(one.name)
            continue
        found += [
            Finding(
                check=one.name,
                level=said.level,
                what=said.what,
                why=said.why,
                fix=said.fix,
                about=said.about,
            )
            for said in one.run(facts)
        ]
    for (fact, why), names in blind.items():
        said = f"{why}; so these checks did not run: {', '.join(dict.fromkeys(names))}"
        found.append(unseen(f"unknown.{fact}", said, HOW.get(fact, "run it where it can be seen")))
    return found
