"""The testbed's own facts: what all other tests with a real engine rely on."""

from __future__ import annotations

import json
import socket
import time
import urllib.error
import urllib.request

import pytest
from docker.errors import APIError
from docker.types import DeviceRequest


def cdi(*device_ids):
    names = [f"nvidia.com/gpu={device_id}" for device_id in device_ids]
    return [DeviceRequest(driver="cdi", device_ids=names)]


def until(ready, seconds=60.0):
    """Poll until ``ready()`` is neither None nor false, and return that."""
    end = time.monotonic() + seconds
    while not (result := ready()):
        assert time.monotonic() < end, f"nothing within {seconds} s"
        time.sleep(0.05)
    return result


def get_json(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return json.load(answer)
    except (urllib.error.URLError, ConnectionError):
        return None


def address(container):
    container.reload()
    return container.attrs["NetworkSettings"]["IPAddress"]


def output(container):
    code = container.wait(timeout=30)["StatusCode"]
    return code, container.logs().decode()


def test_the_engine_is_ours_and_knows_cdi(engine, docker_client):
    info = docker_client.info()

    assert info["Name"] == engine.node
    assert info["CDISpecDirs"] == ["/etc/cdi"]
    assert int(info["ServerVersion"].split(".")[0]) >= 25


def test_a_container_sees_exactly_the_devices_asked_for_by_id(engine, stub_image, run_container):
    wanted = [engine.device_ids[1], engine.device_ids[3]]

    container = run_container(
        stub_image,
        ["sh", "-c", "ls /run/gpus; ls /dev | grep nvidia; stat -c %t:%T /dev/nvidia1"],
        device_requests=cdi(*wanted),
    )

    # 1:3 is the null device.
    assert output(container) == (0, "\n".join([*wanted, "nvidia1", "nvidia3", "1:3", ""]))


def test_a_container_without_a_request_sees_no_device(stub_image, run_container):
    container = run_container(stub_image, ["sh", "-c", "ls -d /run/gpus /dev/nvidia*"])

    code, text = output(container)

    assert code != 0
    assert "SIMULATED" not in text


def test_the_marker_file_cannot_be_written_away(engine, stub_image, run_container):
    marker = f"/run/gpus/{engine.device_ids[0]}"

    container = run_container(
        stub_image, ["rm", "-f", marker], user="root", device_requests=cdi(engine.device_ids[0])
    )

    code, text = output(container)
    assert code == 1
    assert "busy" in text


def test_an_unknown_device_fails_at_start_and_leaves_the_container_created(
    stub_image, run_container
):
    container = run_container(
        stub_image, ["true"], start=False, device_requests=cdi("SIMULATED-elsewhere-0")
    )

    with pytest.raises(APIError, match="unresolvable CDI devices"):
        container.start()

    container.reload()
    assert container.status == "created"


def test_memory_above_the_limit_is_killed_by_the_kernel(stub_image, run_container):
    container = run_container(
        stub_image, ["tail", "/dev/zero"], mem_limit="64m", memswap_limit="64m"
    )

    code, _ = output(container)

    container.reload()
    assert code == 137
    assert container.attrs["State"]["OOMKilled"] is True


def test_the_stub_answers_the_host_with_what_it_sees(engine, stub_image, run_container):
    container = run_container(
        stub_image,
        environment={"JUPYTERHUB_SERVICE_PREFIX": "/user/alice/", "JUPYTERHUB_USER": "alice"},
        device_requests=cdi(engine.device_ids[2]),
    )
    base = f"http://{address(container)}:8888/user/alice/"

    assert until(lambda: get_json(base + "api")) == {"version": "stub"}
    facts = get_json(base + "facts")
    assert (facts["user"], facts["gpus"], facts["nvidia"]) == (
        "alice",
        [engine.device_ids[2]],
        ["nvidia2"],
    )


def test_the_stub_stops_when_asked(stub_image, run_container):
    container = run_container(stub_image)
    until(lambda: b"serves" in container.logs())

    begun = time.monotonic()
    container.stop(timeout=10)

    assert time.monotonic() - begun < 5
    assert output(container)[0] == 0


def test_the_stub_dies_at_once_when_told(stub_image, run_container):
    container = run_container(stub_image, environment={"STUB_DIE": "3"})

    assert output(container) == (3, "stub: dies at once, as told\n")


def test_the_stub_ends_later_with_the_code_it_is_told(stub_image, run_container):
    container = run_container(
        stub_image, environment={"STUB_EXIT_AFTER": "0.1", "STUB_EXIT_CODE": "7"}
    )

    code, text = output(container)

    assert code == 7
    assert "ends as told" in text


def test_the_stub_eats_memory_until_it_is_killed(stub_image, run_container):
    container = run_container(
        stub_image, environment={"STUB_EAT": "200"}, mem_limit="64m", memswap_limit="64m"
    )

    assert output(container)[0] == 137


def test_a_container_reaches_a_server_on_the_gateway(engine, stub_image, run_container):
    with socket.create_server((engine.gateway, 0)) as server:
        server.settimeout(20)
        url = f"http://{engine.gateway}:{server.getsockname()[1]}/activity"
        run_container(stub_image, environment={"JUPYTERHUB_ACTIVITY_URL": url})

        connection, _ = server.accept()

        with connection:
            assert connection.recv(1000).startswith(b"POST /activity")


def test_a_container_of_another_network_reaches_the_host_on_its_own_gateway(
    docker_client, stub_image, run_container
):
    network = docker_client.networks.create("testbed-facts")
    try:
        network.reload()
        gateway = network.attrs["IPAM"]["Config"][0]["Gateway"].split("/")[0]
        with socket.create_server((gateway, 0)) as server:
            server.settimeout(20)
            url = f"http://{gateway}:{server.getsockname()[1]}/activity"
            container = run_container(
                stub_image, network=network.name, environment={"JUPYTERHUB_ACTIVITY_URL": url}
            )
            server.accept()[0].close()
        container.remove(force=True)
    finally:
        network.remove()
