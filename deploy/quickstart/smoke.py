"""The main job as a self-check: two users at once, a third who waits, and nothing left over.

``python -m deploy.quickstart.smoke --image TAG``. It runs a Hub of its own on free ports with
temporary state, and talks to it as people do. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import docker
import requests

from jupyterhub_gpuspawner.engine import labels
from jupyterhub_gpuspawner.errors import ConfigError

from .person import Person, PersonError
from .settings import bridge_address
from .trial import ROOT, TrialError, TrialHub, wait_for

#: seconds for a server to be ready
READY_LIMIT = 180.0

#: prints, from inside, what the engine and the kernel gave: devices, memory limit, CPU quota
CELL = """
import json, os, pathlib, subprocess
def read(*paths):
    for path in paths:
        if pathlib.Path(path).exists():
            return pathlib.Path(path).read_text().split()
    return []
markers = sorted(os.listdir("/run/gpus")) if os.path.isdir("/run/gpus") else []
if not markers and os.path.exists("/dev/nvidiactl"):
    lines = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout.split("\\n")
    markers = sorted(line.split("UUID: ")[1].rstrip(")") for line in lines if "UUID: " in line)
memory = read("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")[0]
quota = read("/sys/fs/cgroup/cpu.max")
for folder in ("/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct"):
    quota = quota or read(folder + "/cpu.cfs_quota_us") + read(folder + "/cpu.cfs_period_us")
cpu = int(quota[0]) / int(quota[1])
print(json.dumps({"devices": markers, "memory": int(memory), "cpu": cpu}))
"""


#: where another installation owns the engine, its GPUs are not ours to try
NOT_OURS = """
c.GPUScheduler.claim_engine = False
c.GPUScheduler.discovery = "simulated"
c.GPUScheduler.node_name = "smoke"
"""


@contextmanager
def let_in(hub: TrialHub) -> Iterator[None]:
    """Have the firewall rules of this machine, if any, let servers reach the trial's Hub.

    ``./quickstart`` makes rules that let them reach its own Hub alone.
    """
    place = "{GPUS_BRIDGE_IP}:{GPUS_HUB_PORT}".format_map(hub.environment)
    command = [str(ROOT / "deploy" / "firewall")]
    if os.geteuid() != 0:
        command = ["sudo", "-n", *command]

    def change(word: str) -> None:
        # without root it can't be seen whether there are rules at all
        with suppress(OSError):
            subprocess.run([*command, word, place], stdin=subprocess.DEVNULL, capture_output=True)

    change("open")
    try:
        yield
    finally:
        change("close")


class SmokeError(TrialError):
    """A step did not do what it must; the text is for people."""


def say(started: float, text: str) -> None:
    """One line of progress on stderr."""
    print(f"==> [{time.monotonic() - started:5.1f} s] {text}", file=sys.stderr, flush=True)


def launch(person: Person) -> float:
    """From the click to a server that is ready, in seconds."""
    began = time.monotonic()
    answer = person.ask({"profile": "gpu"})
    if answer.status_code != 200:
        raise SmokeError(f"{person.name}: the form answered {answer.status_code}")
    person.wait(limit=READY_LIMIT)
    return time.monotonic() - began


def look(person: Person) -> dict[str, Any]:
    """What a cell of the person sees from inside its container."""
    seen: dict[str, Any] = json.loads(person.run(CELL))
    return seen


def check(seen: dict[str, Any], known: set[str], name: str) -> None:
    """One user's devices, memory and CPU, as the kernel and the engine gave them."""
    if len(seen["devices"]) != 1 or not set(seen["devices"]) <= known:
        raise SmokeError(f"{name}: wanted one leased GPU, the container has {seen['devices']}")
    if seen["memory"] != 2 * 2**30:
        raise SmokeError(f"{name}: wanted a memory limit of 2 GiB, the kernel has {seen['memory']}")
    if seen["cpu"] != 1.0:
        raise SmokeError(f"{name}: wanted a quota of 1 CPU, the kernel has {seen['cpu']}")


def third_waits(people: list[Person], started: float) -> None:
    """With all devices taken the next one waits, sees its place, and is granted in turn."""
    late = people[-1]
    late.ask({"profile": "gpu"})
    seen: list[str] = []
    stopped = False
    for event in late.progress(limit=READY_LIMIT):
        seen.append(str(event.get("message", "")))
        if "position 1" in seen[-1] and not stopped:
            say(started, f"{late.name} sees: {seen[-1]}")
            people[0].stop()
            stopped = True
        if event.get("failed"):
            raise SmokeError(f"{late.name}: failed instead of waiting: {' | '.join(seen)}")
        if event.get("ready"):
            break
    if not stopped:
        raise SmokeError(f"{late.name}: did not wait although all were taken: {' | '.join(seen)}")


