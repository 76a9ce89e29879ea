"""How packages reach an image build on this machine: mirrors, proxies, a private CA."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from jupyterhub_gpuspawner.images import PROXY_ARGUMENTS

#: Passed on as they are; each is declared in the Dockerfile that uses it.
MIRRORS = (
    "PIP_INDEX_URL",
    "PIP_EXTRA_INDEX_URL",
    "PIP_TRUSTED_HOST",
    "DEBIAN_MIRROR",
    "MINICONDA_MIRROR",
)
#: pip's settings -> the build argument they become where the variable itself is not set.
_PIP_SETTINGS = {
    "index-url": "PIP_INDEX_URL",
    "extra-index-url": "PIP_EXTRA_INDEX_URL",
    "trusted-host": "PIP_TRUSTED_HOST",
}
#: Variables that name a bundle of certificate authorities, most specific first.
_CA_VARIABLES = ("PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
_CA_FOLDER = Path("/usr/local/share/ca-certificates")
_CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")


def pip_settings() -> dict[str, str]:
    """What ``pip config list`` says for this machine, such as ``{"cert": "/etc/…"}``."""
    answer = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, timeout=60
    )
    return parse_pip_settings(answer.stdout)


def parse_pip_settings(text: str) -> dict[str, str]:
    """Lines ``global.index-url='…'``; of several sections the last (most specific) wins."""
    settings = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals:
            settings[key.rpartition(".")[2]] = value.strip().strip("'\"").replace("\\n", " ")
    return settings


def _reachable(value: str) -> str:
    """Without local folders: an image build does not see this machine's files."""
    return " ".join(word for word in value.split() if not word.startswith(("file:", "/", ".")))


def transport(environ: Mapping[str, str], settings: Mapping[str, str]) -> dict[str, str]:
    """Build arguments from the environment and pip's settings."""
    found = {name: environ[name] for name in (*MIRRORS, *PROXY_ARGUMENTS) if environ.get(name)}
    for setting, name in _PIP_SETTINGS.items():
        if name not in found and settings.get(setting):
            found[name] = settings[setting]
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        found[name] = _reachable(found.get(name, ""))
    return {name: value for name, value in found.items() if value}


def certificates(environ: Mapping[str, str], settings: Mapping[str, str]) -> Path | None:
    """The bundle that this machine trusts, where it is not everybody's; else None.

    Where a private CA is installed the bundle with it is needed for every download of the build.
    """
    named = [environ.get(name, "") for name in _CA_VARIABLES[:1]]
    named.append(settings.get("cert", ""))
    named += [environ.get(name, "") for name in _CA_VARIABLES[1:]]
    for name in named:
        if name and Path(name).is_file():
            return Path(name)
    if any(_CA_FOLDER.glob("**/*.crt")) and _CA_BUNDLE.is_file():
        return _CA_BUNDLE
    return None


def answers(url: str, *, limit: float = 5.0) -> bool:
    """Does the server have something at ``url``? Asked with HEAD, ``limit`` seconds at most."""
    request = urllib.request.Request(url, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=limit) as response:
            return bool(200 <= response.status < 400)
    except (urllib.error.URLError, OSError, ValueError):
        return False


def environment() -> dict[str, str]:
    """A copy of this process's environment."""
    return dict(os.environ)
