"""What a server's container is created with: the configuration's wishes, and then our rules.

The order matters: what decides about GPUs, identity and limits is set last, so that no image,
profile, user or extra option of the configuration can override it.
"""

from __future__ import annotations

import inspect
from typing import Any, cast

import docker
import docker.errors

from .client import Granted
from .engine import devices, limits, volumes
from .engine.containers import ContainerSpec
from .engine.labels import Identity, server_labels
from .engine.limits import ResourceLimits


async def build_spec(spawner: Any, granted: Granted, limit: ResourceLimits | None) -> ContainerSpec:
    """The container for ``granted``. Makes the home volume where it isn't there yet.

    Parameters
    ----------
    spawner:
        A ``GPUDockerSpawner`` whose options are resolved.
    limit:
        What the kernel shall enforce; None = nothing.
    """
    owner = volumes.owner_id(
        user_id=spawner.user.id, created=spawner.user.created, hub=spawner.hub_name
    )
    identity = Identity(
        ledger=granted.ledger,
        lease=granted.lease,
        user=spawner.user.name,
        server=spawner.name,
        devices=tuple(device.id for device in granted.devices),
        owner=owner,
    )
    options: dict[str, Any] = {
        "command": await spawner.get_command(),
        "environment": spawner.get_env(),
        "volumes": spawner.volume_mount_points,
        "ports": [(spawner.port, "tcp")],
    }
    options.update(await _rendered(spawner, spawner.extra_create_kwargs))
    options["environment"] = _environment(spawner, dict(options["environment"]), granted)
    labels = {**(options.pop("labels", None) or {}), **server_labels(identity)}
    return ContainerSpec(
        name=spawner.object_name,
        image=spawner.image,
        labels=labels,
        host=await _host_config(spawner, granted, limit, owner),
        options={name: value for name, value in options.items() if name not in ("name", "image")},
    )


def image_command(client: docker.DockerClient, ref: str) -> list[str] | None:
    """The command of an image on the engine; None = it is not there. An error is not "no"."""
    try:
        image = cast("dict[str, Any]", client.api.inspect_image(ref))
    except docker.errors.ImageNotFound:
        return None
    return list((image.get("Config") or {}).get("Cmd") or ())


async def _host_config(
    spawner: Any, granted: Granted, limit: ResourceLimits | None, owner: str
) -> dict[str, Any]:
    injected = devices.host_config(granted.devices, granted.injection)
    host: dict[str, Any] = {
        "links": spawner.links,
        "mounts": spawner.mount_binds,
        "network_mode": spawner.network_name,
    }
    if spawner.drop_capabilities:
        host.update(limits.isolation())
    if not spawner.use_internal_ip:
        host["port_bindings"] = {spawner.port: (spawner.host_ip,)}
    host.update(await _rendered(spawner, spawner.extra_host_config))
    if limit is not None:
        host.update(limits.host_config(limit))
    # how it ended must be read before it is removed, so Docker may not do that by itself
    host["auto_remove"] = False
    host["binds"] = [
        *devices.merge_binds(spawner.volume_binds, devices.merge_binds(host.get("binds"), ())),
        *await _home(spawner, granted.ledger, owner),
        *injected["binds"],
    ]
    host["device_requests"] = [
        *(host.get("device_requests") or ()),
        *injected["device_requests"],
    ]
    return host


async def _home(spawner: Any, ledger: str, owner: str) -> list[str]:
    if not spawner.home_path:
        return []
    home = await spawner.engine(
        volumes.ensure_home, username=spawner.user.name, owner=owner, ledger=ledger
    )
    return [f"{home.name}:{spawner.home_path}:rw"]


async def _rendered(spawner: Any, extra: Any) -> dict[str, Any]:
    """Extra keywords of the configuration: a dict, or a callable that returns one."""
    extra = spawner._eval_if_callable(extra)
    if inspect.isawaitable(extra):
        extra = await extra
    return dict(spawner._render_templates(extra))


def _environment(spawner: Any, env: dict[str, Any], granted: Granted) -> dict[str, Any]:
    allowed, removed = devices.strip_protected(env)
    if removed:
        spawner.log.warning("%s: dropped from the environment: %s", spawner._log_name, removed)
    return {**allowed, **devices.environment(granted.devices, granted.injection)}
