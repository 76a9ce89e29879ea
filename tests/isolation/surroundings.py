"""What is around a machine, in network namespaces: the Internet, a cloud's metadata service.

Also what else the machine itself offers. Nothing of it leaves this computer.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deploy.quickstart.trial import wait_for

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

#: the machine's address on its uplink, and the router's
MACHINE, ROUTER = "198.51.100.1", "198.51.100.2"
#: a cloud's metadata service, and a host in the Internet
METADATA, INTERNET = "169.254.169.254", "203.0.113.10"
#: where the stand-ins listen: beyond the machine, and on it (Docker's TCP port, a database's)
WEB, DOCKER_TCP, DATABASE = 80, 2375, 5432
#: what each of them answers
BEYOND, ON_THE_MACHINE = "beyond", "machine"

#: results of a probe that reached nobody
SHUT = {"refused", "no answer", "no such name", "unreachable"}


def run(*command: str) -> str:
    """Run a command in the namespace that this thread is in."""
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


@contextmanager
def echo(name: str, ports: Sequence[int], *, namespace: int | None = None) -> Iterator[None]:
    """Have an echo service here, or in the network namespace of a process."""
    enter = [] if namespace is None else ["nsenter", f"--net=/proc/{namespace}/ns/net"]
    command = [*enter, sys.executable, str(HERE / "echo.py"), name, *map(str, ports)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield
        finally:
            process.kill()


@contextmanager
def internet() -> Iterator[None]:
    """Connect this namespace to another one, which has everything that is outside."""
    holder = subprocess.Popen(["unshare", "--net", "sh", "-c", "echo up; exec sleep infinity"],
                              stdout=subprocess.PIPE, text=True)  # fmt: skip
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "up\n"
        inside = ["nsenter", f"--net=/proc/{holder.pid}/ns/net", "ip"]
        run("ip", "link", "add", "uplink", "type", "veth", "peer", "name", "router")
        run("ip", "link", "set", "router", "netns", str(holder.pid))
        run("ip", "addr", "add", f"{MACHINE}/24", "dev", "uplink")
        run("ip", "link", "set", "uplink", "up")
        run(*inside, "link", "set", "lo", "up")
        run(*inside, "addr", "add", f"{ROUTER}/24", "dev", "router")
        run(*inside, "link", "set", "router", "up")
        for address in (METADATA, INTERNET):
            run(*inside, "addr", "add", f"{address}/32", "dev", "lo")
        run("ip", "route", "add", "default", "via", ROUTER)
        with echo(BEYOND, [WEB], namespace=holder.pid):
            yield
    finally:
        if "uplink" in run("ip", "-br", "link"):
            run("ip", "link", "del", "uplink")
        holder.kill()
        holder.wait()
        assert holder.stdout is not None
        holder.stdout.close()


def firewall(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """``deploy/firewall``, with name servers that are none."""
    return subprocess.run(
        [str(ROOT / "deploy" / "firewall"), *arguments],
        check=check,
        capture_output=True,
        text=True,
        env={**os.environ, "RESOLV_CONF": "/dev/null"},
    )


def probe(container: Any, places: Sequence[str]) -> dict[str, str]:
    """Try to reach places (``tcp:10.0.0.1:80``) from inside a container."""
    source = (HERE / "probe.py").read_text()
    code, output = container.exec_run(["python3", "-c", source, *places])
    assert code == 0, output
    result: dict[str, str] = json.loads(output)
    assert set(result) == set(places)
    return result


def both(host: str, *ports: int) -> list[str]:
    """TCP and UDP places."""
    return [f"{kind}:{host}:{port}" for port in ports for kind in ("tcp", "udp")]


def serve(container: Any, name: str, port: int) -> None:
    """Have an echo service in a container, as a user would."""
    source = (HERE / "echo.py").read_text()
    container.exec_run(["python3", "-c", source, name, str(port)], detach=True)
    wanted = {f"tcp:{port}", f"udp:{port}"}
    wait_for(f"{name} listens", 60, lambda: wanted <= set(listening(container)))


def listening(container: Any) -> list[str]:
    """``tcp:PORT`` and ``udp:PORT`` of everything that listens in a container, but on loopback."""
    container.reload()
    pid = container.attrs["State"]["Pid"]
    found = []
    for kind, state in (("tcp", "0A"), ("udp", "07")):
        for line in Path(f"/proc/{pid}/net/{kind}").read_text().splitlines()[1:]:
            words = line.split()
            address, _, port = words[1].partition(":")
            if words[3] == state and not address.endswith("7F"):
                found.append(f"{kind}:{int(port, 16)}")
    return found
