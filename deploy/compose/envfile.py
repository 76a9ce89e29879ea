"""``deploy/.env``: a site's settings and secrets, made of ``env.example``."""

from __future__ import annotations

import os
import re
import secrets
import stat
from collections.abc import Callable
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parent / "env.example"
#: made where they are empty: a password that people type is shorter
SECRETS: dict[str, Callable[[], str]] = {
    "GPUS_PASSWORD": lambda: secrets.token_hex(8),
    "GPUS_ADMIN_PASSWORD": lambda: secrets.token_hex(24),
    "GPUS_SERVICE_TOKEN": lambda: secrets.token_hex(32),
    "GPUS_HUB_TOKEN": lambda: secrets.token_hex(32),
    "CONFIGPROXY_AUTH_TOKEN": lambda: secrets.token_hex(32),
    "HUB_DB_PASSWORD": lambda: secrets.token_hex(24),
    "LEDGER_DB_PASSWORD": lambda: secrets.token_hex(24),
}
_EMPTY = re.compile(r"^([A-Z_]+)=[ \t]*$", re.MULTILINE)
_LINE = re.compile(r"^([A-Za-z_][A-Za-z0-9_]*)=(.*)$", re.MULTILINE)


class EnvFileError(Exception):
    """The file can't be used; the text is for people."""


def ensure(path: Path, **settings: str) -> bool:
    """Have the file, with a value for each secret; whether it is new.

    ``settings`` are for a new file; one that is there keeps what it says.

    Raises
    ------
    EnvFileError
        Others can read it, or it can't be read or written.
    """
    try:
        new = not path.exists()
        if not new and stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise EnvFileError(f"{path}: others can read it, and it holds secrets; chmod 600 it")
        before = "" if new else path.read_text(encoding="utf-8")
        text = filled(changed(EXAMPLE.read_text(encoding="utf-8"), settings) if new else before)
        if text != before:
            _write(path, text)
    except (OSError, UnicodeDecodeError) as error:
        raise EnvFileError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    return new


def changed(text: str, settings: dict[str, str]) -> str:
    """The text with other values, which it must name already."""
    for name, value in settings.items():
        text, count = re.subn(
            rf"^{re.escape(name)}=.*$", lambda _, v=value, n=name: f"{n}={v}", text, flags=re.M
        )
        if count != 1:
            raise EnvFileError(f"{name}: there is no such line in the file")
    return text


def filled(text: str) -> str:
    """The text with a value for each secret that is empty; one that is not named is added."""
    text = _EMPTY.sub(
        lambda found: f"{found[1]}={SECRETS[found[1]]()}" if found[1] in SECRETS else found[0],
        text,
    )
    missing = [name for name in SECRETS if name not in read(text)]
    if missing and text and not text.endswith("\n"):
        text += "\n"
    return text + "".join(f"{name}={SECRETS[name]()}\n" for name in missing)


def read(text: str) -> dict[str, str]:
    """The settings in the text, without quotes around them; the last one of a name counts."""
    return {name: _unquoted(value.strip()) for name, value in _LINE.findall(text)}


def _unquoted(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1]
    return value


def _write(path: Path, text: str) -> None:
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    os.replace(draft, path)
