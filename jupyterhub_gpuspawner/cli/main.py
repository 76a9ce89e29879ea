"""``jupyterhub-gpuspawner COMMAND …``: finds the command, runs it, and says what went wrong."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from .. import __version__
from ..errors import GPUSpawnerError
from ..kinds import one_line
from . import admin, agent, doctor, images, ledgers, live, simulate, storage, swarm
from .command import FAILED, Command, Parser, add_arguments, note

PROGRAM = "jupyterhub-gpuspawner"
COMMANDS: tuple[Command, ...] = (
    *live.COMMANDS,
    *admin.COMMANDS,
    *ledgers.COMMANDS,
    *storage.COMMANDS,
    *images.COMMANDS,
    *simulate.COMMANDS,
    *doctor.COMMANDS,
    *agent.COMMANDS,
    *swarm.COMMANDS,
)
_END = """exit codes: 0 it worked; 1 it did not, and one line on standard error says why; 2 it was
called in a wrong way; 3 it found something to mend; 4 it found nothing, but could not look at
everything; 130 it was interrupted"""


def parser() -> argparse.ArgumentParser:
    """All commands, as ``argparse`` wants them."""
    top = Parser(prog=PROGRAM, description="What you do beside the running Hub.", epilog=_END)
    top.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    groups: dict[str, Any] = {"": top.add_subparsers(metavar="COMMAND", required=True)}
    known = {command.name: command for command in COMMANDS}
    for command in COMMANDS:
        group, _, word = command.name.rpartition(" ")
        if group not in groups:
            more = groups[""].add_parser(group, help=f"{group} …", description=f"{group} commands")
            groups[group] = more.add_subparsers(metavar="COMMAND", required=True)
        own = groups[group].add_parser(
            word, help=command.help.partition("\n")[0], description=command.help, epilog=_END
        )
        add_arguments(own, command, known.get(group))
        own.set_defaults(command=command)
        if any(name.startswith(f"{command.name} ") for name in known):
            # a command of its own, and the first word of others
            groups[command.name] = own.add_subparsers(metavar="COMMAND")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    found = parser().parse_args(arguments)
    command: Command = found.command
    try:
        return command.run(found)
    except GPUSpawnerError as error:
        note(f"{PROGRAM} {command.name}: {one_line(error)}")
    except BrokenPipeError:
        # who read us has read enough; Python would complain once more at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        note(f"{PROGRAM} {command.name}: {one_line(error)}")
    except KeyboardInterrupt:
        note(f"{PROGRAM} {command.name}: interrupted")
        return 128 + signal.SIGINT
    return FAILED
