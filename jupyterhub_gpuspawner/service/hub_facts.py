"""What a Hub tells the services that it starts, for a scheduler that it did not start.

JupyterHub passes about ten variables to a managed service. Two of ours say enough for all:
``GPUS_HUB_API_URL`` (``http://hub:8081/hub/api``) and ``GPUS_HUB_TOKEN``.
"""

from __future__ import annotations

import json
from collections.abc import MutableMapping

from ..errors import ConfigError
from .options import PREFIX

API_URL, TOKEN = "GPUS_HUB_API_URL", "GPUS_HUB_TOKEN"
PUBLIC_URL = "GPUS_PUBLIC_URL"
_SERVICE = "gpus"
_TAIL = "hub/api"


def tell(environ: MutableMapping[str, str]) -> bool:
    """Add JupyterHub's variables to ``environ``; whether a Hub is known now.

    What is there already stays. Without both of our variables nothing is added: then there are
    no pages, and nobody is asked for again after a restart of the Hub.

    Raises
    ------
    ConfigError
        One of the two is missing, or the address is not one of a Hub's API.
    """
    url, token = (environ.get(name, "").strip() for name in (API_URL, TOKEN))
    if not url and not token:
        return False
    if not url or not token:
        missing = API_URL if token else TOKEN
        raise ConfigError(f"{missing} is not set; {API_URL} and {TOKEN} belong together")
    base = _base_url(url.rstrip("/"))
    prefix = f"{base}{PREFIX.lstrip('/')}"
    facts = {
        "JUPYTERHUB_API_URL": url.rstrip("/"),
        "JUPYTERHUB_API_TOKEN": token,
        "JUPYTERHUB_BASE_URL": base,
        "JUPYTERHUB_SERVICE_NAME": _SERVICE,
        "JUPYTERHUB_SERVICE_PREFIX": prefix,
        "JUPYTERHUB_CLIENT_ID": f"service-{_SERVICE}",
        "JUPYTERHUB_OAUTH_ACCESS_SCOPES": json.dumps([f"access:services!service={_SERVICE}"]),
    }
    public = environ.get(PUBLIC_URL, "").strip().rstrip("/")
    if public:
        facts["JUPYTERHUB_PUBLIC_URL"] = f"{public}{prefix}"
        facts["JUPYTERHUB_PUBLIC_HUB_URL"] = f"{public}{base}hub/"
    for name, value in facts.items():
        environ.setdefault(name, value)
    return True


def _base_url(url: str) -> str:
    """The Hub's ``base_url`` in the address of its API: begins and ends with ``/``."""
    scheme, found, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    if not (found and host and slash and scheme in ("http", "https") and path.endswith(_TAIL)):
        raise ConfigError(f"{API_URL} is {url!r}; want such as 'http://hub:8081/hub/api'")
    return f"/{path[: -len(_TAIL)]}"
