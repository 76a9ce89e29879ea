"""A user's own environments as kernels: those below the home that have ipykernel.

``ServerApp.kernel_spec_manager_class`` of the image. Looked at each time the kernels are listed, so
an environment that was made is there after a reload of the page, and after every restart, because
the home stays. Whatever is wrong with one of them, the others and the image's own are shown.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from jupyter_client.kernelspec import KernelSpec, KernelSpecManager, NoSuchKernel

#: where conda, mamba, micromamba and people put environments, below the home
FOLDERS = (
    ".conda/envs",
    "envs",
    ".venvs",
    "micromamba/envs",
    ".local/share/mamba/envs",
    "miniconda3/envs",
    "miniforge3/envs",
    "mambaforge/envs",
)
#: more than so many are no list to choose from
_MOST = 50
_PREFIX = "home-"


def environments(home: Path) -> dict[str, Path]:
    """Kernel name -> environment, of those that have a Python and ipykernel."""
    candidates: list[Path] = []
    for folder in FOLDERS:
        with contextlib.suppress(OSError):
            candidates += sorted((home / folder).iterdir())
    # conda writes here what was made elsewhere with --prefix
    with contextlib.suppress(OSError, UnicodeDecodeError):
        lines = (home / ".conda" / "environments.txt").read_text().splitlines()
        candidates += [Path(line) for line in lines if line.startswith(f"{home}/")]
    found: dict[str, Path] = {}
    for prefix in candidates:
        name = _PREFIX + re.sub(r"[^a-z0-9._-]", "-", prefix.name.lower())
        with contextlib.suppress(OSError):
            if name not in found and len(found) < _MOST and _is_one(prefix):
                found[name] = prefix
    return found


def _is_one(prefix: Path) -> bool:
    if not os.access(prefix / "bin" / "python", os.X_OK):
        return False
    # installed in it, or seen through it (--system-site-packages) with a kernel of its own
    kernel = prefix / "share" / "jupyter" / "kernels" / "python3" / "kernel.json"
    return kernel.is_file() or any(prefix.glob("lib/python3*/site-packages/ipykernel"))


class HomeKernels(KernelSpecManager):
    """The image's kernels, and those of the home."""

    def find_kernel_specs(self) -> dict[str, str]:
        """Kernel name -> its folder."""
        own: dict[str, str] = super().find_kernel_specs()
        return {**{name: str(p) for name, p in environments(Path.home()).items()}, **own}

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        """The spec of a kernel. Raises ``NoSuchKernel``."""
        try:
            return super().get_kernel_spec(kernel_name)
        except NoSuchKernel:
            prefix = environments(Path.home()).get(kernel_name)
            if prefix is None:
                raise
        return KernelSpec(
            argv=[f"{prefix}/bin/python", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            display_name=f"{prefix.name} (home)",
            language="python",
            env={"PATH": f"{prefix}/bin:{os.environ.get('PATH', '')}", "CONDA_PREFIX": str(prefix)},
            metadata={"debugger": True},
        )
