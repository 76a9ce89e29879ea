"""Exclusive, durable, fair GPU leases for JupyterHub on Docker and Swarm."""

__version__ = "0.1.0"
