"""``python -m jupyterhub_gpuspawner.service --config FILE``: the scheduler service.

Without more it is the supervisor, a child of the Hub, and ends with it. Options:

``--config FILE``   JSON or Python file with a ``GPUScheduler`` section
``--unmanaged``     no Hub started this (systemd, a container): don't watch the parent.
                    ``GPUS_HUB_API_URL`` and ``GPUS_HUB_TOKEN`` say where the Hub is
``--scheduler``     the scheduler itself (the supervisor starts it so)
``--GPUScheduler.name=value``   any option of the reference
"""

from __future__ import annotations

import logging
import os
import signal
import sys

from ..errors import ConfigError
from ..lifeline import die_with_parent
from .supervisor import EXIT_CONFIG, Supervisor, child_command


def main(argv: list[str] | None = None) -> int:
    """Run supervisor or scheduler; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if "--help" in arguments or "-h" in arguments:
        sys.stdout.write(__doc__ or "")
        return 0
    logging.basicConfig(
        level=logging.INFO,
        format="[%(levelname).1s %(asctime)s gpus] %(message)s",
        datefmt="%Y-%m-%d %H:%M:%S",
    )
    # migrations have much to say that is of no use here
    logging.getLogger("alembic").setLevel(logging.WARNING)
    unmanaged = _take(arguments, "--unmanaged")
    if _take(arguments, "--scheduler"):
        return _scheduler(arguments)
    parent = None if unmanaged else os.getppid()
    if unmanaged:
        # not above: a supervisor that needs it not is 7 MB smaller
        from .hub_facts import tell

        try:
            tell(os.environ)
        except ConfigError as error:
            logging.error("%s", error)
            return EXIT_CONFIG
    else:
        hub = os.environ.get("GPUS_HUB_PID", "")
        expected = int(hub) if hub.isdigit() else parent
        if not die_with_parent(signal.SIGTERM, expected):
            logging.error("supervisor: the Hub that started this is gone, ending")
            return 0
    return Supervisor(child_command(arguments), parent).run()


def _scheduler(arguments: list[str]) -> int:
    supervisor = os.environ.get("GPUS_SUPERVISOR_PID", "")
    if supervisor.isdigit() and not die_with_parent(signal.SIGKILL, int(supervisor)):
        # SIGKILL: a scheduler that hangs must not keep the port. Decisions are on disk already.
        return 0
    from .app import SchedulerApp

    try:
        return SchedulerApp.launch(arguments)
    except ConfigError as error:
        logging.error("%s", error)
        return EXIT_CONFIG


def _take(arguments: list[str], flag: str) -> bool:
    """Remove ``flag``; whether it was there."""
    found = flag in arguments
    while flag in arguments:
        arguments.remove(flag)
    return found


if __name__ == "__main__":
    sys.exit(main())
