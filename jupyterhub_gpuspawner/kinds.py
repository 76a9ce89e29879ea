"""Kinds of option values that traitlets does not have: each error says what is allowed."""

from __future__ import annotations

import math
import re
from typing import Any
from urllib.parse import urlsplit

from traitlets import Bool, TraitError, TraitType, Unicode

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://.+", re.ASCII | re.DOTALL)


class _Checked(Unicode[str, Any]):
    """Text that has to be empty, or of a kind."""

    #: what is allowed, in words; ends the error's line
    allowed = ""

    def validate(self, obj: Any, value: Any) -> Any:
        text = super().validate(obj, value)
        if text and ("\0" in text or not self.fits(text)):
            raise TraitError(f"{self.name} is {text!r}; want {self.allowed}")
        return text

    def fits(self, text: str) -> bool:
        """Whether the text, which is not empty, is allowed; here, all without NUL is."""
        return True


class AbsolutePath(_Checked):
    """A path in a container, ``/…``; or empty."""

    allowed = "an absolute path, such as /home/jovyan, or nothing"

    def fits(self, text: str) -> bool:
        return text.startswith("/") and ":" not in text


class FilePath(_Checked):
    """A path on this machine, or empty."""

    allowed = "the path of a file or folder, without NUL"


class HttpURL(_Checked):
    """``http://host[:port][/path]``, or empty."""

    allowed = "a URL, such as http://10.0.0.2:8750/services/gpus/, or nothing"

    def fits(self, text: str) -> bool:
        try:
            parts = urlsplit(text)
            return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            return False


class EngineURL(_Checked):
    """Where a Docker engine is, or empty."""

    allowed = "unix:///PATH, tcp://HOST:PORT, http(s)://HOST:PORT or ssh://HOST, or nothing"

    def fits(self, text: str) -> bool:
        return re.fullmatch(r"unix:///.+|(tcp|https?|ssh)://[^/\s]+.*", text) is not None


class DatabaseURL(_Checked):
    """A SQLAlchemy URL, or empty."""

    allowed = "a SQLAlchemy URL, such as sqlite:////folder/ledger.sqlite, or nothing"

    def fits(self, text: str) -> bool:
        return _SCHEME.fullmatch(text) is not None


class Name(_Checked):
    """Text of one line; not empty."""

    allowed = "1 to 255 characters in one line"

    def validate(self, obj: Any, value: Any) -> Any:
        text = super().validate(obj, value)
        if not text:
            raise TraitError(f"{self.name} is {text!r}; want {self.allowed}")
        return text

    def fits(self, text: str) -> bool:
        return len(text) <= 255 and text.isprintable()


def odd_number(trait: TraitType[Any, Any], value: Any) -> str:
    """What is wrong with a value that traitlets takes for a number; empty = nothing.

    It takes True for 1, and NaN and infinity for numbers like any other: no comparison with
    them would ever end a wait.
    """
    if isinstance(value, bool) and not isinstance(trait, Bool):
        return f"{value!r} is not {trait.info()}"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value!r} is not a finite number; want {trait.info()}"
    return ""


def one_line(text: object) -> str:
    """An error's text as one line that a terminal and a log can bear: long words are cut."""
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(str(text).split()))
    return re.sub(r"(\S{100})\S{50,}", r"\1…", shown)
