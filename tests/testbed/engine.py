"""One Docker engine of our own: real, with CDI, on this machine, beside any other engine.

A *node* is a mount and a UTS namespace held by a small process; ``dockerd`` runs in it, on a
root file system of its own. It stays while the daemon dies and comes back, as a machine does:
containers survive a ``kill -9`` of the daemon, and the next daemon finds them. The network
namespace is the host's, because a hub on the host must reach the containers' addresses.

Everything started is recorded in ``state.json`` by pid and start time, bridge name and boot id;
a later ``start`` or ``stop`` (of any process) works from there.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import docker

from tests.testbed import config, host, processes, rootfs
from tests.testbed.processes import Process

START_SECONDS = 60.0
#: for the engine to be empty
WIPE_SECONDS = 30.0

#: Runs in the new namespaces; all mounts vanish with them.
_NODE = """
set -e
mount --bind "$1" "$2/root"
for m in proc sys dev; do mount --rbind "/$m" "$2/root/$m"; done
mount -t tmpfs tmpfs "$2/root/run"
mount -t tmpfs tmpfs "$2/root/tmp"
mount --bind "$2/data" "$2/root/data"
mount --bind "$2/etc" "$2/root/etc/docker"
mount --bind "$2/cdi" "$2/root/etc/cdi"
mount --bind "$2/run" "$2/root/out"
hostname "$3"
# Not chroot: what enters the mount namespace later ("docker exec", health checks) starts at the
# namespace's own root, and with chroot that is the machine's, outside of every container.
cd "$2/root"
pivot_root . mnt
umount --lazy /mnt
touch /out/ready
exec sleep infinity
"""


class EngineError(RuntimeError):
    """The testbed's engine did not do as asked; the text holds the end of its log."""


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """What is recorded of a started engine."""

    boot_id: str
    node: str
    devices: int
    bridge: str
    #: the bridge's address, where containers reach the host, such as 10.78.3.1
    gateway: str
    holder: Process
    mount_namespace: str
    daemon: Process


def _read_state(path: Path) -> State | None:
    """The record of this boot; None when there is none. After a reboot nothing of it is left."""
    try:
        data: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    data["holder"] = Process(**data["holder"])
    data["daemon"] = Process(**data["daemon"])
    state = State(**data)
    return state if state.boot_id == processes.boot_id() else None


