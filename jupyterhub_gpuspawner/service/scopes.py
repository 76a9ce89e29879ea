"""The scopes of the API, which the Hub has to know. Nothing else: the Hub imports it."""

from __future__ import annotations

#: lets a group's leader, a program or a dashboard see everybody's servers
READ = "custom:gpus:read"
#: lets somebody act for an admin: keep devices and machines free, cancel requests
ADMIN = "custom:gpus:admin"

#: for ``c.JupyterHub.custom_scopes``
CUSTOM_SCOPES = {
    READ: {"description": "See all GPUs with whoever uses them, the queue with names, the journal"},
    ADMIN: {
        "description": "Keep GPUs and machines free, cancel requests",
        "subscopes": [READ],
    },
}
