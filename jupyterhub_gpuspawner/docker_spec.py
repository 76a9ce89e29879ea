"""What a server's container is created with: the configuration's wishes, and then our rules.

The order matters: what decides about GPUs, identity and limits is set last, so that no image,
profile, user or extra option of the configuration can override it.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping
from typing import Any, cast

import docker
import docker.errors

from .client import Granted
from .engine import devices, limits, volumes
from .engine.containers import ContainerSpec
from .engine.labels import Identity, server_labels
from .engine.limits import ResourceLimits
from .limit_traits import LIMIT_TRAITS
from .profiles import ResolvedProfile

#: what extra options of the configuration can't say: it is said elsewhere
_OURS = ("name", "image", "host_config")


async def build_spec(spawner: Any, granted: Granted, limit: ResourceLimits | None) -> ContainerSpec:
    """The container for ``granted``. Makes home volume and network where they aren't there yet.

    Parameters
    ----------
    spawner:
        A ``GPUDockerSpawner`` whose options are resolved.
    limit:
        What the kernel shall enforce; None = nothing.
    """
    identity = identity_of(spawner, granted)
    home, network = await asyncio.gather(
        home_of(spawner, granted.ledger, identity.owner), spawner.user_network(granted.ledger)
    )
    options: dict[str, Any] = {
        "command": await spawner.get_command(),
        "environment": spawner.get_env(),
        "volumes": spawner.volume_mount_points,
        "ports": [(spawner.port, "tcp")],
    }
    extra = await _rendered(spawner, spawner.extra_create_kwargs)
    # on top of ours: without what the Hub sets no server can start
    env = {**options["environment"], **_as_dict(extra.pop("environment", None))}
    labels = {**_as_dict(extra.pop("labels", None)), **server_labels(identity)}
    host = await _host_config(spawner, granted, limit, network)
    host["binds"] += home
    if network and host["network_mode"] == network:
        alias = {"Aliases": [network_alias(spawner.name)]}
        options["networking_config"] = {"EndpointsConfig": {network: alias}}
    options.update(extra)
    options["environment"] = environment(spawner, env, granted)
    return ContainerSpec(
        name=spawner.object_name,
        image=spawner.image,
        labels=labels,
        host=host,
        options={name: value for name, value in options.items() if name not in _OURS},
    )


def network_alias(server: str) -> str:
    """The name under which the user's other servers find this one.

    Never one word alone for a named server: it must not stand in for the Hub's own name.
    """
    return f"server-{volumes.slug(server)}" if server else "server"


def identity_of(spawner: Any, granted: Granted) -> Identity:
    """Who and what the server of a lease is for."""
    return Identity(
        ledger=granted.ledger,
        lease=granted.lease,
        user=spawner.user.name,
        server=spawner.name,
        devices=tuple(device.id for device in granted.devices),
        owner=owner_of(spawner),
    )


def owner_of(spawner: Any) -> str:
    """Id of the person behind a spawner's user."""
    return volumes.owner_id(
        user_id=spawner.user.id, created=spawner.user.created, hub=spawner.hub_name
    )


def image_command(client: docker.DockerClient, ref: str) -> list[str] | None:
    """The command of an image on the engine; None = it is not there. An error is not "no"."""
    try:
        image = cast("dict[str, Any]", client.api.inspect_image(ref))
    except docker.errors.ImageNotFound:
        return None
    return list((image.get("Config") or {}).get("Cmd") or ())


async def _host_config(
    spawner: Any, granted: Granted, limit: ResourceLimits | None, network: str | None
) -> dict[str, Any]:
    injected = devices.host_config(granted.devices, granted.injection)
    host: dict[str, Any] = {
        "links": spawner.links,
        "mounts": spawner.mount_binds,
        "network_mode": network or spawner.network_name,
    }
    if spawner.drop_capabilities:
        host.update(limits.isolation())
    if not spawner.use_internal_ip:
        host["port_bindings"] = {spawner.port: (spawner.host_ip,)}
    host.update(_without_gpus(spawner, await _rendered(spawner, spawner.extra_host_config)))
    if limit is not None:
        host.update(limits.host_config(limit))
    # how it ended must be read before it is removed, so Docker may not do that by itself
    host["auto_remove"] = False
    host["binds"] = [
        *devices.merge_binds(spawner.volume_binds, devices.merge_binds(host.get("binds"), ())),
        *injected["binds"],
    ]
    host["device_requests"] = [
        *(host.get("device_requests") or ()),
        *injected["device_requests"],
    ]
    return host


