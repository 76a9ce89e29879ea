"""``doctor``: what is wrong with a site, and the fix for each."""

from __future__ import annotations

import argparse

from ..doctor.examine import NODE_COLUMNS, findings, node_rows
from ..doctor.finding import Level, as_text, exit_code
from ..doctor.gather import Wanted, gather
from ..doctor.registry import CHECKS
from .command import OK, Argument, Command, note, say, say_json, table
from .images import ENGINE

#: the columns of the table of nodes, for a program
_NODE = ("node", "toolkit", "way", "enforces")


def _doctor(arguments: argparse.Namespace) -> int:
    if arguments.list:
        return _list(arguments)
    wanted = Wanted(
        hub_config=arguments.hub_config or "",
        engine=arguments.engine,
        containers=not arguments.no_images,
    )
    facts, trouble = gather(wanted, note)
    found = findings(facts, trouble)
    code = exit_code(found)
    if arguments.json:
        say_json(
            {
                "checks": len(CHECKS),
                "findings": [one.as_json() for one in found],
                "exit_code": code,
                "nodes": [dict(zip(_NODE, row, strict=True)) for row in node_rows(facts)],
            }
        )
        return code
    if found:
        say(as_text(found))
        say("")
    if nodes := node_rows(facts):
        say(table(NODE_COLUMNS, nodes))
        say("")
    counts = {level: sum(one.level is level for one in found) for level in Level}
    said = ", ".join(f"{count} {level}" for level, count in counts.items() if count)
    say(f"{len(CHECKS)} checks: {said or 'nothing found'}")
    return code


def _list(arguments: argparse.Namespace) -> int:
    if arguments.json:
        say_json([{"check": one.name, "help": one.help} for one in CHECKS])
    else:
        say(table(("check", "what is right"), [(one.name, one.help) for one in CHECKS]))
    return OK


COMMANDS = (
    Command(
        name="doctor",
        help="Look for what is wrong with this site, and say the fix for each.\n\n"
        "It looks at the engine, GPUs, images, the Hub's configuration, databases, disks, clocks "
        "and networks. The Hub may run or not. The configuration is run as the Hub runs it, so "
        "give it the same variables; setup(c) writes nothing then. Images are started once, "
        "without network, and one container tries to connect to the Hub's address. What can't be "
        "looked at is said: unknown is not fine. Exit code 0: all was looked at, and nothing "
        "found; 3: something found; 4: nothing found, but not everything could be looked at.",
        arguments=(
            Argument(
                name="--hub-config FILE",
                help="the Hub's configuration. Default: jupyterhub_config.py, where it is here",
            ),
            ENGINE,
            Argument(name="--no-images", help="start no container"),
            Argument(name="--list", help="only list the checks"),
        ),
        run=_doctor,
    ),
)
