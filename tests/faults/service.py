"""The scheduler service of the fault tests, and a look into its ledger."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import urllib.request
from contextlib import closing
from typing import Any

from tests.docker.service_process import Service


class FaultService(Service):
    """A service whose leases can be read from outside, as plain SQL."""

    @property
    def ledger_file(self) -> Any:
        return self.state / "ledger.sqlite"

    def ledger_id(self) -> str:
        """The ledger's id."""
        with closing(sqlite3.connect(self.ledger_file, timeout=10)) as ledger:
            return str(ledger.execute("SELECT ledger FROM meta").fetchone()[0])

    def change(self, **options: Any) -> None:
        """Other options from the next start on."""
        config = json.loads(self.config.read_text())
        config["GPUScheduler"].update(options)
        self.config.write_text(json.dumps(config))

    def pause(self) -> None:
        """Have the scheduler hang: its port accepts, and nobody answers."""
        pid = self.scheduler_pid()
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)

    def resume(self) -> None:
        """End :meth:`pause`."""
        pid = self.scheduler_pid()
        assert pid is not None
        os.kill(pid, signal.SIGCONT)

    def metric(self, name: str) -> float:
        """A number of its metrics."""
        request = urllib.request.Request(
            f"{self.base}metrics", headers={"Authorization": f"token {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            lines = answer.read().decode().splitlines()
        return float(next(line.split()[-1] for line in lines if line.startswith(f"{name} ")))

    def end(self) -> None:
        """Stop it, whatever state a failed test left it in."""
        process, self.process = self.process, None
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)

    def leases(self) -> list[tuple[str, str]]:
        """(user, device) for each claim in the ledger; ("…", "") for a lease without devices."""
        query = """SELECT leases.username, claims.device FROM leases
                   LEFT JOIN claims ON claims.lease_id = leases.id WHERE leases.live"""
        with closing(sqlite3.connect(self.ledger_file, timeout=10)) as ledger:
            return [(user, device or "") for user, device in ledger.execute(query)]
