"""The ledger: what was decided, durable."""

from __future__ import annotations

from .ledger import Ledger
from .replay import JournalRow, Snapshot, replay

__all__ = ["JournalRow", "Ledger", "Snapshot", "replay"]
