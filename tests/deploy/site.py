"""The site of ``deploy/compose.yml`` on the testbed's engine, as its administrator has it."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import docker
import requests

from deploy.compose import envfile
from deploy.quickstart.person import Person
from deploy.quickstart.trial import ROOT, free_ports
from tests.testbed import rootfs
from tests.testbed.engine import Engine

UP = ROOT / "deploy" / "compose" / "up"
FILE = ROOT / "deploy" / "compose.yml"
PROJECT = "gpus"
#: seconds for one command
LIMIT = 420


class Site:
    """One site; ``folder`` has its env file, and nothing else of it is on this machine."""

    def __init__(
        self, engine: Engine, client: docker.DockerClient, folder: Path, *, image: str
    ) -> None:
        self.client = client
        self.env_file = folder / "env"
        self.https, self.http = free_ports(2)
        self.base = f"https://127.0.0.1:{self.https}"
        self.settings = {
            "GPUS_PUBLIC_URL": self.base,
            "SITE_BIND": "127.0.0.1",
            "SITE_HTTPS_PORT": str(self.https),
            "SITE_HTTP_PORT": str(self.http),
            "SITE_SELF_SIGNED": "yes",
            # as the engine sees it
            "SITE_DOCKER_SOCKET": "/out/docker.sock",
            "GPUS_NODE_NAME": engine.node,
            "GPUS_SIMULATE": "2",
            "GPUS_IMAGE": image,
        }
        self._certificate = folder / "site.crt"
        self._program = rootfs.ensure_compose()
        self._environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("GPUS_", "SITE_"))},
            "PATH": os.pathsep.join([str(self._program.parent), os.environ["PATH"]]),
            "DOCKER_HOST": engine.base_url,
            "PYTHONPATH": str(ROOT),
        }

    def up(self, *options: str) -> str:
        """The one command; what it said."""
        settings = [f"{name}={value}" for name, value in self.settings.items()]
        command = [UP, "--python", sys.executable, "--env-file", self.env_file, *options, *settings]
        return self._run([str(part) for part in command])

    def compose(self, *arguments: str) -> str:
        """``docker compose``, as the documentation has it; what it said."""
        fixed = ["--env-file", str(self.env_file), "-f", str(FILE)]
        return self._run([str(self._program), *fixed, *arguments])

    def shell(self, command: str, folder: Path) -> str:
        """A line of the documentation, with its compose as a part of Docker's command."""
        docker_program = folder / "docker"
        docker_program.write_text(f'#!/bin/sh\nshift\nexec {self._program} "$@"\n')
        docker_program.chmod(0o755)
        path = f"{folder}{os.pathsep}{self._environment['PATH']}"
        # in place of deploy/.env
        more = {"PATH": path, "COMPOSE_ENV_FILES": str(self.env_file)}
        return self._run(["bash", "-euc", command], more)

    def _run(self, command: list[str], more: Mapping[str, str] | None = None) -> str:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**self._environment, "SITE_ENV_FILE": str(self.env_file), **(more or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-6000:]}"
        return done.stdout

    def read_settings(self) -> dict[str, str]:
        """The env file."""
        return envfile.read(self.env_file.read_text())

    def container(self, service: str) -> Any:
        """The one container of a service."""
        chosen = [f"com.docker.compose.service={service}"]
        (container,) = self.client.containers.list(all=True, filters={"label": chosen})
        return container

    def services(self) -> dict[str, str]:
        """Service -> what its health check says."""
        chosen = f"com.docker.compose.project={PROJECT}"
        return {
            container.labels["com.docker.compose.service"]: container.health
            for container in self.client.containers.list(all=True, filters={"label": chosen})
        }

    def web(self) -> requests.Session:
        """A browser that trusts the site's own certificate and no other."""
        if not self._certificate.exists():
            self._certificate.write_text(ssl.get_server_certificate(("127.0.0.1", self.https)))
        session = requests.Session()
        session.trust_env = False
        session.verify = str(self._certificate)
        return session

    def person(self, name: str, *, admin: bool = False) -> Person:
        """Somebody who has signed in over TLS."""
        secrets = self.read_settings()
        person = Person(
            self.base, name, secrets["GPUS_ADMIN_PASSWORD" if admin else "GPUS_PASSWORD"]
        )
        person._web = self.web()
        person.login()
        return person

    def summary(self) -> dict[str, Any]:
        """What the scheduler says about devices and queue; from inside its container."""
        code = (
            "import os, urllib.request as u; print(u.urlopen(u.Request("
            "'http://127.0.0.1:8750/services/gpus/api/internal/summary', headers={'Authorization':"
            "'token ' + os.environ['GPUS_SERVICE_TOKEN']}), timeout=20).read().decode())"
        )
        status, output = self.container("scheduler").exec_run(["python", "-c", code])
        assert status == 0, output
        found: dict[str, Any] = json.loads(output)
        return found

    def leases(self) -> dict[str, str]:
        """User -> id of the lease, by the ledger itself."""
        query = "SELECT username || ' ' || id FROM leases WHERE live"
        return dict(line.split(" ") for line in self.ask("ledger", query))

    def ask(self, database: str, query: str) -> list[str]:
        """The rows that a query of one of the databases gives, as its administrator."""
        command = ["psql", "-h", "/tmp", "-U", "postgres", "-AtXc", query, database]
        status, output = self.container("database").exec_run(command, user="postgres")
        assert status == 0, output
        return output.decode().split("\n")[:-1]

    def last_words(self) -> str:
        """The ends of all logs, for a test that failed."""
        chosen = f"com.docker.compose.project={PROJECT}"
        parts = []
        for container in self.client.containers.list(all=True, filters={"label": chosen}):
            log = container.logs(tail=25).decode(errors="replace")
            parts.append(f"--- {container.name}: {container.status}\n{log}")
        return "\n".join(parts)
