"""What the stock ``jupyterhub-idle-culler`` may stop here: servers without GPUs, and no others.

It judges by the Hub's ``last_activity``, for which an open browser is enough and a computing
kernel is not. That is good enough where nobody waits for what the server holds. About servers
with GPUs the scheduler decides.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import aiohttp

from .lifeline import die_with_parent

log = logging.getLogger("gpus.culler")

#: variables of the service: where the scheduler's API is, and the file with its token
API, TOKEN_FILE = "GPUS_CULLER_API", "GPUS_CULLER_TOKEN_FILE"
#: the token itself, in place of the file
TOKEN_VARIABLE = "GPUS_SERVICE_TOKEN"
#: seconds for the scheduler to answer, and leases it is asked for at a time
ANSWER, MANY = 15.0, 1000


def server_of(model: dict[str, Any]) -> str:
    """``user`` or ``user/server``, as a lease has it, of the Hub's model of a server."""
    user = unquote(str(model["url"]).rpartition("/user/")[2].partition("/")[0])
    name = str(model.get("name") or "")
    return f"{user}/{name}" if name else user


async def without_gpus(inactive: timedelta, inactive_limit: int, server: dict[str, Any]) -> bool:
    """Whether the culler stops a server: it is idle, and known to hold no GPU."""
    if inactive is None or inactive.total_seconds() < inactive_limit:
        return False
    name = server_of(server)
    try:
        held = await _devices(name)
    except (aiohttp.ClientError, OSError, TimeoutError, KeyError, ValueError) as error:
        log.warning("%s: left alone, the scheduler can't be asked: %r", name, error)
        return False
    if held is None:
        log.warning("%s: left alone, the scheduler does not know it", name)
    return held == []


async def _devices(server: str) -> list[str] | None:
    """Ids of the GPUs that a server holds; None = the scheduler knows no such server."""
    headers = {"Authorization": f"token {_token()}"}
    limits = aiohttp.ClientTimeout(total=ANSWER)
    async with aiohttp.ClientSession(timeout=limits, headers=headers) as http:
        seen = 0
        while True:
            url = f"{os.environ[API]}leases?limit={MANY}&offset={seen}"
            async with http.get(url, raise_for_status=True) as response:
                answer = await response.json()
            for lease in answer["items"]:
                if lease["server"] == server:
                    devices: list[str] = lease["devices"]
                    return devices
            seen += len(answer["items"])
            if not answer["items"] or seen >= answer["total"]:
                return None


def _token() -> str:
    given = os.environ.get(TOKEN_VARIABLE, "").strip()
    return given or Path(os.environ[TOKEN_FILE]).read_text().strip()


def main(arguments: list[str]) -> None:
    """Run the stock culler with our judge, as a service of the Hub."""
    from jupyterhub_idle_culler import IdleCuller

    # a Hub that is killed would leave it behind, beside that of the next Hub
    hub = os.environ.get("GPUS_HUB_PID", "")
    if not die_with_parent(signal.SIGTERM, int(hub) if hub.isdigit() else None):
        return
    app = IdleCuller(cull_arbiter_hook=without_gpus)
    app.initialize(arguments)
    app.start()


if __name__ == "__main__":
    main(sys.argv[1:])
