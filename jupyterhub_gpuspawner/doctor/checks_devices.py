"""GPUs: driver, CDI, NVIDIA's container toolkit. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ..device_names import CDI_KIND, qualified
from ..discovery.toolkit import FIX, ignores_resources, settings_of
from .checks_engine import daemon, numbers
from .facts import Facts
from .registry import Found, check, error, warning

#: the first toolkit without the way out of a container (CVE-2025-23266)
SAFE = (1, 17, 8)
_GENERATE = "nvidia-ctk cdi generate --device-name-strategy=uuid --output=/etc/cdi/nvidia.yaml"


def _uuids(facts: Facts) -> list[str]:
    """What can be given out: whole GPUs, and MIG instances."""
    found = []
    for gpu in (facts.nvml or {}).get("gpus", ()):
        for one in gpu["mig"] if gpu.get("mig_enabled") else [gpu]:
            if one.get("uuid"):
                found.append(str(one["uuid"]))
    return found


@check("gpu.driver", "nvml")
def driver(facts: Facts) -> Iterator[Found]:
    """NVIDIA's driver answers, where there are GPUs."""
    if not facts.hardware:
        return
    if facts.nvml is None:
        yield error(
            f"{facts.hardware} NVIDIA GPUs are on the bus, and no driver answers",
            "No GPU is offered.",
            "install NVIDIA's driver, and load it: modprobe nvidia; dmesg | grep -i nvrm",
        )
        return
    trouble = facts.nvml.get("error")
    if trouble:
        mismatch = "mismatch" in str(trouble.get("text", "")).lower()
        yield error(
            f"NVIDIA's driver answers {trouble.get('call')} with: {trouble.get('text')}",
            "No GPU is offered."
            if not mismatch
            else "The driver was upgraded, and the old one is still loaded: no GPU is offered.",
            "reboot the machine" if mismatch else "nvidia-smi, and dmesg | grep -i -e nvrm -e xid",
        )
    elif len(facts.nvml["gpus"]) < facts.hardware:
        yield error(
            f"{facts.hardware} NVIDIA GPUs are on the bus, the driver knows "
            f"{len(facts.nvml['gpus'])}",
            "The others are not offered.",
            "dmesg | grep -i -e nvrm -e xid; a GPU that fell off the bus wants a reboot",
        )


@check("gpu.way", "info", "nvml")
def way(facts: Facts) -> Iterator[Found]:
    """Docker can put GPUs into containers: by CDI, or by NVIDIA's runtime."""
    runtime = "nvidia" in (facts.info.get("Runtimes") or {})
    if _uuids(facts) and not facts.info.get("CDISpecDirs") and not runtime:
        yield error(
            "there are GPUs, and Docker has neither CDI nor NVIDIA's runtime",
            "No server with a GPU can start.",
            daemon('"features": {"cdi": true}') + f"; {_GENERATE}",
        )


@check("cdi.off", "info")
def cdi_off(facts: Facts) -> Iterator[Found]:
    """CDI is switched on, where Docker has it."""
    found = numbers(str(facts.info.get("ServerVersion") or ""))
    if found >= (25,) and not facts.info.get("CDISpecDirs"):
        yield warning(
            "CDI is switched off in Docker",
            "GPUs, also simulated ones, go another way, which a daemon-reload can break.",
            daemon('"features": {"cdi": true}'),
        )


@check("cdi.folder", "cdi_folders")
def cdi_folder(facts: Facts) -> Iterator[Found]:
    """One of the folders that Docker reads CDI files from is there."""
    if facts.cdi_folders and not any(facts.cdi_folders.values()):
        names = ", ".join(facts.cdi_folders)
        yield error(
            f"Docker reads CDI devices from {names}, and there is no such folder",
            "No device can be put into a container by CDI.",
            f"mkdir -p {next(iter(facts.cdi_folders))}; {_GENERATE}",
        )


@check("cdi.broken", "cdi_specs")
def cdi_broken(facts: Facts) -> Iterator[Found]:
    """Every CDI file can be read."""
    for path, spec in facts.cdi_specs.items():
        if spec.error:
            yield error(
                f"{path} can't be read: {spec.error}",
                "Docker leaves it out, and says 'unresolvable CDI devices' at the start of a "
                "server.",
                f"mend or remove it; for NVIDIA's GPUs: {_GENERATE}",
                about=path,
            )


@check("cdi.missing-files", "cdi_specs")
def cdi_missing(facts: Facts) -> Iterator[Found]:
    """Every file that CDI brings into containers is on the machine."""
    for path, spec in facts.cdi_specs.items():
        if spec.missing:
            more = f" and {len(spec.missing) - 1} more" if len(spec.missing) > 1 else ""
            yield error(
                f"{path} names {spec.missing[0]}{more}, which is not on this machine",
                "It is of a driver that was upgraded since: the start of every server with a GPU "
                "fails.",
                _GENERATE,
                about=path,
            )


@check("cdi.twice", "cdi_specs")
def cdi_twice(facts: Facts) -> Iterator[Found]:
    """No device is defined by two files."""
    count = Counter(name for spec in facts.cdi_specs.values() for name in set(spec.names))
    twice = sorted(name for name, times in count.items() if times > 1)
    if twice:
        files = [path for path, spec in facts.cdi_specs.items() if set(spec.names) & set(twice)]
        yield error(
            f"{twice[0]}{f' and {len(twice) - 1} more' if len(twice) > 1 else ''} is defined by "
            f"{' and '.join(files)}",
            "For CDI that is a conflict: it injects none of them.",
            f"rm {files[-1]}",
        )


