"""What a server's Swarm service is created with: the configuration's wishes, then our rules.

The counterpart of ``docker_spec`` for :class:`~.swarmspawner.GPUSwarmSpawner`; here too, what
decides about GPUs, identity and limits is set last.
"""

from __future__ import annotations

from typing import Any

from .client import Granted
from .docker_spec import environment, identity_of, owner_of
from .engine import references, service_spec, services, volumes, whereabouts
from .engine.labels import home_labels, server_labels
from .engine.limits import ResourceLimits
from .engine.service_spec import ServiceSpec
from .errors import ConfigError, EngineError


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
        env={
            **{name: str(value) for name, value in env.items() if value is not None},
            **service_spec.variables(place),
        },
        mounts=[
            service_spec.shm(limits),
            *mounts_of(spawner, granted.ledger),
            *service_spec.device_mounts(granted.devices),
        ],
        grace=spawner.stop_grace,
    )
    container.update(service_spec.ulimits(limits))
    container["Secrets"] = await spawner.engine(references.secrets, spawner.secrets)
    container["Configs"] = await spawner.engine(references.configs, spawner.configs)
    await _tie(spawner, granted)
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


def mounts_of(spawner: Any, ledger: str) -> list[dict[str, Any]]:
    """The mounts that the options ask for: volumes, folders, and the home."""
    owner = owner_of(spawner)
    mounts = [
        service_spec.bind_or_volume(source, bind["bind"], bind.get("mode", "rw"))
        for source, bind in spawner.volume_binds.items()
    ]
    mounts += [dict(mount) for mount in spawner.mount_binds]
    if spawner.home_path:
        name = home_name(owner)
        mounts.append(
            service_spec.volume(
                name,
                spawner.home_path,
                labels=home_labels(ledger=ledger, user=spawner.user.name, owner=owner),
                driver=spawner.home_driver,
                options=volumes.driver_options(spawner.home_options, name),
            )
        )
    return mounts


async def node_of_volumes(spawner: Any) -> str | None:
    """Name of the only node where all volumes of a server are; None = any node will do.

    Raises
    ------
    ConfigError
        They are on different nodes, or may not be of one node only.
    """
    known = dict(spawner.volume_nodes)
    bound = service_spec.node_bound(mounts_of(spawner, ""))
    loose = [name for name in bound if name not in known]
    if loose and spawner.local_volumes == "refuse":
        raise ConfigError(
            f"{type(spawner).__name__}: volume {loose[0]} of the driver 'local' would exist on one "
            "node only. Set home_options or home_driver, or local_volumes='tie' or 'each', or "
            "volume_nodes, or home_path=''",
            "Your files would be on one machine only, and this Hub is not set up for that. "
            "Please tell an administrator.",
        )
    if loose and spawner.local_volumes == "tie":
        known.update(await spawner.engine(whereabouts.find, loose))
    where = {name: known[name] for name in bound if name in known}
    if len(set(where.values())) > 1:
        told = ", ".join(f"{name} on {node}" for name, node in sorted(where.items()))
        raise ConfigError(
            f"{spawner._log_name}: its volumes are on different nodes: {told}",
            "Your files are on different machines, and a server can run on one only. "
            "Please tell an administrator.",
        )
    return next(iter(where.values()), None)


async def _tie(spawner: Any, granted: Granted) -> None:
    """Remember where the volumes are that the service is about to make."""
    if spawner.local_volumes != "tie":
        return
    for name in service_spec.node_bound(mounts_of(spawner, granted.ledger)):
        if name in spawner.volume_nodes:
            continue
        node = await spawner.engine(whereabouts.settle, name, granted.node, granted.ledger)
        if node != granted.node:
            raise EngineError(
                f"{spawner._log_name}: volume {name} is on {node}, the lease on {granted.node}",
                f"Another server of yours has put your files on {node} just now. Start this one "
                "again.",
            )
