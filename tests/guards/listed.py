"""Two lists of small patches of the shipped code with their meaning.

``guards.diff`` takes guards of the start and the release away, ``mutations.diff`` puts faults in.

::

    == What it does, as the page says it
    keeps: the invariant
    file: launch.py
    model: yes
    test: unit/test_launch.py::test_that_fails_without_it
    -line of the code
    +line in its place

``model`` says for the code that a search of all worlds runs (``tests/model``) which one sees it as
well: ``yes`` the smallest one, ``two servers`` the one that has two, ``trouble`` the one whose node
is in trouble; ``no: why`` where none can.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

LIST = Path(__file__).parent / "guards.diff"
MUTATIONS = Path(__file__).parent / "mutations.diff"
#: searches that are small enough to be made once for each guard
MODEL = {
    "yes": "crash/test_model.py::test_no_world_of_one_server_that_is_started_twice_breaks_a_rule",
    "two servers": "crash/test_model.py::test_no_world_of_two_servers_breaks_a_rule",
    "trouble": "crash/test_model.py::test_no_world_of_a_node_in_trouble_breaks_a_rule",
}
#: the code that the searches run
SEARCHED = ("scheduler/", "store/", "service/reconcile.py")


@dataclass(frozen=True, kw_only=True, slots=True)
class Guard:
    """A few lines of the shipped code without which an invariant can break."""

    #: what it does
    title: str
    #: which invariant of DESIGN it keeps
    keeps: str
    #: the module, below the package
    file: str
    #: the test that fails without it, below ``tests/``
    test: str
    #: whole lines, which the module has exactly once
    code: str
    #: whole lines in their place
    gone: str
    #: which search of all worlds fails without it too, or why none does; empty = none runs it
    model: str = ""


def read(text: str | None = None) -> list[Guard]:
    """All guards, in the order of the list, of ``guards.diff`` if no text is given."""
    parts = (LIST.read_text() if text is None else text).split("\n== ")
    return [_parse(part) for part in parts[1:]]


def _parse(part: str) -> Guard:
    title, *lines = part.splitlines()
    fields: dict[str, str] = {}
    sides = {"-": "", "+": ""}
    for line in filter(None, lines):
        if line[0] in sides:
            sides[line[0]] += line[1:] + "\n"
        else:
            name, _, value = line.partition(": ")
            fields[name] = value
    model = fields.pop("model", "")
    if model and model not in MODEL and not model.startswith("no: "):
        raise ValueError(f"guard {title!r}: there is no search {model!r}")
    if sorted(fields) != ["file", "keeps", "test"] or not sides["-"]:
        raise ValueError(f"guard {title!r}: wants keeps, file, test, and lines to remove")
    return Guard(title=title, code=sides["-"], gone=sides["+"], model=model, **fields)


def by_model(guards: list[Guard]) -> list[Guard]:
    """Those that the search of all worlds sees, with the search as their test."""
    return [replace(guard, test=MODEL[guard.model]) for guard in guards if guard.model in MODEL]
