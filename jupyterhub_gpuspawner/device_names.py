"""Names under which devices reach a container: discovery defines them, the engine asks for them."""

from __future__ import annotations

#: CDI vendor and class under which NVIDIA's toolkit, and our simulated spec, list devices
CDI_KIND = "nvidia.com/gpu"

#: where a simulated device shows in a container, one file each
MARKER_DIR = "/run/gpus"

#: where NVIDIA's toolkit reads the wanted devices from mounts (its option
#: ``accept-nvidia-visible-devices-as-volume-mounts``), one file each
TOOLKIT_MOUNTS = "/var/run/nvidia-container-devices"


def qualified(device_id: str) -> str:
    """The fully qualified CDI name: ``nvidia.com/gpu=GPU-…``."""
    return f"{CDI_KIND}={device_id}"


def marker_path(device_id: str) -> str:
    """The path in the container that shows a simulated device."""
    return f"{MARKER_DIR}/{device_id}"
