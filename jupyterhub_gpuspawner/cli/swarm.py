"""``swarm pull``: an image on all nodes of a Swarm before anybody waits for it."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict

import docker
import docker.errors

from ..engine import pulls
from ..engine.faults import translate
from ..engine.pulls import Pull
from .command import FAILED, OK, Argument, Command, note, say, say_json, table
from .images import ENGINE, connected

#: seconds between two looks
PAUSE = 0.5


def _pull(arguments: argparse.Namespace) -> int:
    client = connected(arguments)
    try:
        image = pulls.pinned(client, arguments.image) if arguments.pin else arguments.image
        found = _pulled(client, image, arguments.timeout)
    except docker.errors.DockerException as error:
        raise translate(error) from error
    finally:
        client.close()
    if arguments.json:
        say_json({"image": image, "nodes": [asdict(one) for one in found]})
    else:
        say(table(("node", "state", ""), [(one.node, one.state, one.words) for one in found]))
        say(f"image: {image}")
    return OK if all(one.state == "there" for one in found) else FAILED


def _pulled(client: docker.DockerClient, image: str, limit: float) -> list[Pull]:
    """The nodes once all are through, or after ``limit`` seconds."""
    job, said = pulls.begin(client, image), ""
    until = time.monotonic() + limit
    try:
        while True:
            found = pulls.look(client, job)
            line = ", ".join(f"{one.node} {one.state}" for one in found)
            if line != said:
                said = line
                note(line)
            if all(one.over for one in found) or time.monotonic() > until:
                # while the job is there, whose end has the scheduler look
                there = [one.node for one in found if one.state == "there"]
                pulls.remember(client, image, there)
                return found
            time.sleep(PAUSE)
    finally:
        pulls.end(client, job)


COMMANDS = (
    Command(
        name="swarm pull",
        help="Pull an image on every node of a Swarm.\n\n"
        "A job of one task a node has each node pull it; what each does is said as it goes on, "
        "also on the admin page and by `nodes`. Of equally good nodes a server then starts on one "
        "that has its image. The credentials of 'docker login' go along. Exit code 0: all nodes "
        "have it.",
        arguments=(
            Argument(name="IMAGE", help="the image, as profiles name it"),
            Argument(
                name="--pin",
                help="ask the registry for the image's digest, pull exactly that, and print the "
                "name with it, for the configuration: then all nodes run the same",
            ),
            Argument(
                name="--timeout SECONDS",
                help="seconds after which it is given up. Default: 3600",
                more={"type": float, "default": 3600.0},
            ),
            ENGINE,
        ),
        run=_pull,
    ),
)
