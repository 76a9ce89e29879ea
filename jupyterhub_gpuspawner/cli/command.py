"""What all commands share: how they are described, what they print, how they fail."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from ..errors import GPUSpawnerError

#: the command worked
OK = 0
#: it did not; one line on standard error says why
FAILED = 1
#: it was called in a wrong way
USAGE = 2
#: seconds between two lines about the same work
_PACE = 1.0


class CommandError(GPUSpawnerError):
    """A command can't do what it is asked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Argument:
    """One argument of a command."""

    #: ``FILE``, ``--ledger URL`` or ``--json``
    name: str
    #: one line for people
    help: str
    #: more for ``add_argument``
    more: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """One command: its words, and the function that does it."""

    #: ``ledger copy``
    name: str
    #: a sentence, and more of them after a blank line
    help: str
    arguments: tuple[Argument, ...] = ()
    #: what it prints can be JSON too
    has_json: bool = True
    #: returns the exit code; raises ``GPUSpawnerError``
    run: Callable[[argparse.Namespace], int]

    @property
    def all_arguments(self) -> tuple[Argument, ...]:
        """With the one that most commands have."""
        return (*self.arguments, JSON) if self.has_json else self.arguments


JSON = Argument(name="--json", help="print JSON instead of text")


class Parser(argparse.ArgumentParser):
    """One line for a wrong call, and where to read more."""

    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"{self.prog}: {message}; see {self.prog} --help\n")
        raise SystemExit(USAGE)


def add_arguments(
    parser: argparse.ArgumentParser, command: Command, before: Command | None = None
) -> None:
    """Tell ``parser`` what ``command`` takes.

    ``before`` is the command that is its first word: an option of both may stand behind either
    word. Without this, argparse would put the second one's default over what the first was given.
    """
    inherited = before.all_arguments if before else ()
    for argument in command.all_arguments:
        name, _, value = argument.name.partition(" ")
        more = dict(argument.more)
        if value:
            more["metavar"] = value
        elif name.startswith("--"):
            more["action"] = "store_true"
        else:
            more["metavar"] = name
            name = name.lower()
        if argument in inherited:
            more["default"] = argparse.SUPPRESS
        parser.add_argument(name, help=argument.help.replace("%", "%%"), **more)


def say(text: str) -> None:
    """A line of the result."""
    sys.stdout.write(f"{text}\n")


def note(text: str) -> None:
    """A line beside the result: progress, warnings, errors."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def say_json(value: Any) -> None:
    """The result for a program."""
    say(json.dumps(value, indent=2, ensure_ascii=False))


def answer(arguments: argparse.Namespace, found: Any, words: str) -> int:
    """The result, as JSON where that was asked for and else in words; the exit code."""
    if arguments.json:
        say_json(found)
    else:
        say(words)
    return OK


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of text. What can't be printed is escaped: names come from people."""
    lines = [[_printable(cell) for cell in line] for line in (heads, *rows)]
    widths = [max(len(line[number]) for line in lines) for number in range(len(heads))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class Progress:
    """Says how far some work is, at most once a second."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said = clock()

    def __call__(self, what: str, done: int, total: int) -> None:
        """``done`` of ``total`` rows (or files) of ``what``."""
        now = self._clock()
        if now - self._said >= _PACE:
            self._said = now
            note(f"{what}: {done} of {total}")
