"""The scheduler service: the async shell around scheduler and ledger."""
