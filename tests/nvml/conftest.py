"""The fake NVML library, compiled once, and scenarios for it.

The tests load it through the real binding in the real child process, found the way the real
library is found: by name, on the loader's search path.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "fakenvml" / "fakenvml.c"

#: writes a scenario (see fakenvml.c) and makes the fake library answer from it
Scenario = Callable[..., None]


def _compile(directory: Path, *flags: str) -> Path:
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        pytest.skip("no C compiler (cc, gcc or clang) to build the fake NVML library")
    subprocess.run(
        [
            compiler,
            *("-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"),
            *("-D_POSIX_C_SOURCE=200809L", "-Wl,-soname,libnvidia-ml.so.1", *flags),
            *("-o", str(directory / "libnvidia-ml.so.1"), str(SOURCE)),
        ],
        check=True,
        timeout=60,
    )
    return directory


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of the fake library of a current driver."""
    return _compile(tmp_path_factory.mktemp("nvml"))


@pytest.fixture(scope="session")
def old_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of the fake library of a driver before 510."""
    return _compile(tmp_path_factory.mktemp("nvml-old"), "-DOLD_DRIVER")


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``load(directory, *lines)``: child processes find that library and that scenario."""

    def use(directory: Path, *lines: str) -> None:
        path = tmp_path / "scenario"
        path.write_text("".join(f"{line}\n" for line in lines))
        monkeypatch.setenv("FAKE_NVML_SCENARIO", str(path))
        search = filter(None, (str(directory), os.environ.get("LD_LIBRARY_PATH")))
        monkeypatch.setenv("LD_LIBRARY_PATH", ":".join(search))

    return use


@pytest.fixture
def scenario(library: Path, load: Callable[..., None]) -> Scenario:
    """``scenario(*lines)`` for the current driver's library."""
    return lambda *lines: load(library, *lines)
