"""Prometheus, the shipped configuration, rules and dashboard, against a real Hub at work."""

from __future__ import annotations

import json
import re
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.quickstart.trial import TrialHub, wait_for
from tests.hub.conftest import line_up, make_hub, start
from tests.hub.test_evict import call
from tests.hubs import people, run_hub

from .prometheus import SHIPPED, Prometheus, prometheus
from .standins import cadvisor, dcgm, exporter

#: names of those who are here
PEOPLE = re.compile("(ann|gone|nine|three)-[0-9a-f]{8}")
#: what Grafana makes of its own word for "as long as fits the chart"
INTERVAL = {"$__rate_interval": "1m"}


@pytest.fixture(scope="module")
def watched(
    engine: Any, docker_client: Any, stub_image: str, tmp_path_factory: Any
) -> Iterator[Prometheus]:
    """Four GPUs: one held, one cordoned; a user who waits for three; starts, ends and a refusal."""
    token = secrets.token_hex(32)
    hub = make_hub(engine, stub_image, simulate=4, env={"GPUS_METRICS_TOKEN": token}, after=MORE)
    folder = tmp_path_factory.mktemp("prometheus")
    with (
        run_hub(hub, docker_client),
        exporter(lambda: dcgm(hub.busy())) as gpus,
        exporter(lambda: list(cadvisor(docker_client))) as containers,
        prometheus(folder, token, places(hub, gpus, containers)) as found,
        people(hub, lambda: uncordon(hub)) as somebody,
    ):
        # counters that grow need a look at them before
        wait_for("a first look", 60, lambda: all_up(found))
        work(hub, somebody)
        wait_for("a look at all", 60, lambda: found.query("gpus_queue_length == 1"))
        yield found


MORE = """
c.GPUDockerSpawner.profile_list.append(
    dict(display_name="Three GPUs", slug="gpu3", spawner_override=dict(gpus=3))
)
c.GPUDockerSpawner.profile_list.append(
    dict(display_name="Nine GPUs", slug="gpu9", spawner_override=dict(gpus=9))
)
"""


def places(hub: TrialHub, gpus: str, containers: str) -> dict[str, str]:
    """Where each job looks."""
    site = hub.base.removeprefix("http://")
    return {"gpus": site, "jupyterhub": site, "dcgm": gpus, "cadvisor": containers}


def all_up(found: Prometheus) -> bool:
    """Whether each job got an answer."""
    return len(found.query("up == 1")) == 4


def work(hub: TrialHub, somebody: Any) -> None:
    """What the numbers will tell of."""
    start(somebody("ann"))
    gone = somebody("gone")
    start(gone)
    assert gone.api("DELETE", f"/users/{gone.name}/server").status_code in (202, 204)
    wait_for("the end of a server", 60, lambda: len(hub.busy()) == 1)
    free = next(row["id"] for row in hub.summary()["devices"] if row["state"] == "free")
    call(hub, "POST", f"devices/{free}/admin", json={"admin": "cordoned", "note": "fan"})
    somebody("nine").ask({"profile": "gpu9"})
    line_up(somebody("three"), "gpu3")


def uncordon(hub: TrialHub) -> None:
    """Open every GPU again."""
    for row in hub.summary()["devices"]:
        call(hub, "POST", f"devices/{row['id']}/admin", json={"admin": "open", "note": ""})


def expressions() -> list[Any]:
    """Every query of the dashboard, with the title of its panel."""
    board = json.loads((SHIPPED / "dashboard.json").read_text())
    found = []
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            text = target["expr"]
            for word, value in INTERVAL.items():
                text = text.replace(word, value)
            found.append(pytest.param(text, id=f"{panel['title']} {target['refId']}"))
    return found


@pytest.mark.parametrize("expression", expressions())
def test_every_query_of_the_dashboard_has_data(watched: Prometheus, expression: str) -> None:
    wait_for("data", 60, lambda: watched.query(expression))


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ('sum(gpus_devices{state="free"})', 2),
        ('sum(gpus_devices{state="busy"})', 1),
        ('sum(gpus_devices{reason="device_cordoned"})', 1),
        ("gpus_queue_length", 1),
        ("gpus_grants_total", 2),
        ('gpus_refusals_total{reason="impossible"}', 1),
        ('gpus_leases_ended_total{reason="stopped"}', 1),
        ('gpus_hub_starts_total{result="ready"}', 2),
        ("jupyterhub_running_servers", 1),
        ("gpus:held:ratio", 1 / 3),
        ("gpus:utilisation:ratio", 0.87),
        ("count(container_memory_working_set_bytes)", 1),
    ],
)
def test_the_numbers_are_those_of_what_happened(
    watched: Prometheus, expression: str, value: float
) -> None:
    wait_for(
        f"{expression} to be {value}",
        60,
        lambda: [float(row["value"][1]) for row in watched.query(expression)] == [value],
    )


def test_no_number_names_a_person(watched: Prometheus) -> None:
    assert watched.query('{lease=~".+", job="cadvisor"}')
    for job in ("gpus", "jupyterhub", "cadvisor"):
        rows = [row["metric"] for row in watched.query(f'{{job="{job}"}}')]
        assert rows
        assert [row for row in rows if any(PEOPLE.search(value) for value in row.values())] == []


def test_every_rule_is_evaluated_and_nothing_is_on_fire(watched: Prometheus) -> None:
    def settled() -> bool:
        rules = [rule for group in watched.get("rules")["groups"] for rule in group["rules"]]
        assert [rule for rule in rules if rule.get("lastError")] == []
        return len(rules) >= 11 and all(rule["health"] == "ok" for rule in rules)

    wait_for("all rules", 60, settled)
    assert watched.get("alerts")["alerts"] == []


def test_every_alert_fires_where_it_should_and_not_elsewhere() -> None:
    done = subprocess.run(
        ["promtool", "test", "rules", str(Path(__file__).with_name("alerts.yml"))],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
