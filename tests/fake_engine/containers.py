"""Containers: states and the rules between them. Bodies are inspect's, as they are stored."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from tests.fake_engine.events import Events
from tests.fake_engine.networks import Networks
from tests.fake_engine.rules import NEVER, Refused, labels_fit, new_id, stamp
from tests.fake_engine.volumes import Volumes

_NAME = re.compile(r"/?[a-zA-Z0-9][a-zA-Z0-9_.-]+")
#: ``NetworkMode`` values that mean the default bridge
_BRIDGE = ("", "default", "bridge")


class Containers:
    """All containers, by id.

    Parameters
    ----------
    images:
        Name -> its configuration.
    cdi:
        Fully qualified names of CDI devices that can be injected.
    """

    def __init__(
        self,
        events: Events,
        networks: Networks,
        volumes: Volumes,
        images: dict[str, dict[str, Any]],
        cdi: set[str],
    ) -> None:
        self._events, self._networks, self._volumes = events, networks, volumes
        self.images = images
        self.cdi = cdi
        self.by_id: dict[str, dict[str, Any]] = {}
        self.logs: dict[str, bytes] = {}
        #: called after a container runs, and after it does not any more
        self.on_up: Callable[[dict[str, Any]], None] = lambda info: None
        self.on_down: Callable[[str], None] = lambda id: None

    # -- looking ---------------------------------------------------------------------------

    def find(self, which: str) -> dict[str, Any]:
        """By id, name, or the beginning of an id."""
        for info in self.by_id.values():
            if which in (info["Id"], info["Name"][1:], info["Name"]):
                return info
        short = [info for id, info in self.by_id.items() if which and id.startswith(which)]
        if len(short) == 1:
            return short[0]
        raise Refused(404, f"No such container: {which}")

    def image(self, ref: str) -> dict[str, Any]:
        """An image by name."""
        name = ref if ":" in ref.rpartition("/")[2] else f"{ref}:latest"
        if name not in self.images:
            raise Refused(404, f"No such image: {name}")
        return self.images[name]

    def list(self, everything: bool, filters: dict[str, list[str]]) -> list[dict[str, Any]]:
        """As ``GET /containers/json``, the newest first."""
        rows = []
        for info in reversed(self.by_id.values()):
            status = info["State"]["Status"]
            wanted = filters.get("status")
            if wanted is None and not everything and status not in ("running", "paused"):
                continue
            if wanted is not None and status not in wanted:
                continue
            if not labels_fit(info["Config"]["Labels"], filters.get("label", [])):
                continue
            if not any(re.search(name, info["Name"]) for name in filters.get("name", [""])):
                continue
            rows.append(self._row(info))
        return rows

    @staticmethod
    def _row(info: dict[str, Any]) -> dict[str, Any]:
        status = info["State"]["Status"]
        return {
            "Id": info["Id"],
            "Names": [info["Name"]],
            "Image": info["Config"]["Image"],
            "ImageID": info["Image"],
            "Command": " ".join(info["Config"]["Cmd"] or ()),
            "Created": int(info["_created"]),
            "Ports": [],
            "Labels": dict(info["Config"]["Labels"]),
            "State": status,
            "Status": status.capitalize(),
            "HostConfig": {"NetworkMode": info["HostConfig"]["NetworkMode"]},
            "NetworkSettings": {"Networks": dict(info["NetworkSettings"]["Networks"])},
            "Mounts": list(info["Mounts"]),
        }

    # -- life ------------------------------------------------------------------------------

    def create(self, name: str, body: dict[str, Any], now: float) -> dict[str, Any]:
        """Make a container. A name is taken once."""
        image = self.image(str(body.get("Image") or ""))
        name = name.lstrip("/") or f"fake_{new_id()[:8]}"
        if not _NAME.fullmatch(name):
            allowed = "[a-zA-Z0-9][a-zA-Z0-9_.-]"
            words = f"Invalid container name ({name}), only {allowed} are allowed"
            raise Refused(400, words)
        for other in self.by_id.values():
            if other["Name"] == f"/{name}":
                raise Refused(
                    409,
                    f'Conflict. The container name "/{name}" is already in use by container '
                    f'"{other["Id"]}". You have to remove (or rename) that container to be able '
                    "to reuse that name.",
                )
        id = new_id()
        host = dict(body.get("HostConfig") or {})
        host["NetworkMode"] = host.get("NetworkMode") or "default"
        config = {
            "Cmd": body.get("Cmd") or image["Config"].get("Cmd"),
            "Env": [*(body.get("Env") or ()), *(image["Config"].get("Env") or ())],
            "Hostname": body.get("Hostname") or id[:12],
            "Image": body["Image"],
            "Labels": {**(image["Config"].get("Labels") or {}), **(body.get("Labels") or {})},
            "ExposedPorts": body.get("ExposedPorts"),
            "User": body.get("User") or "",
            "Tty": bool(body.get("Tty")),
        }
        if not config["ExposedPorts"]:
            del config["ExposedPorts"]
        wanted = (body.get("NetworkingConfig") or {}).get("EndpointsConfig") or {}
        info: dict[str, Any] = {
            "Id": id,
            "Created": stamp(now),
            "_created": now,
            "Name": f"/{name}",
            "Image": image["Id"],
            "RestartCount": 0,
            "Driver": "overlay2",
            "Platform": "linux",
            "State": _state("created"),
            "Config": config,
            "HostConfig": host,
            "Mounts": [],
            "NetworkSettings": {"Ports": {}, "Networks": {}},
        }
        first = "bridge" if host["NetworkMode"] in _BRIDGE else host["NetworkMode"]
        info["NetworkSettings"]["Networks"] = {
            network: _endpoint() for network in dict.fromkeys([first, *wanted])
        }
        self._mount(info, body)
        self.by_id[id] = info
        self.logs[id] = b""
        self._say("create", info)
        return {"Id": id, "Warnings": []}

    def _mount(self, info: dict[str, Any], body: dict[str, Any]) -> None:
        """Volumes of binds and mounts, and anonymous ones of ``Volumes``."""
        places = {}
        for bind in info["HostConfig"].get("Binds") or ():
            source, target, *_ = bind.split(":")
            places[target] = source
        for mount in info["HostConfig"].get("Mounts") or ():
            places[mount["Target"]] = mount.get("Source", "")
        for target in body.get("Volumes") or ():
            places.setdefault(target, "")
        for target, source in places.items():
            mount = {"Destination": target, "Mode": "", "RW": True, "Propagation": ""}
            if source.startswith("/"):
                mount.update(Type="bind", Source=source)
            else:
                volume = self._volumes.use(source, info["Id"])
                mount.update(
                    Type="volume", Name=volume["Name"], Source=volume["Mountpoint"], Driver="local"
                )
            info["Mounts"].append(mount)

    def start(self, which: str) -> bool:
        """Start; False = it runs already."""
        info = self.find(which)
        state = info["State"]
        if state["Status"] == "running":
            return False
        if state["Status"] == "paused":
            raise Refused(409, "cannot start a paused container, try unpause instead")
        if state["Status"] in ("removing", "dead"):
            raise Refused(409, "container is marked for removal and cannot be started")
        for request in info["HostConfig"].get("DeviceRequests") or ():
            missing = [name for name in request.get("DeviceIDs") or () if name not in self.cdi]
            if request.get("Driver") == "cdi" and missing:
                names = ", ".join(missing)
                error = f"CDI device injection failed: unresolvable CDI devices {names}"
                state.update(ExitCode=128, Error=error)
                raise Refused(500, error)
        networks = {name: self._networks.find(name) for name in info["NetworkSettings"]["Networks"]}
        for name, network in networks.items():
            endpoint = self._networks.attach(network, info)
            info["NetworkSettings"]["Networks"][name].update(endpoint)
        first = next(iter(info["NetworkSettings"]["Networks"].values()), {})
        info["NetworkSettings"]["IPAddress"] = first.get("IPAddress", "")
        pid = 0  # no process: the kernel has nothing to say about it
        state.update(_state("running"), Running=True, Pid=pid, StartedAt=stamp())
        self.on_up(info)
        self._say("start", info)
        return True

    def end(self, which: str, code: int, *, oom: bool = False) -> None:
        """Its main process ends."""
        info = self.find(which)
        if info["State"]["Status"] not in ("running", "paused"):
            return
        started = info["State"]["StartedAt"]
        info["State"].update(
            _state("exited"), ExitCode=code, OOMKilled=oom, StartedAt=started, FinishedAt=stamp()
        )
        for name, endpoint in info["NetworkSettings"]["Networks"].items():
            network = self._networks.by_id.get(endpoint.get("NetworkID", ""))
            if network is not None:
                self._networks.detach(network, info)
            info["NetworkSettings"]["Networks"][name] = {
                **_endpoint(),
                "NetworkID": endpoint.get("NetworkID", ""),
            }
        info["NetworkSettings"]["IPAddress"] = ""
        self.on_down(info["Id"])
        if oom:
            self._say("oom", info)
        self._say("die", info, exitCode=code)

    def pause(self, which: str, paused: bool) -> None:
        """Freeze or thaw."""
        info = self.find(which)
        state = info["State"]["Status"]
        if paused and state == "paused":
            raise Refused(409, f"Container {info['Id']} is already paused")
        if state != ("running" if paused else "paused"):
            words = "is not running" if paused else "is not paused"
            raise Refused(409, f"Container {info['Id']} {words}")
        info["State"].update(Status="paused" if paused else "running", Paused=paused)
        self._say("pause" if paused else "unpause", info)

    def begin_removal(self, which: str, force: bool) -> dict[str, Any]:
        """The checks, and the state in which it is until :meth:`forget`."""
        info = self.find(which)
        state = info["State"]["Status"]
        if state == "removing":
            raise Refused(409, f"removal of container {which} is already in progress")
        if state in ("running", "paused") and not force:
            what = f'cannot remove container "{info["Name"]}": container is {state}'
            how = ": stop the container before removing or force remove"
            if state == "paused":
                how = " and must be unpaused first"
            raise Refused(409, f"{what}{how}")
        if state in ("running", "paused"):
            self._say("kill", info, signal=9)
            self.end(info["Id"], 137)
        info["State"]["Status"] = "removing"
        return info

    def forget(self, info: dict[str, Any], volumes: bool) -> None:
        """It is gone."""
        del self.by_id[info["Id"]]
        del self.logs[info["Id"]]
        self._volumes.drop(info["Id"], volumes)
        self._say("destroy", info)

    def tell(self, action: str, which: str, **more: Any) -> None:
        """An event that changes nothing: ``kill``, ``stop``."""
        self._say(action, self.find(which), **more)

    def _say(self, action: str, info: dict[str, Any], **more: Any) -> None:
        attributes = {
            **info["Config"]["Labels"],
            "image": info["Config"]["Image"],
            "name": info["Name"][1:],
            **more,
        }
        self._events.tell("container", action, info["Id"], attributes)

    def connect(self, network: dict[str, Any], which: str) -> None:
        """``docker network connect``."""
        info = self.find(which)
        there = info["NetworkSettings"]["Networks"]
        if network["Name"] in there:
            if info["State"]["Status"] != "running":
                return
            words = f"endpoint with name {info['Name'][1:]} already exists in network"
            raise Refused(403, f"{words} {network['Name']}")
        there[network["Name"]] = {**_endpoint(), "NetworkID": network["Id"]}
        if info["State"]["Status"] == "running":
            there[network["Name"]].update(self._networks.attach(network, info))
            self.on_up(info)

    def disconnect(self, network: dict[str, Any], which: str) -> None:
        """``docker network disconnect``."""
        info = self.find(which)
        if network["Name"] not in info["NetworkSettings"]["Networks"]:
            words = f"container {info['Id']} is not connected to network {network['Name']}"
            raise Refused(500 if info["State"]["Status"] == "running" else 403, words)
        del info["NetworkSettings"]["Networks"][network["Name"]]
        self._networks.detach(network, info)


def _state(status: str) -> dict[str, Any]:
    return {
        "Status": status,
        "Running": False,
        "Paused": False,
        "Restarting": False,
        "OOMKilled": False,
        "Dead": False,
        "Pid": 0,
        "ExitCode": 0,
        "Error": "",
        "StartedAt": NEVER,
        "FinishedAt": NEVER,
    }


def _endpoint() -> dict[str, Any]:
    return {
        "NetworkID": "",
        "EndpointID": "",
        "Gateway": "",
        "IPAddress": "",
        "IPPrefixLen": 0,
    }
