"""Admins and group leaders at the service's API: what each may see and do."""

from __future__ import annotations

import pytest
import requests

from deploy.quickstart.trial import wait_for
from tests.hub.conftest import make_hub, server_of, start
from tests.hubs import run_hub

SCOPE = "custom:gpus:read!group=lab"
LED = f"""
c.JupyterHub.load_groups = dict(lab=dict(users=["ann-of-lab"]))
c.JupyterHub.load_roles = [dict(name="lead", users=["lea"], scopes=["{SCOPE}"])]
"""


@pytest.fixture(scope="module")
def hub(engine, docker_client, stub_image):
    """One with a group and its leader."""
    with run_hub(make_hub(engine, stub_image, LED), docker_client) as hub:
        yield hub


def ask(hub, token, method, path, **more):
    """The answer at the service."""
    return requests.request(
        method,
        f"{hub.service}/api/{path}",
        headers={"Authorization": f"token {token}"},
        timeout=30,
        proxies={"http": ""},
        **more,
    )


def call(hub, method, path, **more):
    """What it answers to who has its own token."""
    token = (hub.state / "gpus" / "service-token").read_text().strip()
    answer = ask(hub, token, method, path, **more)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_an_evicted_user_reads_the_admins_words(hub, somebody, docker_client):
    alice = somebody("alice")
    start(alice)
    (lease,) = (row for row in call(hub, "GET", "leases")["items"] if row["server"] == alice.name)
    call(hub, "POST", f"leases/{lease['id']}/evict", json={"message": "the <b>fan</b> is replaced"})
    wait_for("the end of the server", 60, lambda: not server_of(alice))
    wait_for("free GPUs", 60, lambda: not set(lease["devices"]) & hub.busy())
    assert "stopped by an administrator: the &lt;b&gt;fan&lt;/b&gt; is replaced" in alice.form()


def test_a_leaders_token_sees_the_group_and_nobody_else(hub, somebody):
    ann, bob, lea = hub.person("ann-of-lab"), somebody("bob"), hub.person("lea")
    start(ann)
    start(bob)
    carl = somebody("carl")
    carl.api("POST", f"/users/{carl.name}/server", json={"profile": "gpu"})
    wait_for("the queue", 20, lambda: hub.summary()["queue"] == 1)
    more = lea.api("POST", "/users/lea/tokens", json={"scopes": ["custom:gpus:read"]})
    assert more.status_code == 400, "a token gets more than its owner has"
    token = lea.api("POST", "/users/lea/tokens", json={"scopes": [SCOPE]}).json()["token"]
    seen = {}
    for part in ("leases", "devices", "queue", "groups", "usage?by=user"):
        answer = ask(hub, token, "GET", part)
        assert answer.status_code == 200, answer.text
        assert bob.name not in answer.text and carl.name not in answer.text
        seen[part] = answer.json()["items"]
    assert [row["server"] for row in seen["leases"]] == [ann.name]
    assert sorted(row["used_by"] for row in seen["devices"]) == [ann.name, "in use"]
    assert len(seen["queue"]) == 1, "that somebody waits is for everybody to see"
    assert [row["name"] for row in seen["groups"]] == ["lab"]
    assert [row["who"] for row in seen["usage?by=user"]] == [ann.name]
    (lease,) = seen["leases"]
    assert ask(hub, token, "GET", "journal").status_code == 403
    evict = ask(hub, token, "POST", f"leases/{lease['id']}/evict", json={"message": ""})
    assert evict.status_code == 403
    ann.stop()
