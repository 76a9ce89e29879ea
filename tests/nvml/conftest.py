"""The fake NVML library, compiled once, and scenarios for it.

The tests load it through the real binding in the real child process, found the way the real
library is found: by name, on the loader's search path.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.compiled import fake_nvml

#: writes a scenario (see fakenvml.c) and makes the fake library answer from it
Scenario = Callable[..., None]


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of the fake library of a current driver."""
    return fake_nvml(tmp_path_factory.mktemp("nvml"))


@pytest.fixture(scope="session")
def old_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of the fake library of a driver before 510."""
    return fake_nvml(tmp_path_factory.mktemp("nvml-old"), "-DOLD_DRIVER")


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
