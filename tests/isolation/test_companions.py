"""What stands beside a server is reached by its user's servers, by name, and by nobody else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from deploy.quickstart.trial import wait_for
from jupyterhub_gpuspawner.engine import labels
from tests.isolation.surroundings import probe

PORT = 6006


@pytest.fixture(scope="module")
def carol(server: Callable[..., Any]) -> Any:
    """A server with a companion."""
    container, _ = server("carol", "lab", "board")
    return container


@pytest.fixture(scope="module")
def board(machine: Any, carol: Any) -> Any:
    """The companion."""
    chosen = {"label": [f"{labels.KIND}=companion", f"{labels.USER}=carol"]}
    wait_for("the companion", 60, lambda: len(machine.containers.list(filters=chosen)) == 1)
    (found,) = machine.containers.list(filters=chosen)
    return found


def reached(container: Any, host: str) -> bool:
    place = f"tcp:{host}:{PORT}"
    return bool(probe(container, [place])[place] == "open")


def test_the_users_servers_reach_it_by_name(
    server: Callable[..., Any], carol: Any, board: Any
) -> None:
    wait_for("its answer", 60, lambda: reached(carol, "board-lab"))
    other, _ = server("carol")
    assert reached(other, "board-lab")
    assert "COMPANION_BOARD=board-lab" in carol.attrs["Config"]["Env"]


def test_nobody_elses_server_reaches_it(server: Callable[..., Any], carol: Any, board: Any) -> None:
    wait_for("its answer", 60, lambda: reached(carol, "board-lab"))
    stranger, _ = server("dave")
    (endpoint,) = board.attrs["NetworkSettings"]["Networks"].values()
    assert reached(carol, endpoint["IPAddress"])
    assert not reached(stranger, endpoint["IPAddress"])
    assert not reached(stranger, "board-lab")


def test_it_has_its_limits_no_gpu_and_no_right_to_change_the_home(board: Any) -> None:
    host = board.attrs["HostConfig"]
    assert host["Memory"] == host["MemorySwap"] == 32 * 2**20
    assert not host["DeviceRequests"] and not host["Privileged"] and host["CapDrop"] == ["ALL"]
    assert "NVIDIA_VISIBLE_DEVICES=void" in board.attrs["Config"]["Env"]
    assert board.exec_run(["touch", "/home/jovyan/x"]).exit_code != 0