def _without_gpus(spawner: Any, extra: dict[str, Any]) -> dict[str, Any]:
    """``extra_host_config`` without what gives a container GPUs that are not in its lease.

    A Hub that comes from DockerSpawner may still have its usual line: a request for all GPUs.
    """
    kept = dict(extra)
    requests = kept.get("device_requests") or ()
    kept["device_requests"] = [one for one in requests if not _asks_for_gpus(one)]
    mapped = kept.get("devices") or ()
    kept["devices"] = [one for one in mapped if not str(one).startswith("/dev/nvidia")]
    dropped = [n for n in ("device_requests", "devices") if len(extra.get(n) or ()) > len(kept[n])]
    if kept.pop("privileged", False):
        dropped.append("privileged")
    if dropped:
        spawner.log.warning(
            "%s: dropped from extra_host_config, it gives GPUs past the scheduler: %s",
            spawner._log_name,
            ", ".join(dropped),
        )
    return {name: value for name, value in kept.items() if value or name in extra}


def _asks_for_gpus(request: Mapping[str, Any]) -> bool:
    """Whether a device request (Docker's words, or those of the SDK) is for NVIDIA's GPUs."""
    words = {str(name).lower(): value for name, value in request.items()}
    if words.get("driver") == "cdi":
        ids = words.get("deviceids") or words.get("device_ids") or ()
        return any(str(name).startswith("nvidia.com/") for name in ids)
    groups = words.get("capabilities") or ()
    return words.get("driver") in (None, "", "nvidia") or any("gpu" in group for group in groups)


def _as_dict(value: Any) -> dict[str, Any]:
    """Docker takes ``{"A": "b"}`` and ``["A=b"]``."""
    if isinstance(value, Mapping):
        return dict(value)
    return {name: text for name, _, text in (str(one).partition("=") for one in value or ())}


async def home_of(spawner: Any, ledger: str, owner: str) -> list[str]:
    """The bind of the user's home volume, which is made where it is not there yet."""
    if not spawner.home_path:
        return []
    home = await spawner.engine(
        volumes.ensure_home,
        username=spawner.user.name,
        owner=owner,
        ledger=ledger,
        driver=spawner.home_driver,
        options=spawner.home_options,
    )
    return [f"{home.name}:{spawner.home_path}:rw"]


async def _rendered(spawner: Any, extra: Any) -> dict[str, Any]:
    """Extra keywords of the configuration: a dict, or a callable that returns one."""
    extra = spawner._eval_if_callable(extra)
    if inspect.isawaitable(extra):
        extra = await extra
    return dict(spawner._render_templates(extra))


def environment(spawner: Any, env: dict[str, Any], granted: Granted) -> dict[str, Any]:
    """``env`` without what decides about GPUs, and with what we say about them."""
    allowed, removed = devices.strip_protected(env)
    if removed:
        spawner.log.warning("%s: dropped from the environment: %s", spawner._log_name, removed)
    return {**allowed, **devices.environment(granted.devices, granted.injection)}


def limits_of(resolved: ResolvedProfile) -> ResourceLimits:
    """What the kernel shall enforce for a resolved profile. ConfigError for nonsense.

    A CPU guarantee is no limit: Docker has nothing that keeps it.
    """
    names = [name for name in LIMIT_TRAITS if name != "cpu_guarantee"]
    values = {name: getattr(resolved, name) for name in names}
    return limits.parse_limits({name: v for name, v in values.items() if v is not None})
