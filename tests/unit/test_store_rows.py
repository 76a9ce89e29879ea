"""Rows of the ledger, many at a time."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from jupyterhub_gpuspawner.errors import LedgerError
from jupyterhub_gpuspawner.store.rows import read, read_many, to_rows
from tests.unit.store_values import one_of_each

PAYLOADS = [row["payload"] for row in to_rows(one_of_each(), now=1.0, epoch=1).journal]


def test_many_rows_are_read_as_each_alone_is() -> None:
    many = PAYLOADS * 300
    assert read_many(many, "a row") == [read(payload, "a row") for payload in many]


def _without_end(payload: str) -> str:
    return payload[:-1]


def _of_a_newer_version(payload: str) -> str:
    return json.dumps({**json.loads(payload), "newer": 1})


def _two_in_one(payload: str) -> str:
    return f"{payload},{payload}"


@pytest.mark.parametrize("spoil", [_without_end, _of_a_newer_version, _two_in_one])
def test_a_row_that_cannot_be_read_is_told_among_many(spoil: Callable[[str], str]) -> None:
    spoilt = [*PAYLOADS, spoil(PAYLOADS[0]), *PAYLOADS]
    with pytest.raises(LedgerError, match="a row can't be read"):
        read_many(spoilt, "a row")
