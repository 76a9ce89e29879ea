"""The types of single values in a profile, as pydantic annotations.

Each check raises ``ValueError`` with a text that says what is allowed. Numbers may also be
written as text, because an unlisted choice always is text.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator

from ..protected import is_protected
from ..scheduler.models import Mode
from ..units import parse_duration, parse_memory

#: one more GPU than any machine has, and a bound for numbers that reach the engine
MAX_GPUS = 1024
MAX_COUNT = 2**31 - 1

_COUNT = re.compile(r"\d{1,10}", re.ASCII)
_DECIMAL = re.compile(r"\d{1,6}(\.\d{1,6})?", re.ASCII)
#: registry/path:tag@digest. Looser than Docker's grammar, yet no blank, no quote, no option
_IMAGE = re.compile(r"[a-z0-9][A-Za-z0-9._:/@+-]{0,254}", re.ASCII)
_CAPABILITY = re.compile(r"(\d{1,3})\.(\d{1,3})", re.ASCII)
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}", re.ASCII)
_URL_PATH = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@%/?#{}-]{0,500}", re.ASCII)

#: Docker refuses a limit below these; 0 is no limit
LEAST_MEMORY = 6 * 1024**2
LEAST_CPUS = 0.01
#: names that Docker knows
ULIMITS = frozenset(
    (
        *("core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile"),
        *("nproc", "rss", "rtprio", "rttime", "sigpending", "stack"),
    )
)


def _count(value: object) -> int:
    if isinstance(value, str) and _COUNT.fullmatch(value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_COUNT:
        raise ValueError(f"must be a whole number between 0 and {MAX_COUNT}")
    return value


def _gpus(value: object) -> int:
    try:
        count = _count(value)
    except ValueError:
        count = -1
    if not 0 <= count <= MAX_GPUS:
        raise ValueError(f"must be a whole number of GPUs between 0 and {MAX_GPUS}")
    return count


def _cpus(value: object) -> float:
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("must be a number of processors, such as 2 or 0.5")
    if value != 0 and not LEAST_CPUS <= value <= 100_000:  # also refuses nan
        raise ValueError("must be 0 (no limit) or between 0.01 and 100000 processors")
    return float(value)


def _limit(value: object) -> int:
    size = parse_memory(value)
    if 0 < size < LEAST_MEMORY:
        raise ValueError("must be 0 (no limit) or at least 6M, the least that Docker takes")
    return size


def _swap(value: object) -> int:
    return -1 if value in (-1, "-1") else parse_memory(value)


def _sharing(value: object) -> Mode:
    if isinstance(value, str) and value in {mode.value for mode in Mode}:
        return Mode(value)
    raise ValueError("must be one of " + ", ".join(mode.value for mode in Mode))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("must be text")
    return value


def plain_text(value: object) -> str:
    """Text that a form can show: not blank, printable, at most 200 characters."""
    text = _text(value).strip()
    if not text or len(text) > 200 or not text.isprintable():
        raise ValueError("must be 1 to 200 printable characters")
    return text


def _long_text(value: object) -> str:
    text = _text(value).strip()
    if len(text) > 2000 or not all(char.isprintable() or char in "\n\t" for char in text):
        raise ValueError("must be at most 2000 printable characters")
    return text


def _image(value: object) -> str:
    text = _text(value)
    if not _IMAGE.fullmatch(text):
        raise ValueError(
            'must be an image name, such as "lab.example/jupyter/base-notebook:latest"'
        )
    return text


def _model(value: object) -> str:
    text = _text(value)
    if not text or len(text) > 128 or not text.isprintable():
        raise ValueError('must be a pattern on the GPU\'s name, such as "*A100*"')
    return text


def _capability(value: object) -> tuple[int, int]:
    found = _CAPABILITY.fullmatch(str(value)) if isinstance(value, (str, float)) else None
    if isinstance(value, (tuple, list)) and len(value) == 2:  # as it was checked before
        found = _CAPABILITY.fullmatch(".".join(map(str, value)))
    if found is None:
        raise ValueError('must be a compute capability, such as "8.0"')
    return int(found[1]), int(found[2])


def _name(value: object) -> str:
    text = _text(value).strip()
    if not text or len(text) > 255 or not text.isprintable():
        raise ValueError("must be a name of 1 to 255 printable characters")
    return text


def _device_ids(value: object) -> tuple[str, ...]:
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)) or not 0 < len(names) <= MAX_GPUS:
        raise ValueError('must be ids of GPUs, such as ["GPU-…"], or text with commas between')
    return tuple(sorted({_name(name) for name in names}))


def _url(value: object) -> str:
    text = _text(value)
    if not _URL_PATH.fullmatch(text) or text.startswith("//"):
        raise ValueError('must be a path that begins with one "/", such as "/lab"')
    return text


def _cmd(value: object) -> tuple[str, ...]:
    words = (value,) if isinstance(value, str) else value
    if not isinstance(words, (list, tuple)) or not words:
        raise ValueError('must be a command, such as ["jupyterhub-singleuser"]')
    if not all(isinstance(word, str) and word and "\0" not in word for word in words):
        raise ValueError("must hold only texts that are not empty")
    return tuple(words)


def _environment(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError('must be a mapping, such as {"LANG": "C.UTF-8"}')
    for name, text in value.items():
        if not isinstance(name, str) or not _ENV_NAME.fullmatch(name):
            raise ValueError(f"{str(name)[:60]!r} is not the name of an environment variable")
        if is_protected(name):
            raise ValueError(
                f"{name} is protected: only the scheduler decides which GPUs a server sees"
            )
        if not isinstance(text, str) or "\0" in text or len(text) > 10_000:
            raise ValueError(f"the value of {name} must be text")
    return dict(value)


def _ulimits(value: object) -> dict[str, tuple[int, int]]:
    if not isinstance(value, dict):
        raise ValueError('must be a mapping, such as {"nofile": [1024, 4096]}')
    return {_ulimit_name(name): _ulimit(name, limits) for name, limits in value.items()}


def _ulimit_name(name: object) -> str:
    if not isinstance(name, str) or name not in ULIMITS:
        raise ValueError(
            f"{str(name)[:60]!r} is not a ulimit; allowed: {', '.join(sorted(ULIMITS))}"
        )
    return name


def _ulimit(name: str, value: object) -> tuple[int, int]:
    if isinstance(value, dict) and set(value) == {"soft", "hard"}:
        value = (value["soft"], value["hard"])
    pair = value if isinstance(value, (list, tuple)) else (value, value)
    whole = all(isinstance(n, int) and not isinstance(n, bool) and -1 <= n < 2**63 for n in pair)
    # -1 is "unlimited", so it compares as the largest
    if not whole or len(pair) != 2 or (pair[1] != -1 and not -1 < pair[0] <= pair[1]):
        raise ValueError(f"{name} must be a number, or [soft, hard] with soft <= hard (-1: no end)")
    return (pair[0], pair[1])


def _groups(value: object) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple, set, frozenset)) or not value:
        raise ValueError('must be a list of group names that is not empty, such as ["physics"]')
    if not all(isinstance(name, str) and name for name in value):
        raise ValueError("must hold only group names")
    return tuple(sorted(set(value)))


def _regex(value: object) -> str:
    text = _text(value)
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"is not a regular expression: {error}") from None
    if len(text) > 1000:
        raise ValueError("must be at most 1000 characters")
    return text


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be True or False")
    return value


Count = Annotated[int, BeforeValidator(_count)]
GPUs = Annotated[int, BeforeValidator(_gpus)]
CPUs = Annotated[float, BeforeValidator(_cpus)]
Memory = Annotated[int, BeforeValidator(parse_memory)]
MemoryLimit = Annotated[int, BeforeValidator(_limit)]
Swap = Annotated[int, BeforeValidator(_swap)]
Duration = Annotated[float, BeforeValidator(parse_duration)]
Sharing = Annotated[Mode, BeforeValidator(_sharing)]
PlainText = Annotated[str, BeforeValidator(plain_text)]
LongText = Annotated[str, BeforeValidator(_long_text)]
Image = Annotated[str, BeforeValidator(_image)]
Model = Annotated[str, BeforeValidator(_model)]
Capability = Annotated[tuple[int, int], BeforeValidator(_capability)]
Name = Annotated[str, BeforeValidator(_name)]
DeviceIds = Annotated[tuple[str, ...], BeforeValidator(_device_ids)]
URLPath = Annotated[str, BeforeValidator(_url)]
Command = Annotated[tuple[str, ...], BeforeValidator(_cmd)]
Environment = Annotated[dict[str, str], BeforeValidator(_environment)]
Ulimits = Annotated[dict[str, tuple[int, int]], BeforeValidator(_ulimits)]
Groups = Annotated[tuple[str, ...], BeforeValidator(_groups)]
Regex = Annotated[str, BeforeValidator(_regex)]
Flag = Annotated[bool, BeforeValidator(_flag)]
