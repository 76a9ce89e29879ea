"""What a server's Swarm service is created with: the configuration's wishes, then our rules.

The counterpart of ``docker_spec`` for :class:`~.swarmspawner.GPUSwarmSpawner`; here too, what
decides about GPUs, identity and limits is set last.
"""

from __future__ import annotations

from typing import Any

from .client import Granted
from .docker_spec import environment, identity_of
from .engine import service_spec, services, volumes
from .engine.labels import Identity, home_labels, server_labels
from .engine.limits import ResourceLimits
from .engine.service_spec import ServiceSpec


async def build_spec(spawner: Any, granted: Granted, limit: ResourceLimits | None) -> ServiceSpec:
    """The service for ``granted``.

    Parameters
    ----------
    spawner:
        A ``GPUSwarmSpawner`` whose options are resolved.
    limit:
        What the kernel shall enforce; None = nothing but the defaults.
    """
    limits = limit or ResourceLimits()
    identity = identity_of(spawner, granted)
    place = await spawner.engine(services.place, granted.node, identity.devices)
    env = environment(spawner, spawner.get_env(), granted)
    container = service_spec.container_spec(
        spawner.image,
        command=await spawner.get_command(),
        env={name: str(value) for name, value in env.items() if value is not None},
        mounts=_mounts(spawner, granted, identity, limits),
        grace=spawner.stop_grace,
    )
    container.update(service_spec.ulimits(limits))
    if spawner.drop_capabilities:
        container.update(service_spec.isolation())
    labels = server_labels(identity)
    # on the container too: whoever looks at the node's engine finds out whose it is
    container["Labels"] = labels
    return ServiceSpec(
        name=spawner.object_name,
        labels=labels,
        task=service_spec.task_template(
            container,
            place=place,
            devices=granted.devices,
            limits=limits,
            networks=[spawner.network_name],
        ),
    )


def home_name(owner: str) -> str:
    """Name of an owner's home: nobody can look on all nodes for the one with the right label."""
    return volumes.home_volume_name("", owner)


def _mounts(
    spawner: Any, granted: Granted, identity: Identity, limits: ResourceLimits
) -> list[dict[str, Any]]:
    mounts = [service_spec.shm(limits)]
    for source, bind in spawner.volume_binds.items():
        mounts.append(service_spec.bind_or_volume(source, bind["bind"], bind.get("mode", "rw")))
    mounts += [dict(mount) for mount in spawner.mount_binds]
    if spawner.home_path:
        name = home_name(identity.owner)
        options = volumes.driver_options(spawner.home_options, name)
        mounts.append(
            service_spec.volume(
                name,
                spawner.home_path,
                labels=home_labels(ledger=granted.ledger, user=identity.user, owner=identity.owner),
                driver=spawner.home_driver,
                options=options,
            )
        )
    return mounts + service_spec.device_mounts(granted.devices)
