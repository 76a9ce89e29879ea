"""What the hub is started with: GPUs, the bridge's address, free ports, the password."""

from __future__ import annotations

import os
import secrets
import shlex
import socket
from pathlib import Path

from docker.errors import NotFound

from deploy.quickstart.progress import step
from jupyterhub_gpuspawner.discovery.nvml import NvmlAbsent, NvmlSource
from jupyterhub_gpuspawner.engine.connect import connect
from jupyterhub_gpuspawner.errors import ConfigError, DiscoveryError

#: Simulated GPUs on a machine without real ones.
DEFAULT_SIMULATED = 4
#: Ports from the public one on: the hub's, the proxy's API and the scheduler's.
PORTS = 4


def gather(state: Path, simulate: int, port: int) -> dict[str, str]:
    """Environment variables for ``jupyterhub_config.py``.

    ``simulate``: 0 means real GPUs if there are any, else four simulated ones.
    """
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    state.chmod(0o700)
    bridge = bridge_address()
    check_ports(port, bridge)
    wanted = simulate or default_simulation()
    return {
        "GPUS_STATE_DIR": str(state),
        "GPUS_PORT": str(port),
        "GPUS_SIMULATE": str(wanted),
        # simulated ones that were asked for win over real ones
        "GPUS_DISCOVERY": "simulated" if wanted else "auto",
        "GPUS_BRIDGE_IP": bridge,
        "GPUS_PASSWORD": password(state / "password"),
    }


def shell_line(name: str, value: str) -> str:
    """``export NAME=value``, quoted."""
    return f"export {name}={shlex.quote(value)}"


def default_simulation() -> int:
    """How many GPUs to simulate: none where NVML lists real ones."""
    try:
        report = NvmlSource(os.uname().nodename, lambda: ()).discover()
    except NvmlAbsent:
        step(f"no NVIDIA GPU here: {DEFAULT_SIMULATED} SIMULATED ones are offered")
        return DEFAULT_SIMULATED
    except DiscoveryError as error:
        step(f"NVML fails ({error}): {DEFAULT_SIMULATED} SIMULATED GPUs are offered instead")
        return DEFAULT_SIMULATED
    step(f"{len(report.devices)} GPU devices found by NVML")
    return 0


def bridge_address() -> str:
    """The address of this machine on the engine's default bridge, where servers find the hub."""
    if os.environ.get("GPUS_BRIDGE_IP"):
        return os.environ["GPUS_BRIDGE_IP"]
    try:
        network = connect(None, 30.0).networks.get("bridge").attrs
    except NotFound:
        raise ConfigError(
            "the engine has no network 'bridge': set GPUS_BRIDGE_IP to an address of this machine, "
            "at which servers can call the hub"
        ) from None
    for part in network["IPAM"]["Config"] or []:
        # an IPv6 pool may stand beside it
        if "." in part.get("Gateway", ""):
            return str(part["Gateway"])
        if "." in part.get("Subnet", ""):
            first = part["Subnet"].partition("/")[0].rpartition(".")[0]
            return f"{first}.1"
    raise ConfigError("the engine's network 'bridge' has no IPv4 gateway: set GPUS_BRIDGE_IP")


def check_ports(port: int, bridge: str) -> None:
    """Raise ``ConfigError`` where the hub could not listen."""
    places = [("127.0.0.1", port), ("127.0.0.1", port + 1), (bridge, port + 2)]
    places.append(("127.0.0.1", port + PORTS - 1))
    for address, number in places:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, number))
            except OSError as error:
                raise ConfigError(_why(address, number, port, bridge, error)) from error


def _why(address: str, number: int, port: int, bridge: str, error: OSError) -> str:
    taken = f"{address}:{number} can't be used ({error.strerror})"
    if address == bridge and error.errno != 98:  # EADDRINUSE
        return (
            f"{taken}: the engine's bridge address is not on this machine. "
            "Restart Docker, or set GPUS_BRIDGE_IP to an address that containers reach"
        )
    return f"{taken}: choose another with --port; ports {port} to {port + PORTS - 1} are needed"


def password(path: Path) -> str:
    """The password of everybody: made once, kept with mode 0600, shown once."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        pass
    made = secrets.token_urlsafe(12)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as out:
        out.write(made + "\n")
    return made
