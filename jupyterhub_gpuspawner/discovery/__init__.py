"""Which GPUs exist, and how they are."""
