"""The unit suite's tests of the same name, with the fixtures of this folder: on PostgreSQL."""

from __future__ import annotations

from tests.unit.test_store_transfer import *  # noqa: F403
