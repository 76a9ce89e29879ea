"""Which container a process runs in, from the text of ``/proc/<pid>/cgroup``.

Shapes that occur, with ``<id>`` the engine's 64 hex digits (cgroups(7); the engine's
``cgroupfs`` and ``systemd`` drivers)::

    4:memory:/docker/<id>                                 v1, cgroupfs
    1:name=systemd:/system.slice/docker-<id>.scope        v1, systemd
    0::/docker/<id>                                       v2, cgroupfs
    0::/system.slice/docker-<id>.scope/init               v2, systemd; a child made inside
    0::/user.slice/…/user.slice/docker-<id>.scope         v2, rootless
    0::/../<id>                                           seen from another cgroup namespace
    0::/docker/<id> (deleted)                             its container is being removed
"""

from __future__ import annotations

import re

#: one path component; other engines write ``libpod-<id>.scope``, ``cri-containerd-<id>.scope``
_COMPONENT = re.compile(r"(?:[a-z]+-)*([0-9a-f]{64})(?:\.scope)?(?: \(deleted\))?")


def container_ids(cgroup: str) -> tuple[str, ...]:
    """Ids of the containers in ``cgroup``, outermost first, each once. Empty: in none."""
    found: dict[str, None] = {}
    for line in cgroup.splitlines():
        # hierarchy id : controllers : path; only the path may hold more colons
        fields = line.split(":", 2)
        if len(fields) < 3:
            continue
        for component in fields[2].split("/"):
            match = _COMPONENT.fullmatch(component)
            if match:
                found[match[1]] = None
    return tuple(found)