def run(hub: TrialHub, started: float) -> dict[str, Any]:
    """The whole story. Returns what the last line reports."""
    summary = hub.summary()
    known = {device["id"] for device in summary["devices"]}
    if len(known) < 2:
        raise SmokeError(f"the test needs two GPUs, the scheduler has {len(known)}")
    names = [f"smoke{number}" for number in range(1, len(known) + 2)]
    people = [Person(hub.base, name, hub.password) for name in names]
    for person in people:
        person.login()
    if any(d["simulated"] for d in summary["devices"]) and "SIMULATED" not in people[0].form():
        raise SmokeError("the form does not say that the GPUs are SIMULATED")
    say(started, f"{len(people) - 1} users start at once, one for each of {len(known)} GPUs")
    with ThreadPoolExecutor(len(people)) as pool:
        ready = list(pool.map(launch, people[:-1]))
        views = list(pool.map(look, people[:2]))
    for person, view in zip(people, views, strict=False):
        check(view, known, person.name)
    if set(views[0]["devices"]) & set(views[1]["devices"]):
        raise SmokeError(f"the same GPU twice: {views[0]['devices']} {views[1]['devices']}")
    word = secrets.token_hex(8)
    people[0].run(f"open('/home/jovyan/smoke.txt', 'w').write({word!r})")
    say(started, "all GPUs are taken; one more asks")
    third_waits(people, started)
    check(look(people[-1]), known, people[-1].name)
    people[-1].stop()
    say(started, f"{people[0].name} starts again and looks for the file")
    launch(people[0])
    if people[0].run("print(open('/home/jovyan/smoke.txt').read(), end='')") != word:
        raise SmokeError("the file in the home is not there after stop and start")
    for person in people[:-1]:
        person.stop()
    wait_for("free GPUs", 30, lambda: all(d["state"] == "free" for d in hub.summary()["devices"]))
    return {
        "ready_seconds": round(max(ready), 2),
        "devices": [view["devices"] for view in views],
        "mem_limit": views[0]["memory"],
        "ledger": summary["ledger"],
    }


def left_over(client: docker.DockerClient, ledger: str) -> list[str]:
    """Containers of this run's ledger that are still there."""
    label = f"{labels.LEDGER}={ledger}"
    return [c.name for c in client.containers.list(all=True, filters={"label": label})]


def tidy(client: docker.DockerClient, ledger: str) -> None:
    """Remove this run's containers, volumes and networks, found by its ledger's id."""
    chosen = {"label": f"{labels.LEDGER}={ledger}"}
    for container in client.containers.list(all=True, filters=chosen):
        container.remove(force=True)
    for volume in client.volumes.list(filters=chosen):
        volume.remove()
    # the service that removes a user's network a while after the last server is gone by now
    for network in client.networks.list(filters=chosen):
        network.remove()


def owned_by_other(client: docker.DockerClient) -> bool:
    """Whether another installation gives out this engine's GPUs."""
    label = f"{labels.KIND}={labels.Kind.OWNER.value}"
    return bool(client.volumes.list(filters={"label": label}))


def main() -> int:
    """Run it; 0, or 1 with a readable reason."""
    parser = argparse.ArgumentParser(prog="quickstart --smoke", description=__doc__)
    parser.add_argument("--image", default="jupyterhub-gpuspawner/singleuser:latest")
    parser.add_argument("--simulate", type=int, default=2, help="GPUs where there are no real ones")
    arguments = parser.parse_args()
    started = time.monotonic()
    client = docker.from_env()
    extra = "" if not owned_by_other(client) else NOT_OURS
    try:
        bridge = bridge_address()
    except ConfigError as error:
        print(json.dumps({"ok": False, "reason": str(error)}))
        return 1
    hub = TrialHub(
        image=arguments.image,
        simulate=max(2, arguments.simulate),
        after=extra,
        env={"GPUS_BRIDGE_IP": bridge},
    )
    with let_in(hub):
        result = check_all(hub, client, started)
    result["seconds"] = round(time.monotonic() - started, 1)
    print(json.dumps(result))
    return 0 if result["ok"] else 1


def check_all(hub: TrialHub, client: Any, started: float) -> dict[str, Any]:
    """All of it, and nothing left; what was seen, with ``ok``, or ``reason`` where it failed."""
    result: dict[str, Any] = {"ok": False}
    ledger = ""
    try:
        say(started, "starting a Hub with temporary state")
        hub.start()
        ledger = hub.summary()["ledger"]
        result.update(run(hub, started))
        rest = left_over(client, ledger)
        if rest:
            raise SmokeError(f"containers left over: {', '.join(rest)}")
        result["ok"] = True
    except (TrialError, PersonError, requests.RequestException, OSError) as error:
        result["reason"] = str(error)
        say(started, f"FAILED: {error}")
        say(started, hub.last_words(40))
    finally:
        hub.stop()
        if ledger:
            tidy(client, ledger)
        if result["ok"]:
            shutil.rmtree(hub.state, ignore_errors=True)
        else:
            say(started, f"the logs are in {hub.state}")
    result.pop("ledger", None)
    return result


if __name__ == "__main__":
    sys.exit(main())
