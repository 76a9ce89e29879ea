"""Environment variables that decide which GPUs a process gets: nobody but us sets them."""

from __future__ import annotations

#: neither a user nor a profile may set these. Entries that end in ``_`` are prefixes.
PROTECTED_ENV = ("NVIDIA_", "CUDA_MPS_", "DOCKER_RESOURCE_", "CUDA_VISIBLE_DEVICES")


def is_protected(name: str) -> bool:
    """Whether nobody but us may set this environment variable, in whatever case."""
    upper = name.partition("=")[0].upper()
    return any(
        upper.startswith(entry) if entry.endswith("_") else upper == entry
        for entry in PROTECTED_ENV
    )
