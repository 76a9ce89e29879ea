"""How the testbed's engine fails and comes back, on a second engine: nobody else's suffers."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.testbed.engine import Engine
from tests.testbed.images import ensure_base
from tests.testbed.processes import Process


@pytest.fixture(scope="module")
def second(engine):
    second = Engine(f"{engine.name}-faults", devices=2)
    second.start()
    yield second
    second.stop()


@pytest.fixture
def second_client(second):
    client = second.client()
    yield client
    client.close()


@pytest.fixture
def sleeper(second_client):
    """A running container, and its process as this machine sees it."""
    image = ensure_base(second_client)
    container = second_client.containers.run(image, ["sleep", "1000"], detach=True, init=True)
    container.reload()
    # Not by /proc/PID: a zombie has one as well, until some init has time for it.
    process = Process.of(container.attrs["State"]["Pid"])
    assert process is not None
    return container, process


def test_starting_a_running_engine_changes_nothing(second):
    assert second.start() is False


def test_two_engines_share_neither_bridge_nor_device_names(engine, second):
    assert second.gateway != engine.gateway
    assert second.tag != engine.tag
    assert not set(second.device_ids) & set(engine.device_ids)


def test_a_frozen_daemon_accepts_and_never_answers_until_it_is_thawed(second):
    second.freeze()
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(0.5)
            connection.connect(str(second.socket))
            connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            with pytest.raises(TimeoutError):
                connection.recv(100)
    finally:
        second.thaw()

    assert second.answers()


def test_a_container_outlives_the_kill_of_the_daemon(second, sleeper):
    container, process = sleeper

    second.kill9()

    assert not second.answers()
    assert process.alive
    second.restart()
    container.reload()
    # Without live-restore the next daemon ends what it finds running.
    assert container.status == "exited"
    assert not process.alive


def test_a_killed_engine_is_taken_away_with_its_containers_and_networks(
    second, second_client, sleeper
):
    _, process = sleeper
    second_client.networks.create("left-over")
    second.kill9()

    second.stop()

    assert process.wait_gone(10)
    assert not Path("/sys/class/net", second.tag).exists()
    assert second.start() is True
    assert second_client.containers.list(all=True) == []
    assert second_client.networks.list(names=["left-over"]) == []


def test_an_engine_left_by_a_killed_test_is_found_by_the_name_of_the_run(engine, second):
    assert second.name in {one.name for one in engine.family()}
    assert engine.name not in {one.name for one in second.family()}


def test_stopping_a_stopped_engine_is_no_error(second):
    second.stop()
    second.stop()

    assert second.start() is True


def test_a_device_taken_out_of_the_offer_is_not_injected_any_more(second, second_client):
    image = ensure_base(second_client)
    wanted = {"Driver": "cdi", "DeviceIDs": [f"nvidia.com/gpu={second.device_ids[1]}"]}

    def listing():
        return second_client.containers.run(
            image, ["ls", "/run/gpus"], remove=True, device_requests=[wanted]
        )

    assert listing().decode().split() == [second.device_ids[1]]
    second.write_cdi(1)
    try:
        with pytest.raises(Exception, match="unresolvable CDI devices"):
            listing()
    finally:
        second.write_cdi(2)
