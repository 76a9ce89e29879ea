"""``deploy/compose.yml``, really deployed: TLS, a server, an upgrade, down and up, a backup."""

from __future__ import annotations

import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from jupyterhub_gpuspawner.engine import labels
from tests.deploy.conftest import until
from tests.deploy.pages import commands
from tests.hub.conftest import container_of, facts, server_of, start

SERVICES = {"engine", "database", "backup", "scheduler", "proxy", "hub", "tls"}
RELEASE = "jupyterhub-gpuspawner.release"


def busy(site: Any) -> set[str]:
    return {d["id"] for d in site.summary()["devices"] if d["state"] != "free"}


@pytest.fixture
def alice(site: Any) -> Iterator[Any]:
    """Somebody with a server that holds a GPU."""
    person = site.person("alice")
    if not (server_of(person) or {}).get("ready"):
        start(person)
    yield person


@contextmanager
def visited(person: Any) -> Iterator[list[str]]:
    """A browser that looks at the person's server all the time; what went wrong."""
    wrong: list[str] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.1):
            try:
                answer = person.visit("/facts")
                if answer.status_code != 200:
                    wrong.append(f"{answer.status_code} {answer.text[:200]}")
            except requests.RequestException as error:
                wrong.append(repr(error))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield wrong
    finally:
        over.set()
        thread.join(60)


def test_one_command_brings_up_every_part_and_says_when_it_is_well(site: Any) -> None:
    assert site.services() == dict.fromkeys(SERVICES, "healthy")
    assert stat.S_IMODE(site.env_file.stat().st_mode) == 0o600
    # again: nothing is made anew, nothing is started again
    before = {name: site.container(name).id for name in SERVICES}
    secrets = site.read_settings()
    said = site.up("--no-images")
    assert "the site is up" in said
    assert {name: site.container(name).id for name in SERVICES} == before
    assert site.read_settings() == secrets


def test_no_container_may_more_than_it_needs(site: Any) -> None:
    for name in SERVICES:
        container = site.container(name)
        host = container.attrs["HostConfig"]
        assert host["Memory"] > 0 and host["NanoCpus"] > 0 and host["PidsLimit"] > 0, name
        assert host["ReadonlyRootfs"] and host["CapDrop"] == ["ALL"], name
        assert host["LogConfig"]["Config"]["max-size"], name
        # root is only who stands before Docker's socket
        code, uid = container.exec_run(["id", "-u"])
        assert code == 0 and (uid.strip() == b"0") == (name == "engine"), name
    # the Hub asks Docker through the gate, which lets no volume be removed
    code, answer = site.container("hub").exec_run(
        [
            "python",
            "-c",
            "import docker; docker.from_env().volumes.get('gpus_hub').remove(force=True)",
        ]
    )
    assert code != 0 and b"403" in answer, answer
    # nobody from outside reaches the database or the proxy's own API
    assert [name for name in SERVICES if site.container(name).ports.get("8443/tcp")] == ["tls"]
    for name in SERVICES - {"tls"}:
        assert not any(site.container(name).ports.values()), name


def test_who_comes_without_tls_is_sent_to_it(site: Any) -> None:
    answer = requests.get(
        f"http://127.0.0.1:{site.http}/hub/login?next=x", allow_redirects=False, timeout=30
    )
    assert answer.status_code == 301
    assert answer.headers["Location"] == f"{site.base}/hub/login?next=x"
    page = site.web().get(f"{site.base}/hub/login", timeout=30)
    assert page.status_code == 200
    assert "max-age" in page.headers["Strict-Transport-Security"]
    # JupyterHub leaves the one against forged requests plain; those that say who somebody is:
    cookies = {cookie.name: cookie for cookie in site.person("dave")._web.cookies}
    assert cookies["jupyterhub-hub-login"].secure and cookies["jupyterhub-session-id"].secure


def test_a_user_signs_in_over_tls_and_gets_a_gpu_of_the_external_scheduler(
    site: Any, machine: Any, alice: Any
) -> None:
    (device,) = facts(site, alice, machine)["gpus"]
    assert busy(site) == {device}
    answer = alice.visit("/facts")
    assert answer.status_code == 200 and answer.json()["gpus"] == [device]
    # the scheduler's page: it asks the Hub who comes, by its own OAuth
    page = alice.page("/services/gpus/")
    assert device in page and "alice" in page
    # the home survives the container, as always
    assert container_of(machine, alice).labels[labels.LEASE] == site.leases()["alice"]


