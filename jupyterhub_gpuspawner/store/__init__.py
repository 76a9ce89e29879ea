"""The ledger: what was decided, durable."""
