"""A real Hub on the testbed's engine, with the stub image and simulated GPUs.

The same tests run on both Hub lines: whichever is installed beside pytest.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from deploy.quickstart.person import Person
from deploy.quickstart.trial import TrialHub
from jupyterhub_gpuspawner.engine import labels
from tests import logs
from tests.hubs import people, run_hub
from tests.testbed.processes import all_pids, command

#: what the tests ask of the shipped configuration to be different: small servers that start at
#: once, short graces, and profiles that make a server misbehave
AFTER = """
c.GPUDockerSpawner.mem_limit = "64M"
c.GPUDockerSpawner.stop_grace = 2
c.JupyterHub.log_level = "INFO"
c.GPUScheduler.detach_grace = 3
c.GPUScheduler.exited_grace = 10
c.GPUScheduler.reconcile_interval = 5
import os
MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
def profile(slug, **override):
    return {"display_name": slug, "slug": slug, "spawner_override": override}
c.GPUDockerSpawner.profile_list = [
    profile("gpu", gpus=1),
    profile("gpu2", gpus=2),
    profile("cpu", gpus=0),
    profile("many", gpus=99),
    profile("dies", gpus=1, environment={"STUB_DIE": "3"}),
    profile("slow", gpus=1, environment={"STUB_SLOW": "30"}),
    profile("brief", gpus=1, environment={"STUB_EXIT_AFTER": "2", "STUB_EXIT_CODE": "7"}),
    # two of these are more than the 80 % of the machine's memory that may be promised
    profile("half", gpus=0, mem_limit=int(MEMORY * 0.45)),
    profile("huge", gpus=0, mem_limit="900T"),
    profile("noimage", gpus=1, image="gpuspawner-test/not-there:latest"),
]
"""


#: the testbed's engine reads its CDI specs from a folder of its own
ENGINE = """
c.GPUScheduler.node_name = "{node}"
c.GPUScheduler.cdi_dir = "{cdi}"
"""


@pytest.fixture(scope="module")
def hub(engine: Any, docker_client: Any, stub_image: str) -> Iterator[TrialHub]:
    """A Hub with two simulated GPUs, one for the tests of a module."""
    with run_hub(make_hub(engine, stub_image), docker_client) as hub:
        yield hub


@pytest.fixture
def own_hub(engine: Any, docker_client: Any, stub_image: str) -> Iterator[TrialHub]:
    """A Hub that a test may kill."""
    with run_hub(make_hub(engine, stub_image), docker_client) as hub:
        yield hub


def make_hub(
    engine: Any,
    image: str,
    after: str = "",
    *,
    simulate: int = 2,
    env: Any = None,
    python: str = sys.executable,
) -> TrialHub:
    """A Hub for the testbed's engine, not started. ``after``: more lines of configuration.

    The engine itself offers four simulated GPUs. A Hub with more has a node name of its own:
    then the scheduler writes their CDI definitions.
    """
    node = engine.node if simulate <= engine.devices else f"{engine.node}{simulate}"
    return TrialHub(
        image=image,
        simulate=simulate,
        after=AFTER + ENGINE.format(node=node, cdi=engine.folder / "cdi") + after,
        env={"DOCKER_HOST": engine.base_url, "GPUS_BRIDGE_IP": engine.gateway, **(env or {})},
        python=python,
    )


@pytest.fixture
def somebody(hub: TrialHub) -> Iterator[Callable[..., Person]]:
    """Makes a new user who is logged in; their servers are stopped at the end."""
    with people(hub) as make:
        yield make


def start(person: Person, profile: str = "gpu", server: str = "") -> list[str]:
    """Choose a profile and wait until the server is ready; the messages on the way."""
    answer = person.ask({"profile": profile}, server)
    assert answer.status_code == 200, plain(answer.text)
    return person.wait(server, limit=60)


def line_up(person: Person, profile: str) -> tuple[str, Iterator[dict[str, Any]]]:
    """Choose a profile that has to wait; what the person reads about it, and what follows."""
    assert person.ask({"profile": profile}).status_code == 200
    events = person.progress(limit=60)
    for event in events:
        if "position" in event["message"]:
            return event["message"], events
    raise AssertionError(f"{person.name} did not have to wait")


def is_ready(events: Iterator[dict[str, Any]]) -> bool:
    """Whether what follows ends with a server that is ready."""
    return any(event.get("ready") for event in events)


def plain(page: str) -> str:
    """The text of a page, without its markup, scripts and blank lines."""
    text = re.sub(r"(?s)<script.*?</script>|<style.*?</style>|<[^>]*>", " ", page)
    return " ".join(text.split())


def facts(hub: TrialHub, person: Person, client: Any, server: str = "") -> dict[str, Any]:
    """What the stub sees from inside its container."""
    container = container_of(client, person, server)
    code, output = container.exec_run(
        [
            "python3",
            "-c",
            "import json, os; print(json.dumps({'gpus': sorted(os.listdir('/run/gpus')) "
            "if os.path.isdir('/run/gpus') else [], 'env': dict(os.environ), "
            "'home': sorted(os.listdir('/home/jovyan'))}))",
        ]
    )
    assert code == 0, output
    import json

    result: dict[str, Any] = json.loads(output)
    return result


def container_of(client: Any, person: Person, server: str = "") -> Any:
    """The one container of a server."""
    chosen = [
        f"{labels.KIND}={labels.Kind.SERVER.value}",
        f"{labels.USER}={person.name}",
        f"{labels.SERVER}={server}",
    ]
    (container,) = client.containers.list(all=True, filters={"label": chosen})
    return container


def containers_of(client: Any, person: Person) -> list[Any]:
    """All containers of a person."""
    chosen = [f"{labels.USER}={person.name}"]
    found: list[Any] = client.containers.list(all=True, filters={"label": chosen})
    return found


def server_of(person: Person, server: str = "") -> dict[str, Any] | None:
    """What the Hub's API says about a server; None = it has none."""
    model = person.api("GET", f"/users/{person.name}").json()
    found: dict[str, Any] | None = model.get("servers", {}).get(server)
    return found


def scheduler_pids(hub: TrialHub) -> list[int]:
    """Processes of this Hub's scheduler, without the supervisor."""
    config = str(hub.state / "gpus" / "scheduler.json")
    return [pid for pid in all_pids() if {config, "--scheduler"} <= set(command(pid))]


def tracebacks(hub: TrialHub) -> list[str]:
    """What the log holds of our code's tracebacks.

    Without those of a start that is cancelled while the Hub still holds its answer back (one
    second): the Hub's own handler lets the cancel through to Tornado, which logs it.
    """
    return [
        text
        for text in logs.tracebacks(hub.log())
        if "jupyterhub_gpuspawner" in text
        and not ("Uncaught exception POST" in text and text.rstrip().endswith("CancelledError"))
    ]
