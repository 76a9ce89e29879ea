"""What a profile starts beside a server: its containers, from the profile to the engine."""

from __future__ import annotations

from typing import Any

import docker.errors

from .client import Granted
from .docker_spec import home_of, identity_of
from .engine import devices, limits, volumes
from .engine.companions import companion_name, start_companion
from .engine.containers import ContainerSpec
from .engine.labels import companion_labels
from .engine.limits import ResourceLimits
from .errors import GPUSpawnerError
from .profiles import Companion
from .scheduler.models import Injection

#: restarts of a companion that fails, by Docker; none after Docker's own restart
RESTARTS = 3
#: processes of a companion
PIDS = 512


def alias_of(companion: str, server: str) -> str:
    """The host name of a companion on its user's network; another one for each server."""
    return f"{companion}-{volumes.slug(server)}" if server else companion


def variables(companions: Any, server: str) -> dict[str, str]:
    """What a server is told: ``COMPANION_TENSORBOARD=tensorboard``."""
    return {
        f"COMPANION_{name.upper().replace('-', '_')}": alias_of(name, server) for name in companions
    }


async def start_companions(spawner: Any, granted: Granted) -> None:
    """Start the companions of a server that was started. Never raises: it runs without them too.

    They end with the lease, whoever ends it: the scheduler removes them.
    """
    wanted = spawner.companions
    if not wanted:
        return
    try:
        network = await spawner.user_network(granted.ledger)
        for companion in wanted.values():
            if spawner.lease_id != granted.lease:
                return
            spec = await companion_spec(spawner, granted, companion, network)
            await spawner.pool.run(
                spec.name,
                lambda client, spec=spec: start_companion(client, spec),
                timeout=spawner.patience,
            )
            spawner.log.info("%s: companion %s runs", spawner._log_name, companion.name)
    except (GPUSpawnerError, docker.errors.DockerException) as error:
        spawner.log.error("%s: companion not started: %s", spawner._log_name, error)
        spawner.say(70, "A companion of the server did not start. Please tell an administrator.")


async def companion_spec(
    spawner: Any, granted: Granted, companion: Companion, network: str | None
) -> ContainerSpec:
    """The container of a companion: its user's network and home, limits, and no GPU."""
    identity = identity_of(spawner, granted)
    host: dict[str, Any] = {
        **limits.isolation(),
        **limits.host_config(
            ResourceLimits(
                mem_limit=companion.mem_limit, cpu_limit=companion.cpu_limit, pids_limit=PIDS
            )
        ),
        "network_mode": network or spawner.network_name,
        "restart_policy": {"Name": "on-failure", "MaximumRetryCount": RESTARTS},
    }
    if companion.home:
        mounts = await home_of(spawner, granted.ledger, identity.owner)
        host["binds"] = [mount.removesuffix(":rw") + f":{companion.home}" for mount in mounts]
    options: dict[str, Any] = {
        # last: no image and no profile gives it a GPU
        "environment": {
            **companion.environment,
            **devices.environment((), Injection.NVIDIA),
        },
    }
    if companion.cmd:
        options["command"] = list(companion.cmd)
    if companion.health:
        options["healthcheck"] = {"test": ["CMD", *companion.health]}
    if network:
        alias = {"Aliases": [alias_of(companion.name, spawner.name)]}
        options["networking_config"] = {"EndpointsConfig": {network: alias}}
    return ContainerSpec(
        name=companion_name(identity.user, granted.lease, companion.name),
        image=companion.image,
        labels=companion_labels(identity, companion.name),
        host=host,
        options=options,
    )
