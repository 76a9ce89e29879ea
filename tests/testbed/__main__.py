"""``python -m tests.testbed up|down|status|wipe|fetch|swarm-up|swarm-down``: from a shell.

``fetch`` only makes the root file systems, with the standard library. ``up`` prints one JSON
line with the socket, the gateway and the device ids; ``status`` prints the same or exits 1.
``down`` also stops the Swarm, and the engines named ``<name>-...`` that killed tests left.
``wipe`` removes all containers, volumes and networks from the running engine.
``swarm-up`` and ``swarm-down`` start and stop a Swarm of three nodes beside it.
"""

from __future__ import annotations

import json
import sys

from tests.testbed import rootfs

ACTS = ("up", "down", "status", "wipe", "fetch", "swarm-up", "swarm-down")


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0] not in ACTS:
        print(__doc__, file=sys.stderr)
        return 2
    reason = rootfs.missing()
    if reason is not None:
        print(f"error: {reason}", file=sys.stderr)
        return 1
    if arguments[0] == "fetch":
        rootfs.ensure_engine_root()
        rootfs.ensure_base_tar()
        rootfs.ensure_base_tar(rootfs.SITE_SUITE)
        rootfs.ensure_compose()
        return 0
    if arguments[0].startswith("swarm-"):
        return _swarm(arguments[0])
    return _engine(arguments[0])


def _swarm(act: str) -> int:
    from tests.testbed.swarm import Swarm

    swarm = Swarm.from_environment()
    if act == "swarm-up":
        swarm.start()
        print(swarm.facts())
    else:
        swarm.stop()
    return 0


def _engine(act: str) -> int:
    # Needs the docker SDK, which `fetch` does not have yet.
    from tests.testbed.engine import Engine
    from tests.testbed.images import ensure_stub

    engine = Engine.from_environment()
    if act == "down":
        _swarm("swarm-down")
        for one in engine.family():
            one.stop()
        return 0
    if act == "wipe":
        engine.wipe()
        return 0
    if act == "up":
        engine.start()
        client = engine.client(timeout=600)
        ensure_stub(client)
        client.close()
    elif not engine.answers():
        print("the testbed is down", file=sys.stderr)
        return 1
    facts = {"socket": str(engine.socket), "gateway": engine.gateway, "devices": engine.device_ids}
    print(json.dumps(facts))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
