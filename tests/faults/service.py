"""The scheduler service of the fault tests, and a look into its ledger."""

from __future__ import annotations

import sqlite3
import subprocess
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
