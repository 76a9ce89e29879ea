"""The service token: one secret between spawner and service, the same over restarts."""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
import stat
from pathlib import Path

from ..errors import ConfigError

#: environment variable that replaces the file
ENVIRONMENT = "GPUS_SERVICE_TOKEN"

_SHORTEST = 16


def service_token(path: Path) -> str:
    """Return the token from ``GPUS_SERVICE_TOKEN`` or from ``path``, which is made if missing.

    Hub and service may both be the first to ask: the file appears whole or not at all.

    Raises
    ------
    ConfigError
        The file can be read by others, is too short, or can't be read or made.
    """
    token = os.environ.get(ENVIRONMENT, "").strip()
    if not token:
        try:
            token = _read(path) if path.exists() else _create(path)
        except OSError as error:
            raise ConfigError(f"service token {path}: {error.strerror}") from error
    if len(token) < _SHORTEST or not token.isascii():
        raise ConfigError(
            f"service token from {path} or {ENVIRONMENT}: want at least {_SHORTEST} ASCII "
            "characters; remove the file to get a new one"
        )
    return token


def _read(path: Path) -> str:
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise ConfigError(f"service token {path}: others can read it; run 'chmod 600 {path}'")
    return path.read_text().strip()


def _create(path: Path) -> str:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(file, secrets.token_hex(32).encode() + b"\n")
        os.fsync(file)
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        os.close(file)
        os.unlink(draft)
    return _read(path)


def same(given: str, token: str) -> bool:
    """Whether a header's token is ours, in constant time."""
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), token.encode())
