"""Small libraries in C that stand in for those of the machine."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

FAKE_NVML = Path(__file__).parent / "fakenvml" / "fakenvml.c"
STRICT = ("-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC")


def compiled(source: Path, library: Path, *flags: str) -> Path:
    """Compile a library; the test is skipped where there is no compiler."""
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        pytest.skip(f"no C compiler (cc, gcc or clang) to build {source.name}")
    command = [compiler, *STRICT, *flags, "-o", str(library), str(source)]
    subprocess.run(command, check=True, timeout=60)
    return library


def fake_nvml(folder: Path, *flags: str) -> Path:
    """The fake driver library, in a folder, under the name of the real one; the folder."""
    name = "libnvidia-ml.so.1"
    standard = ("-std=c11", "-D_POSIX_C_SOURCE=200809L", f"-Wl,-soname,{name}")
    compiled(FAKE_NVML, folder / name, *standard, *flags)
    return folder