@check("cdi.unknown-gpu", "cdi_specs", "nvml", "info")
def cdi_unknown(facts: Facts) -> Iterator[Found]:
    """CDI knows every GPU by its UUID."""
    known = {name for spec in facts.cdi_specs.values() for name in spec.names}
    late = [one for one in _uuids(facts) if qualified(one) not in known]
    ours = any(name.startswith(f"{CDI_KIND}=") for name in known)
    if late and facts.info.get("CDISpecDirs") and (ours or "nvidia" not in facts.info["Runtimes"]):
        yield error(
            f"CDI does not know {late[0]}{f' and {len(late) - 1} more' if len(late) > 1 else ''}",
            "These GPUs are not offered: the file is older than the GPUs or the MIG instances, or "
            "names them by number.",
            _GENERATE,
        )


@check("toolkit.version", "toolkit")
def toolkit_version(facts: Facts) -> Iterator[Found]:
    """NVIDIA's container toolkit has no known way out of a container."""
    if facts.toolkit and numbers(facts.toolkit) < SAFE:
        yield error(
            f"NVIDIA's container toolkit is {facts.toolkit}",
            "Before 1.17.8 an image can become root on the machine (CVE-2025-23266).",
            "apt-get install nvidia-container-toolkit, of NVIDIA's repository",
        )
    elif facts.toolkit is None and _has_runtime(facts):
        yield error(
            "Docker has NVIDIA's runtime, and the toolkit is not installed",
            "The start of every server with a GPU fails.",
            "apt-get install nvidia-container-toolkit, of NVIDIA's repository",
        )


def _has_runtime(facts: Facts) -> bool:
    return (
        facts.local
        and facts.unknown("info") is None
        and "nvidia" in (facts.info.get("Runtimes") or {})
    )


@check("toolkit.swarm", "toolkit", "info")
def toolkit_swarm(facts: Facts) -> Iterator[Found]:
    """On a Swarm the toolkit honours what the Swarm assigns."""
    swarm = (facts.info.get("Swarm") or {}).get("LocalNodeState") == "active"
    if not facts.toolkit or not swarm or not ignores_resources(facts.toolkit):
        return
    config = "" if facts.unknown("toolkit_config") is not None else facts.toolkit_config
    if not settings_of(config).mounts:
        yield error(
            f"NVIDIA's container toolkit {facts.toolkit} ignores swarm-resource",
            "Services on a Swarm see no GPU (nvidia-container-toolkit#1599).",
            f"{FIX}; or apt-get install nvidia-container-toolkit=1.17.9-1, or 1.19 and later",
        )


@check("toolkit.environment", "toolkit_config")
def toolkit_environment(facts: Facts) -> Iterator[Found]:
    """The toolkit gives no GPU to a container that only asks for it by a variable."""
    text = facts.toolkit_config
    if text and "accept-nvidia-visible-devices-envvar-when-unprivileged = false" not in text:
        yield warning(
            "NVIDIA's toolkit gives GPUs to every container that sets NVIDIA_VISIBLE_DEVICES",
            "Whoever may start containers on this machine past the Hub gets GPUs that are leased.",
            "accept-nvidia-visible-devices-envvar-when-unprivileged = false in "
            "/etc/nvidia-container-runtime/config.toml, where servers get GPUs by CDI",
        )


@check("gpu.discovery", "options", "nvml")
def discovery(facts: Facts) -> Iterator[Found]:
    """What the scheduler offers is what the machine has."""
    how, count = facts.options.discovery, facts.options.simulate
    real = len(_uuids(facts))
    if how == "simulated" and real:
        yield warning(
            f"discovery is 'simulated', and there are {real} real GPUs",
            "Users get GPUs that are not there; the real ones are not offered.",
            "c.GPUScheduler.discovery = 'auto'",
        )
    if how == "nvml" and not real:
        yield error(
            "discovery is 'nvml', and there is no GPU that NVIDIA's driver knows",
            "Nothing is offered.",
            "mend the driver; or c.GPUScheduler.discovery = 'auto' with c.GPUScheduler.simulate",
        )
    if how == "auto" and not real and not count:
        yield warning(
            "there is no GPU, and none is simulated",
            "Every profile with a GPU is refused.",
            "mend the driver; or c.GPUScheduler.simulate = 4 for a trial",
        )
    if how == "simulated" and not count:
        yield warning(
            "discovery is 'simulated', and simulate is 0",
            "Every profile with a GPU is refused.",
            "c.GPUScheduler.simulate = 4",
        )


@check("gpu.repair", "nvml")
def repair(facts: Facts) -> Iterator[Found]:
    """No GPU waits for a repair or a reset."""
    for gpu in (facts.nvml or {}).get("gpus", ()):
        pending = [
            word
            for key, word in (
                ("mig_pending", "a change of its MIG mode"),
                ("remap_pending", "a repair of its memory"),
                ("retire_pending", "a repair of its memory"),
                ("remap_failed", "a replacement: a repair of its memory failed"),
            )
            if gpu.get(key)
        ]
        if pending:
            yield error(
                f"GPU {gpu.get('uuid')} waits for {pending[0]}",
                "Trainings on it may fail or come out wrong.",
                "drain it: jupyterhub-gpuspawner drain DEVICE, then nvidia-smi --gpu-reset",
                about=str(gpu.get("uuid") or ""),
            )
