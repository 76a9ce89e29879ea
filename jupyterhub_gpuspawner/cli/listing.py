"""Lists of the scheduler that runs: as a table for people, as JSON for programs."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .command import OK, Progress, say, say_json, table
from .remote import Remote

#: an item of a list
Row = Mapping[str, Any]
#: head of a column -> what stands in it
Columns = Mapping[str, Callable[[Row], str]]


def show(arguments: argparse.Namespace, rows: Sequence[Row], columns: Columns) -> int:
    """Print them; the exit code."""
    if arguments.json:
        say_json(rows)
    else:
        cells = [[cell(row) for cell in columns.values()] for row in rows]
        say(table(list(columns), cells) if rows else "none")
    return OK


def listing(path: str, columns: Columns) -> Callable[[argparse.Namespace], int]:
    """A command's work: all that there is of one kind."""

    def run(arguments: argparse.Namespace) -> int:
        return show(arguments, Remote.of(arguments).list(path, Progress()), columns)

    return run
