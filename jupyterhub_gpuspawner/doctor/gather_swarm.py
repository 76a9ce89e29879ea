"""Facts of a Swarm's nodes that only their agents know: asked of the scheduler."""

from __future__ import annotations

import json
import os
import urllib.request
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..kinds import one_line
from ..service.service_token import ENVIRONMENT, service_token
from .finding import Unknown

#: seconds for the scheduler's answer
_LIMIT = 20.0


def toolkits(url: str, token_file: Path) -> dict[str, dict[str, Any] | None] | Unknown:
    """Node -> what follows from its NVIDIA toolkit; None = nobody has looked at it.

    ``url`` and ``token_file`` are the spawner's. Only nodes with GPUs that have an agent are there.
    """
    if not url:
        return Unknown(why="the configuration names no scheduler")
    if not os.environ.get(ENVIRONMENT) and not token_file.exists():
        return Unknown(why=f"there is no service token: neither {token_file} nor {ENVIRONMENT}")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        token = service_token(token_file)
        request = urllib.request.Request(
            f"{url.rstrip('/')}/api/internal/summary", headers={"Authorization": f"token {token}"}
        )
        with opener.open(request, timeout=_LIMIT) as answer:
            found = json.load(answer)["toolkits"]
            return {str(name): verdict for name, verdict in found.items()}
    except (OSError, ValueError, KeyError, AttributeError, ConfigError) as error:
        return Unknown(why=f"the scheduler at {url} does not say: {one_line(error)}")
