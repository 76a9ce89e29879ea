"""The OpenID provider of the tests: the npm package ``oidc-provider``, on loopback."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

from deploy.quickstart.trial import wait_for

SCRIPT = Path(__file__).with_name("provider.mjs")
#: seconds for it to listen: a loaded machine takes its time to compile the package
LIMIT = 60.0


def missing() -> str | None:
    """Why it can't run here; None = it can."""
    if shutil.which("node") is None:
        return "no OpenID provider: node is not installed"
    if not SCRIPT.with_name("node_modules").is_dir():
        return f"no OpenID provider: npm install --prefix {SCRIPT.parent} oidc-provider"
    return None


class Provider:
    """A provider that knows some people. ``folder``: where their list is kept."""

    client_id = "gpu-hub"
    client_secret = "only-for-tests-0123456789"

    def __init__(self, folder: Path, redirect: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.base = f"http://127.0.0.1:{self.port}"
        self._redirect = redirect
        self._people: dict[str, Any] = {}
        self._file = folder / "people.json"
        self._log = folder / "provider.log"
        self._process: subprocess.Popen[bytes] | None = None

    def knows(self, name: str, *groups: str) -> None:
        """Have somebody be in these groups, and in no others, from now on."""
        self._people[name] = {"groups": list(groups)}
        draft = self._file.with_suffix(".new")
        draft.write_text(json.dumps(self._people))
        draft.replace(self._file)

    def start(self) -> None:
        """Start it, and wait until it listens."""
        words = [self.client_id, self.client_secret, self._redirect, str(self._file)]
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                ["node", str(SCRIPT), str(self.port), *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_for("the OpenID provider", LIMIT, self._listens)

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        """Kill it: nobody answers on its port afterwards."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