class Engine:
    """A Docker engine with ``devices`` simulated GPUs, named ``SIMULATED-<node>-<k>``.

    ``name`` tells engines on one machine apart; ``node`` is its host name (default: the name).
    """

    def __init__(
        self,
        name: str = "main",
        *,
        node: str | None = None,
        devices: int = 4,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.node = node or name
        self.devices = devices
        #: more lines of daemon.json, read at each start of the daemon
        self.settings = dict(settings or {})
        self.folder = rootfs.home() / "engines" / name
        self.socket = self.folder / "run" / "docker.sock"
        self.base_url = f"unix://{self.socket}"
        self._state_file = self.folder / "state.json"
        self._log = self.folder / "log"
        digest = hashlib.sha256(str(self.folder).encode()).hexdigest()
        #: Host-wide name of the bridge and of the control group; from the folder, so that
        #: engines of two checkouts or caches never meet. An interface name has 15 characters.
        self.tag = f"gtb{digest[:8]}"
        self._seed = int(digest[8:12], 16)

    @classmethod
    def from_environment(cls) -> Engine:
        """The engine of the single-machine tests. ``GPUS_TESTBED_NAME`` gives you your own."""
        return cls(os.environ.get("GPUS_TESTBED_NAME") or "main", node="testbed")

    def family(self) -> list[Engine]:
        """This engine and the recorded ones of tests that wanted their own: ``<name>-<word>``."""
        records = rootfs.home().glob(f"engines/{self.name}-*/state.json")
        return [self, *(Engine(record.parent.name) for record in sorted(records))]

    @property
    def device_ids(self) -> tuple[str, ...]:
        return tuple(f"SIMULATED-{self.node}-{k}" for k in range(self.devices))

    @property
    def gateway(self) -> str:
        """The address under which a container of the default bridge reaches the host."""
        return self._started().gateway

    def client(self, timeout: float = 60) -> docker.DockerClient:
        """A new client; the caller closes it."""
        return docker.DockerClient(base_url=self.base_url, timeout=timeout)

    # --- life ---

    @property
    def data(self) -> Path:
        """The daemon's own folder; a small file system may be mounted here before the start."""
        return self.folder / "data"

    def start(self) -> bool:
        """Bring the engine up, empty but for its images. False when it was up already.

        What a killed earlier run left is taken away first.
        """
        root = rootfs.ensure_engine_root()
        with rootfs.locked(f"engine-{self.name}"):
            state = _read_state(self._state_file)
            if state is not None and self._fits(state) and self.answers():
                return False
            self._tear_down(state)
            self._make_folders()
            self._write_config()
            self.write_cdi(self.devices)
            holder = self._start_node(root)
            namespace = processes.mount_namespace(holder.pid)
            if namespace is None:
                raise EngineError(f"the node's process died: {self.log_tail()}")
            try:
                gateway = self._connect(holder)
            except BaseException:
                holder.send(signal.SIGKILL)
                raise
            self._write_state(
                State(
                    boot_id=processes.boot_id(),
                    node=self.node,
                    devices=self.devices,
                    bridge=self.tag,
                    gateway=gateway,
                    holder=holder,
                    mount_namespace=namespace,
                    daemon=self._spawn_daemon(holder),
                )
            )
            self._wait_ready()
            self.wipe()
            return True

    def stop(self) -> None:
        """Take everything of this engine away but its images. May be repeated."""
        with rootfs.locked(f"engine-{self.name}"):
            state = _read_state(self._state_file)
            if state is not None and state.holder.alive:
                # Only the daemon knows the networks that it made on the host.
                self._revive(state)
                self.wipe()
            self._tear_down(_read_state(self._state_file))

    def kill9(self) -> None:
        """``kill -9`` of the daemon. Containers live on, as they do on a real machine."""
        daemon = self._started().daemon
        daemon.send(signal.SIGKILL)
        daemon.wait_gone(10)

    def power_off(self) -> None:
        """Kill all that runs on the node at once, its containers too; :meth:`restart` ends it."""
        self._kill_members(self._started())

    def freeze(self) -> None:
        """Make the daemon hang: it accepts connections and never answers."""
        self._started().daemon.stop()

    def thaw(self) -> None:
        """End ``freeze``."""
        self._started().daemon.send(signal.SIGCONT)

    def restart(self) -> None:
        """Stop the daemon (if it still runs) and start it again; the node stays."""
        state = self._started()
        self._terminate(state.daemon)
        self._write_config()
        self._start_daemon_again(state)

    def shut_down(self) -> None:
        """Stop the daemon as an administrator does; the node stays, for :meth:`restart`."""
        self._terminate(self._started().daemon)

    def answers(self) -> bool:
        """True when the daemon answers a ping within 5 s."""
        # By hand: a docker client that can't connect leaves its socket open.
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(5)
                connection.connect(str(self.socket))
                connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
                return b" 200 OK" in connection.recv(1000)
        except OSError:
            return False

    def wipe(self) -> None:
        """Remove all containers, volumes and networks. The engine is ours alone, so all are."""
        if "--net" not in self.namespaces:
            host.let_in(self.gateway)
        client = self.client()
        try:
            until = time.monotonic() + WIPE_SECONDS
            while left := self._remove_all(client):
                if time.monotonic() > until:
                    raise EngineError(f"engine {self.name} does not get empty: {'; '.join(left)}")
                time.sleep(0.2)
        finally:
            client.close()

    def _remove_all(self, client: docker.DockerClient) -> list[str]:
        """Remove what there is; why something could not be removed yet."""
        containers = client.containers.list(all=True, ignore_removed=True)
        things: list[tuple[Any, dict[str, bool]]] = [
            *((container, {"force": True, "v": True}) for container in containers),
            *((network, {}) for network in self._removable_networks(client)),
            *((volume, {"force": True}) for volume in client.volumes.list()),
        ]
        left = []
        for thing, how in things:
            try:
                thing.remove(**how)
            except docker.errors.NotFound:
                pass
            except docker.errors.APIError as error:
                # somebody removes it already, or what uses it is not quite gone
                if error.status_code not in (403, 409):
                    raise
                left.append(str(error.explanation))
        return left

    def _removable_networks(self, client: docker.DockerClient) -> list[Any]:
        own = ("bridge", "host", "none")
        return [network for network in client.networks.list() if network.name not in own]

    def log_tail(self, lines: int = 10) -> str:
        """The end of the daemon's log."""
        try:
            return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])
        except FileNotFoundError:
            return "(no log)"

    @property
    def pid(self) -> int:
        """The process that holds the node's namespaces."""
        return self._started().holder.pid

    # --- how it is connected ---

    #: of ``unshare``: the namespaces that the node has of its own
    namespaces: tuple[str, ...] = ("--mount", "--uts")

    def _connect(self, holder: Process) -> str:
        """Connect the node; returns the address under which its containers reach the host."""
        return host.make_bridge(self.tag, self._seed)

    def _disconnect(self) -> None:
        """Undo :meth:`_connect`. May be repeated."""
        address = host.address_of(self.tag)
        if address is not None:
            host.keep_out(address)
        host.remove_bridge(self.tag)

    def _settings(self) -> dict[str, Any]:
        """The daemon's settings."""
        resolvers = config.resolvers(Path("/etc/resolv.conf").read_text())
        return config.daemon_config(self.tag, resolvers)

    # --- parts ---

    def write_cdi(self, devices: int) -> None:
        """Offer the first ``devices`` of our devices through CDI; the daemon looks again itself."""
        ids = self.device_ids[:devices]
        (self.folder / "cdi" / "nvidia.json").write_text(json.dumps(config.cdi_spec(ids), indent=1))

    def _started(self) -> State:
        state = _read_state(self._state_file)
        if state is None:
            raise EngineError(f"the testbed's engine {self.name} is not started")
        return state

    def _fits(self, state: State) -> bool:
        return (state.node, state.devices) == (self.node, self.devices) and state.holder.alive

    def _write_state(self, state: State) -> None:
        partial = self._state_file.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(state), indent=1))
        partial.rename(self._state_file)

    def _make_folders(self) -> None:
        for part in ("data", "etc", "cdi", "run", "root"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        for stale in ("ready", "docker.sock"):
            (self.folder / "run" / stale).unlink(missing_ok=True)
        self._log.write_text("")

    def _write_config(self) -> None:
        settings = json.dumps({**self._settings(), **self.settings}, indent=1)
        (self.folder / "etc" / "daemon.json").write_text(settings)

    def _start_node(self, root: Path) -> Process:
        holder = processes.spawn(
            [
                *("unshare", *self.namespaces, "--propagation", "private"),
                *("sh", "-c", _NODE, "node", str(root), str(self.folder), self.node),
            ],
            self._log,
        )
        end = time.monotonic() + START_SECONDS
        while not (self.folder / "run" / "ready").exists():
            if not holder.alive or time.monotonic() > end:
                holder.send(signal.SIGKILL)
                raise EngineError(f"the node did not start: {self.log_tail()}")
            time.sleep(0.02)
        return holder

    def _spawn_daemon(self, holder: Process) -> Process:
        spaces = f"/proc/{holder.pid}/ns"
        root = Path(f"/proc/{holder.pid}/root")
        for record in ("out/docker.pid", "run/docker/containerd/containerd.pid"):
            _forget_dead(root / record)
        # nsenter, env and dockerd replace each other, so this pid becomes the daemon's.
        return processes.spawn(
            [
                *("nsenter", f"--mount={spaces}/mnt", f"--uts={spaces}/uts"),
                f"--net={spaces}/net",
                # Not our environment: with a proxy in it the daemon would look for registries.
                *("env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "dockerd"),
            ],
            self._log,
        )

    def _start_daemon_again(self, state: State) -> None:
        fields = {name: getattr(state, name) for name in State.__dataclass_fields__}
        self._write_state(State(**{**fields, "daemon": self._spawn_daemon(state.holder)}))
        self._wait_ready()

    def _wait_ready(self) -> None:
        daemon = self._started().daemon
        end = time.monotonic() + START_SECONDS
        while not self.answers():
            if not daemon.alive or time.monotonic() > end:
                raise EngineError(f"dockerd did not start: {self.log_tail()}")
            time.sleep(0.05)

    def _revive(self, state: State) -> None:
        """Have a daemon that answers, whatever a test did to it; containers may end."""
        state.daemon.send(signal.SIGCONT)
        if not self.answers():
            # With the containers: the next daemon would ask each to end, and wait 20 s.
            self._kill_members(state)
            self._start_daemon_again(state)

    def _terminate(self, daemon: Process) -> None:
        daemon.send(signal.SIGCONT)
        daemon.send(signal.SIGTERM)
        if not daemon.wait_gone(30):
            daemon.send(signal.SIGKILL)
            daemon.wait_gone(10)

    def _tear_down(self, state: State | None) -> None:
        """End all processes of the engine, and take away its bridge and control groups."""
        if state is not None:
            self._terminate(state.daemon)
            self._kill_members(state)
            state.holder.send(signal.SIGKILL)
            state.holder.wait_gone(10)
        self._disconnect()
        host.remove_control_groups(self.tag)
        self._state_file.unlink(missing_ok=True)

    def _kill_members(self, state: State) -> None:
        """Kill all that runs in the node, such as what a dead daemon left; the node stays."""
        end = time.monotonic() + 20
        # Once a shim is dead its container's process is nobody's member, and may still be dying.
        left: set[Process] = set()
        while left := _members(state) | {process for process in left if process.alive}:
            if time.monotonic() > end:
                raise EngineError(f"these processes don't end: {sorted(p.pid for p in left)}")
            for process in left:
                process.send(signal.SIGKILL)
            time.sleep(0.05)


def _members(state: State) -> set[Process]:
    """All that runs in the node, without what holds it."""
    return processes.members(state.mount_namespace) - {state.holder}


def _forget_dead(record: Path) -> None:
    """Remove the pid file of a dead process: one that nobody reaped yet passes for running."""
    try:
        process = Process.of(int(record.read_text()))
    except FileNotFoundError:
        return
    # containerd dies with its daemon, though not in the same instant.
    if process is None or process.wait_gone(5):
        record.unlink()
