"""Any user and server name: names on the engine that are valid, and no two the same."""

from __future__ import annotations

import hashlib
import os
import random
import re
import unicodedata
from collections.abc import Callable, Iterator

import pytest

from jupyterhub_gpuspawner.engine import labels, networks, volumes

PAIRS = 100_000 if os.environ.get("GPUS_LONG") == "1" else 10_000

DOCKER_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}", re.ASCII)
HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)

#: what names are made of: everything that a shell, a template, a path or a page might mind
PARTS = (
    "a", "A", "b", "-", "--", "_", ".", "..", " ", "\t", "\n", "\r\n", "\x00", "\x7f", "\u202e",
    "{", "}", "{username}", "{{", "%s", "$", "`", "'", '"', "\\", "/", ":", ";", "@", "#", "&", "|",
    "<img src=x onerror=alert(1)>", "é", "e\u0301", "ß", "SS", "İ", "i\u0307", "\u0131", "\u212a",
    "ﬁ", "fi", "名", "名前", "\U0001f600", "\ud800", "\udfff", "\ufeff", "\u200b", "٣", "0", "9",
    "gpus", "gpus-home", "x" * 40,
)  # fmt: skip


def texts(rng: random.Random) -> str:
    """One name: up to 255 characters."""
    kind = rng.random()
    if kind < 0.7:
        text = "".join(rng.choice(PARTS) for _ in range(rng.randint(0, 8)))
    elif kind < 0.9:
        text = "".join(chr(rng.randrange(1, 0x2FFF)) for _ in range(rng.randint(1, 12)))
    else:
        # long, and different only at the end
        text = "u" * 250 + "".join(rng.choice("ab-_.") for _ in range(5))
    return text[:255]


def pairs() -> Iterator[tuple[str, str]]:
    """Different (user, server) pairs, also such as run into each other when put together."""
    rng = random.Random(20261122)
    seen: set[tuple[str, str]] = set()
    while len(seen) < PAIRS:
        user, server = texts(rng) or "u", texts(rng) if rng.random() < 0.7 else ""
        cut = rng.randint(0, len(user))
        for pair in ((user, server), (user[:cut] or "u", user[cut:] + server), (user, "")):
            if pair not in seen:
                seen.add(pair)
                yield pair


def name_makers() -> dict[str, Callable[[str, str], str]]:
    """All functions that make names on the engine, by what they name."""

    def owner(user: str, server: str) -> str:
        # an owner is a person; here each pair stands for one
        return hashlib.md5(ascii((user, server)).encode()).hexdigest()

    return {
        "container": lambda user, server: volumes.container_name(user, server, "hub"),
        "home volume": lambda user, server: volumes.home_volume_name(user, owner(user, server)),
        "network": lambda user, server: networks.network_name(user, "ledger", owner(user, server)),
    }


@pytest.mark.slow
@pytest.mark.parametrize("what", name_makers())
def test_names_are_valid_and_distinct_for_any_pair(what: str) -> None:
    make = name_makers()[what]
    made: dict[str, tuple[str, str]] = {}
    for pair in pairs():
        name = make(*pair)
        assert HOST_NAME.fullmatch(name), (pair, name)
        assert DOCKER_NAME.fullmatch(name), (pair, name)
        assert name not in made, (pair, made[name], name)
        made[name] = pair
    assert len(made) >= PAIRS


def test_names_that_look_alike_have_containers_of_their_own() -> None:
    alike = [
        "ann",
        "Ann",
        "ann ",
        "ánn",
        "a\u0301nn",
        "ann\n",
        "ann\x00",
        "\uff41nn",
        "ann-",
        "-ann",
    ]
    names = {volumes.container_name(name, "", "hub") for name in alike}
    assert len(names) == len(alike)
    assert unicodedata.normalize("NFC", "a\u0301nn") == "ánn"


def test_another_hub_s_servers_have_other_names() -> None:
    assert volumes.container_name("a", "b", "h1") != volumes.container_name("a", "b", "h2")


def test_labels_bring_any_name_back_as_it_was() -> None:
    for user, server in list(pairs())[:2000]:
        identity = labels.Identity(ledger="l", lease="e", user=user, server=server)
        back = labels.parse(labels.server_labels(identity))
        assert back is not None
        assert (back.user, back.server) == (user, server)
