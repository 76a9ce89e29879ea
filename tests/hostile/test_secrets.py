"""No token, key or password in anything that is kept, shown, logged or measured."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import pytest

from deploy.quickstart.person import PersonError
from deploy.quickstart.trial import wait_for
from tests.testbed.processes import descendants

#: an environment variable of a process, or of a container, with a secret
SECRET_VARIABLES = ("JUPYTERHUB_API_TOKEN", "JPY_API_TOKEN", "CONFIGPROXY_AUTH_TOKEN")


def environment(pid: int) -> dict[str, str]:
    """A process's environment; empty where it has ended."""
    with suppress(OSError):
        data = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
        return dict(text.partition("=")[::2] for text in data.split("\0"))
    return {}


def secret_variables(env: dict[str, str], whose: str) -> dict[str, str]:
    """The secrets in an environment."""
    return {f"{name} of {whose}": env[name] for name in SECRET_VARIABLES if env.get(name)}


@pytest.fixture(scope="module")
def run(hub, docker_client) -> Iterator[dict[str, str]]:
    """Servers, failures and refusals; then all secrets that there were, by what they are."""
    secrets = {
        "password": hub.password,
        "admin's password": hub.admin_password,
        "service token": (hub.state / "gpus" / "service-token").read_text().strip(),
        "cookie secret": (hub.state / "cookie_secret").read_text().strip(),
    }
    ann, bob, admin = hub.person("ann"), hub.person("bob"), hub.person("admin", admin=True)
    for person in (ann, bob, admin):
        answer = person.api("POST", f"/users/{person.name}/tokens", json={"note": "mine"})
        secrets[f"{person.name}'s token"] = answer.json()["token"]
        secrets |= {
            f"{person.name}'s cookie {cookie.name}": cookie.value
            for cookie in person._web.cookies
            # these two prove nothing by themselves, and the Hub logs them
            if cookie.name not in ("_xsrf", "jupyterhub-session-id")
        }
    ann.ask({"profile": "gpu"})
    ann.wait(limit=90)
    ann.page("/services/gpus/")
    # a failure, refusals, and what is odd
    with suppress(PersonError):
        if bob.ask({"profile": "dies"}).status_code == 200:
            bob.wait(limit=90)
    for options in ({"profile": "many"}, {"profile": "big"}, {"profile": secrets["bob's token"]}):
        bob.api("POST", "/users/bob/server", json=options)
    bob.ask({"profile": "plain"})
    bob.wait(limit=90)
    for container in docker_client.containers.list(all=True):
        env = dict(text.partition("=")[::2] for text in container.attrs["Config"]["Env"])
        secrets |= secret_variables(env, container.name)
    for pid in descendants(hub.pid):
        secrets |= secret_variables(environment(pid), f"process {pid}")
    assert sum("JUPYTERHUB_API_TOKEN" in what for what in secrets) >= 3
    assert any("CONFIGPROXY" in what for what in secrets)
    yield secrets
    for person in (ann, bob):
        person.stop()
    wait_for("free GPUs", 60, lambda: not hub.busy())


def found_in(secrets: dict[str, str], text: str | bytes) -> list[str]:
    """Which secrets are in a text."""
    data = text.encode(errors="replace") if isinstance(text, str) else text
    return [what for what, secret in secrets.items() if secret.encode() in data]


def test_no_secret_is_in_a_label_or_in_the_arguments_of_a_container(run, docker_client):
    things = docker_client.containers.list(all=True)
    assert things
    for thing in [*things, *docker_client.volumes.list(), *docker_client.networks.list()]:
        labels = thing.attrs.get("Labels") or (thing.attrs.get("Config") or {}).get("Labels")
        assert not found_in(run, json.dumps(labels)), thing
        config = thing.attrs.get("Config") or {}
        assert not found_in(run, json.dumps([config.get("Cmd"), thing.attrs.get("Args")]))
        assert not found_in(run, thing.attrs.get("Name", ""))


def test_no_secret_is_in_the_logs_of_hub_proxy_and_service(hub, run):
    log = hub.log()
    assert "granted" in log
    wrong = found_in(run, log)
    lines = [line for line in log.splitlines() if found_in(run, line)]
    assert not wrong, (wrong, [line[:150] for line in lines[:5]])


def test_no_secret_is_in_the_ledger_or_in_the_service_s_options(hub, run):
    files = [path for path in (hub.state / "gpus").rglob("*") if path.is_file()]
    assert any(path.name == "ledger.sqlite" for path in files)
    for path in files:
        if path.name != "service-token":
            assert not found_in(run, path.read_bytes()), path


def test_files_with_secrets_are_for_their_owner_only(hub, run):
    for path in hub.state.rglob("*"):
        if path.is_file() and found_in(run, path.read_bytes()):
            # the folder that all of them are in is closed as well
            assert path.stat().st_mode & 0o077 == 0 or hub.state.stat().st_mode & 0o077 == 0, path
    token = hub.state / "gpus" / "service-token"
    assert token.stat().st_mode & 0o077 == 0


def test_no_secret_is_measured(hub, run):
    admin = hub.person("admin", admin=True)
    admin.page("/services/gpus/")  # logs in there: the metrics themselves ask nobody to
    for path in ("/hub/metrics", "/services/gpus/metrics"):
        text = admin.page(path)
        assert "# HELP" in text
        assert not found_in(run, text), path


@pytest.mark.parametrize(
    "path",
    [
        "/services/gpus/",
        "/services/gpus/nothing",
        "/services/gpus/api/health",
        "/services/gpus/api/internal/summary",
        "/services/gpus/oauth_callback?code=x&state=y",
        "/services/gpus/oauth_callback?error=x",
        "/hub/spawn/bob?profile=big",
        "/hub/spawn/bob?profile=%00",
        "/hub/nothing",
        "/user/bob/nothing",
        "/user/ann/",
    ],
)
def test_no_secret_is_on_a_page_or_in_an_error(hub, run, path):
    bob = hub.person("bob")
    own = {value for value in bob._web.cookies.get_dict().values()}
    answer = bob._web.get(hub.base + path, timeout=60)
    shown = {what for what in found_in(run, answer.text) if run[what] not in own}
    assert not shown, (answer.status_code, shown)
    assert "Traceback" not in answer.text


def test_no_secret_is_in_the_answers_of_the_service(hub, run):
    assert not found_in(run, json.dumps(hub.summary()))
    admin = hub.person("admin", admin=True)
    for path in ("/users", f"/users/{quote('ann')}", "/services", "/services/gpus", "/proxy"):
        assert not found_in(run, admin.api("GET", path).text), path


def test_no_secret_is_in_the_arguments_of_a_process(hub, run, docker_client):
    pids = descendants(hub.pid)
    for container in docker_client.containers.list():
        pids |= descendants(container.attrs["State"]["Pid"])
    assert len(pids) > 4
    for pid in pids:
        with suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
            assert not found_in(run, words), words.split(b"\0")[:3]
