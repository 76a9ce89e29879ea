"""Alembic migrations of the ledger. Run by ``Ledger.open``; there is no ``alembic.ini``."""
