"""SSH into one's own server: a real client, through a real Hub's address, and no published port."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.quickstart.trial import ROOT, TrialHub, wait_for
from jupyterhub_gpuspawner.engine import labels
from tests import howto

#: in a terminal of JupyterLab, and on the user's machine
ONCE, EACH_TIME = howto.blocks("ssh", __file__)


class Client:
    """A user's own machine: a home with a key, the token and the program of the how-to."""

    def __init__(self, home: Path, hub: TrialHub, name: str, token: str) -> None:
        self.home, self.hub, self.name = home, hub, name
        self.ssh = home / ".ssh"
        self.ssh.mkdir(mode=0o700)
        shutil.copy(ROOT / "deploy" / "ssh" / "gpus-ssh-proxy", self.ssh)
        self.key = self.ssh / "id_ed25519"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.key], check=True)
        (self.ssh / "gpus-token").touch(mode=0o600)
        (self.ssh / "gpus-token").write_text(token)

    def call(self, command: str) -> subprocess.CompletedProcess[str]:
        """The line of the how-to, with a command at its end."""
        # ssh finds its files by the account and not by HOME
        where = f"-F none -i {self.key} -o UserKnownHostsFile={self.ssh}/known"
        how = "-o StrictHostKeyChecking=accept-new -o BatchMode=yes -o LogLevel=ERROR"
        full = EACH_TIME.strip().replace("ssh", f"ssh {where} {how}", 1)
        return subprocess.run(
            ["bash", "-euc", f"{full} {shlex.quote(command)}"],
            env={**os.environ, "HOME": str(self.home), "HUB": self.hub.base, "NAME": self.name},
            capture_output=True,
            text=True,
            timeout=120,
        )


def token_of(person: Any) -> str:
    scope = f"access:servers!server={person.name}/"
    answer = person.api("POST", f"/users/{person.name}/tokens", json={"scopes": [scope]})
    return str(answer.json()["token"])


@pytest.fixture(scope="module")
def ann(hub: TrialHub) -> Iterator[Any]:
    """A user with a server."""
    person = hub.person("ann-ssh")
    assert person.ask({"profile": "cpu"}).status_code == 200
    person.wait(limit=180)
    yield person
    person.stop()
    wait_for("no server", 60, lambda: not person.api("GET", "/user").json()["servers"])


@pytest.fixture(scope="module")
def container(ann: Any, docker_client: Any) -> Any:
    chosen = [f"{labels.KIND}=server", f"{labels.USER}={ann.name}"]
    (found,) = docker_client.containers.list(filters={"label": chosen})
    return found


def exec_in(container: Any, script: str) -> Any:
    """Run it, once more where the engine's runtime lost the process before the script began."""
    done = container.exec_run(["sh", "-c", script])
    if b"unable to start container process" in done.output:
        done = container.exec_run(["sh", "-c", script])
    return done


@pytest.fixture(scope="module")
def client(
    hub: TrialHub, ann: Any, container: Any, tmp_path_factory: pytest.TempPathFactory
) -> Client:
    """Ann's machine; its key is in her server's home."""
    mine = Client(tmp_path_factory.mktemp("ann"), hub, ann.name, token_of(ann))
    public = mine.key.with_suffix(".pub").read_text().strip()
    script = ONCE.replace("ssh-ed25519 AAAA… you@laptop", public)
    assert public in script
    done = exec_in(container, f"set -e\n{script}")
    assert done.exit_code == 0, done.output
    return mine


def test_the_line_of_the_how_to_leads_into_the_server(client: Client, container: Any) -> None:
    done = client.call("id -un; hostname; command -v python; echo $NVIDIA_VISIBLE_DEVICES")
    assert done.returncode == 0, done.stderr
    said = ["jovyan", container.attrs["Config"]["Hostname"], "/opt/conda/bin/python", "void"]
    assert done.stdout.split() == said
    assert not container.attrs["NetworkSettings"]["Ports"]["8888/tcp"], "no port is published"


def test_it_carries_a_megabyte_unharmed(client: Client) -> None:
    done = client.call("head -c 1000000 /dev/zero | tr '\\0' x")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "x" * 1_000_000


def test_a_key_that_is_not_the_users_is_refused_and_no_password_is_asked(
    client: Client, hub: TrialHub, tmp_path: Path
) -> None:
    other = Client(tmp_path, hub, client.name, (client.ssh / "gpus-token").read_text())
    done = other.call("id")
    assert done.returncode != 0 and "Permission denied (publickey)" in done.stderr


def test_another_users_token_does_not_open_it(
    client: Client, hub: TrialHub, tmp_path: Path
) -> None:
    stranger = Client(tmp_path, hub, client.name, token_of(hub.person("eve-ssh")))
    done = stranger.call("id")
    assert done.returncode != 0 and "gpus-ssh-proxy: the Hub answered 403" in done.stderr


def test_a_token_that_others_can_read_is_not_used(client: Client, tmp_path: Path) -> None:
    careless = Client(tmp_path, client.hub, client.name, "x")
    (careless.ssh / "gpus-token").chmod(0o644)
    done = careless.call("id")
    assert done.returncode != 0 and "can be read by others" in done.stderr
