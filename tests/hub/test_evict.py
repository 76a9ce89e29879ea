"""An admin stops somebody's server; its user reads why."""

from __future__ import annotations

import requests

from deploy.quickstart.trial import wait_for
from tests.hub.conftest import server_of, start


def call(hub, method, path, **more):
    token = (hub.state / "gpus" / "service-token").read_text().strip()
    answer = requests.request(
        method,
        f"{hub.service}/api/{path}",
        headers={"Authorization": f"token {token}"},
        timeout=30,
        proxies={"http": ""},
        **more,
    )
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