def test_an_upgrade_of_the_hub_loses_nothing(
    site: Any, bring: Any, machine: Any, alice: Any
) -> None:
    bob, carol = site.person("bob"), site.person("carol")
    start(bob)
    # no GPU is left
    assert carol.ask({"profile": "gpu"}).status_code == 200
    until("carol in the queue", 180, lambda: site.summary()["queue"] == 1)
    container, lease = container_of(machine, alice), site.leases()["alice"]
    old = {name: site.container(name).id for name in SERVICES}
    bring("two")
    with visited(alice) as wrong:
        site.up("--no-images")
    assert wrong == []
    for name in ("hub", "scheduler"):
        assert site.container(name).id != old[name]
        assert site.container(name).labels[RELEASE] == "two"
    # what carries browsers and data stays as it is
    for name in ("tls", "proxy", "engine", "database"):
        assert site.container(name).id == old[name], name
    after = container_of(machine, alice)
    assert after.id == container.id
    assert after.attrs["State"]["StartedAt"] == container.attrs["State"]["StartedAt"]
    assert site.leases()["alice"] == lease
    until("alice's server", 180, lambda: (server_of(alice) or {}).get("ready"))
    # who waited waits again, by herself, and is next
    until("carol in the queue again", 180, lambda: site.summary()["queue"] == 1)
    bob.stop()
    until("carol's server", 180, lambda: (server_of(carol) or {}).get("ready"))
    carol.stop()
    until("a free GPU", 180, lambda: len(busy(site)) == 1)


def test_a_new_proxy_reaches_the_servers_that_run(site: Any, machine: Any, alice: Any) -> None:
    container, proxy = container_of(machine, alice), site.container("proxy").id
    site.compose("up", "--detach", "--wait", "--force-recreate", "--no-deps", "proxy")
    site.compose("up", "--detach", "--wait")
    assert site.container("proxy").id != proxy
    site.compose("restart", "hub")
    until("the server behind the new proxy", 180, lambda: alice.visit("/facts").status_code == 200)
    assert container_of(machine, alice).id == container.id


def test_the_commands_of_the_documentation_work(site: Any, tmp_path: Path) -> None:
    for command in commands("compose"):
        site.shell(command, tmp_path)
    # the page ends with `down`
    assert site.services() == {}
    site.up("--no-images")
    assert site.services() == dict.fromkeys(SERVICES, "healthy")


def test_down_and_up_again_finds_the_servers_that_ran_on(
    site: Any, machine: Any, alice: Any
) -> None:
    container, lease = container_of(machine, alice), site.leases()["alice"]
    started = container.attrs["State"]["StartedAt"]
    site.compose("down")
    assert site.services() == {}
    container.reload()
    assert container.status == "running"
    site.up("--no-images")
    until("alice's server", 180, lambda: (server_of(alice) or {}).get("ready"))
    container.reload()
    assert container.attrs["State"]["StartedAt"] == started
    assert site.leases() == {"alice": lease}
    until("the way to it", 180, lambda: alice.visit("/facts").status_code == 200)


def test_a_backup_is_made_by_itself_and_brings_back_what_was(
    site: Any, machine: Any, alice: Any
) -> None:
    # the first one came by itself, when the site was up
    assert site.compose("exec", "-T", "backup", "backup", "list").split()
    container = container_of(machine, alice)
    name = site.compose("exec", "-T", "backup", "backup", "now").strip().split("\n")[-1]
    lease = site.leases()["alice"]
    refused = site.container("backup").exec_run(["backup", "restore", name])
    assert refused.exit_code == 1 and b"stop hub and scheduler first" in refused.output
    site.compose("stop", "hub", "scheduler")
    site.ask("hub", "DELETE FROM users")
    site.ask("ledger", "UPDATE leases SET live = false")
    said = site.compose("exec", "-T", "backup", "backup", "restore", name)
    assert f"restored {name}" in said
    site.up("--no-images")
    until("alice's server", 180, lambda: (server_of(alice) or {}).get("ready"))
    assert site.leases() == {"alice": lease}
    assert container_of(machine, alice).id == container.id
    alice.stop()
    until("free GPUs", 180, lambda: not busy(site))


def test_a_wrong_setting_is_one_line_and_what_runs_runs_on(site: Any) -> None:
    before = site.container("hub").id
    text = site.env_file.read_text()
    site.env_file.chmod(0o644)
    try:
        with pytest.raises(AssertionError, match="others can read it"):
            site.up("--no-images")
        site.env_file.chmod(0o600)
        site.env_file.write_text(text.replace("GPUS_HUB_TOKEN=", "NOT_THERE="))
        with pytest.raises(AssertionError, match="GPUS_HUB_TOKEN"):
            site.compose("up", "--detach")
    finally:
        site.env_file.write_text(text)
        site.env_file.chmod(0o600)
    assert site.container("hub").id == before
