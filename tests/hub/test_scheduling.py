"""Lengths, limits, estimates and reasons, from the form to the scheduler and back to the user."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jupyterhub
import pytest
import requests

from deploy.quickstart.trial import TrialHub, wait_for
from tests.hubs import run_hub

from .conftest import make_hub, plain, server_of
from .test_refusals import refused

pytestmark = pytest.mark.skipif(
    jupyterhub.version_info[0] < 6,
    reason="the form and the scheduler know nothing of the Hub's version; runs once",
)

HOUR = 3600
CONFIG = """
c.GPUScheduler.user_gpu_limit = 1
c.GPUDockerSpawner.profile_list += [
    {"display_name": "Classes", "slug": "classes",
     "spawner_override": {"gpus": 1, "mem_limit": "64M"},
     "profile_options": {"length": {"display_name": "How long?", "choices": {
         "short": {"display_name": "1 h", "spawner_override": {"length": "1h"}},
         "long": {"display_name": "24 h", "spawner_override": {"length": "24h"}}}}}},
    {"display_name": "Two", "slug": "two", "spawner_override": {"gpus": 2}},
]
"""


@pytest.fixture(scope="module")
def hub(engine: Any, docker_client: Any, stub_image: str) -> Iterator[TrialHub]:
    """A Hub with two GPUs, of which each user may have one."""
    with run_hub(make_hub(engine, stub_image, CONFIG), docker_client) as hub:
        yield hub


def told(hub: TrialHub, what: str) -> dict[str, dict[str, Any]]:
    """Whose server -> its row in the scheduler's list of leases or of requests."""
    token = (hub.state / "gpus" / "service-token").read_text().strip()
    with requests.Session() as web:
        web.trust_env = False  # no proxy of this machine's
        web.headers["Authorization"] = f"token {token}"
        rows = web.get(f"{hub.service}/api/{what}", timeout=20).json()["items"]
    return {row["server"]: row for row in rows}


def choose(person: Any, length: str) -> None:
    """The form, as a browser sends it."""
    form = {"profile": "classes", "profile-option-classes--length": length}
    answer = person.ask(form)
    assert answer.status_code == 200, plain(answer.text)


def test_a_length_chosen_in_the_form_orders_the_line_and_everybody_is_told_when_and_why(
    hub, somebody
):
    first, second = somebody("first"), somebody("second")
    for person in (first, second):
        choose(person, "long")
        person.wait(limit=60)
    lease = told(hub, "leases")[first.name]
    assert lease["ends_at"] - lease["granted_at"] == 24 * HOUR
    long, short = somebody("long"), somebody("short")
    choose(long, "long")
    wait_for("the line", 60, lambda: long.name in told(hub, "queue"))
    choose(short, "short")
    wait_for("both in line", 60, lambda: short.name in told(hub, "queue"))
    line = told(hub, "queue")
    # the shorter one came later, and is first
    assert (line[short.name]["position"], line[long.name]["position"]) == (1, 2)
    assert "All suitable GPUs are in use" in line[short.name]["message"]
    # nobody has ended yet, so that the lengths themselves are believed
    assert line[short.name]["expected_at"] == pytest.approx(lease["ends_at"], abs=60)
    assert line[long.name]["expected_at"] >= line[short.name]["expected_at"]
    assert "All suitable GPUs are in use" in plain(short.page("/services/gpus/"))
    # a second one of a user who has his part waits for himself alone
    first.api("POST", f"/users/{first.name}/servers/more", json={"profile": "classes"})
    wait_for("his own", 60, lambda: f"{first.name}/more" in told(hub, "queue"))
    told_more = told(hub, "queue")[f"{first.name}/more"]["message"]
    assert "as many GPUs as you may" in told_more
    assert "fewer GPUs" in refused(somebody("greedy"), "two")
    second.stop()
    wait_for("the short one", 60, lambda: (server_of(short) or {}).get("ready"))
    assert long.name in told(hub, "queue")
