"""A killed Hub of a trial leaves its proxy behind: it is ended, and nothing else."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.quickstart.trial import end_proxy

# a process for each
pytestmark = pytest.mark.slow


@contextmanager
def sleeper(name: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is listed under this name."""
    process = subprocess.Popen([name, "600"], executable="/bin/sleep")
    try:
        # the kernel lists the name a moment after the program has begun
        while name.encode() not in Path(f"/proc/{process.pid}/cmdline").read_bytes():
            assert process.poll() is None
        yield process
    finally:
        process.kill()
        process.wait()


def test_the_proxy_in_the_file_is_ended(tmp_path: Path) -> None:
    with sleeper("configurable-http-proxy") as proxy:
        (tmp_path / "proxy.pid").write_text(str(proxy.pid))
        end_proxy(tmp_path / "proxy.pid")
        assert proxy.wait(60) == -signal.SIGKILL


def test_another_process_that_has_its_number_now_lives(tmp_path: Path) -> None:
    with sleeper("somebody") as other:
        (tmp_path / "proxy.pid").write_text(str(other.pid))
        end_proxy(tmp_path / "proxy.pid")
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(0.2)


@pytest.mark.parametrize("text", ["", "no number", "0", "999999999"])
def test_a_file_that_names_no_process_ends_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "proxy.pid").write_text(text)
    end_proxy(tmp_path / "proxy.pid")
    end_proxy(tmp_path / "none")
