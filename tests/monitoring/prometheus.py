"""Debian's Prometheus with the configuration that we ship, asked over its API."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from deploy.quickstart.trial import ROOT, wait_for

SHIPPED = ROOT / "deploy" / "monitoring"


class Prometheus:
    """One that runs."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._web = requests.Session()
        self._web.trust_env = False

    def get(self, path: str, **query: str) -> Any:
        """What the API answers, without its envelope."""
        answer = self._web.get(f"{self._url}/api/v1/{path}", params=query, timeout=10)
        body = answer.json()
        assert body["status"] == "success", body
        return body["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """What an expression gives now."""
        found: list[dict[str, Any]] = self.get("query", query=expression)["result"]
        return found

    def value(self, expression: str) -> float:
        """The only number that it gives."""
        (row,) = self.query(expression)
        return float(row["value"][1])

    def ready(self) -> bool:
        """Whether it answers."""
        try:
            return self._web.get(f"{self._url}/-/ready", timeout=5).status_code == 200
        except requests.RequestException:
            return False


@contextmanager
def prometheus(folder: Path, token: str, places: Mapping[str, str]) -> Iterator[Prometheus]:
    """Run it. ``places``: job -> host and port to ask instead of the shipped ones."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("no Prometheus: apt-get install prometheus")
    config = yaml.safe_load((SHIPPED / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    assert {job["job_name"] for job in config["scrape_configs"]} == set(places)
    for job in config["scrape_configs"]:
        job["static_configs"] = [{"targets": [places[job["job_name"]]]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    shutil.copyfile(SHIPPED / "rules.yml", folder / "rules.yml")
    (folder / "token").write_text(token)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [
        program,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
    ]
    with open(folder / "log", "wb") as log, subprocess.Popen(command, stderr=log) as process:
        found = Prometheus(f"http://{address}")
        try:
            wait_for("Prometheus", 60, found.ready)
            yield found
        finally:
            process.terminate()
            print((folder / "log").read_text()[-3000:])  # pytest shows it where a test failed
