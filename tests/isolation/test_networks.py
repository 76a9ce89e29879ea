"""Users' networks on a real engine with real firewall rules: many at once, found, removed."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import docker.errors
import pytest

from jupyterhub_gpuspawner.engine import labels, networks
from jupyterhub_gpuspawner.engine.networks import NetworkSpec, ensure_network, remove_network
from jupyterhub_gpuspawner.engine.subnets import parse_pool
from jupyterhub_gpuspawner.errors import EngineError
from tests.isolation.surroundings import run

#: users with a server at the same time; Docker's default address pools end at about 31
MANY = 45


@pytest.fixture
def ledger(machine: Any) -> Iterator[str]:
    """A ledger of its own; its networks and the test's containers are removed at the end."""
    before = {container.id for container in machine.containers.list(all=True)}
    name = uuid.uuid4().hex
    yield name
    for container in machine.containers.list(all=True):
        if container.id not in before:
            container.remove(force=True)
    for network in machine.networks.list(filters={"label": f"{labels.LEDGER}={name}"}):
        network.remove()


def spec(ledger: str, user: str = "alice", pool: str = "10.213.0.0/16", **more: Any) -> NetworkSpec:
    ranges = parse_pool([pool], 28)
    return NetworkSpec(
        ledger=ledger, owner=f"owner-{user}", user=user, ranges=ranges, prefix=28, **more
    )


def subnets(machine: Any, ledger: str) -> list[IPv4Network]:
    found = machine.api.networks(filters={"label": f"{labels.LEDGER}={ledger}"})
    return [IPv4Network(net["IPAM"]["Config"][0]["Subnet"]) for net in found]


def make_on(machine: Any, image: str, network: str, **options: Any) -> Any:
    """A container made for a network, not started."""
    return machine.containers.create(image, ["sleep", "60"], network=network, **options)


def ensure_at_once(alone: Any, wanted: list[NetworkSpec]) -> set[str]:
    """Several starts at a time, each with a client of its own; the networks they were given."""

    def one(spec: NetworkSpec) -> str:
        client = alone.client()
        try:
            return ensure_network(client, spec)
        finally:
            client.close()

    with ThreadPoolExecutor(8) as threads:
        return set(threads.map(one, wanted))


def test_many_users_have_a_network_each_though_dockers_own_pools_end(
    machine: Any, alone: Any, ledger: str
) -> None:
    made = ensure_at_once(alone, [spec(ledger, f"user{number}") for number in range(MANY)])
    assert len(made) == MANY
    found = subnets(machine, ledger)
    assert len(found) == MANY
    assert not [a for a in found for b in found if a is not b and a.overlaps(b)]
    links = {line.split()[0] for line in run("ip", "-br", "link").splitlines()}
    owners = [f"owner-user{number}" for number in range(MANY)]
    assert {networks.bridge_name(ledger, owner) for owner in owners} <= links
    # the control: what Docker does by itself does not come that far
    with pytest.raises(docker.errors.APIError, match="address pool"):
        for number in range(MANY):
            machine.networks.create(f"default-{number}", labels={labels.LEDGER: ledger})


def test_two_starts_of_one_user_at_once_share_one_network(
    machine: Any, alone: Any, ledger: str
) -> None:
    assert len(ensure_at_once(alone, [spec(ledger)] * 6)) == 1
    assert len(subnets(machine, ledger)) == 1


def test_a_pool_that_a_route_of_the_machine_covers_is_one_clear_line(
    machine: Any, ledger: str
) -> None:
    run("ip", "route", "add", "10.66.0.0/16", "via", "198.51.100.2")
    try:
        with pytest.raises(EngineError, match=r"10\.66\.0\.0/16 of uplink") as failure:
            ensure_network(machine, spec(ledger, pool="10.66.8.0/24"))
        assert "\n" not in str(failure.value)
    finally:
        run("ip", "route", "del", "10.66.0.0/16")
    ensure_network(machine, spec(ledger, pool="10.66.8.0/24"))


def test_a_full_pool_is_one_clear_line(machine: Any, ledger: str) -> None:
    for user in ("a", "b"):
        ensure_network(machine, spec(ledger, user, pool="10.67.0.0/27"))
    with pytest.raises(EngineError, match=r"no free /28 is left in network_pool"):
        ensure_network(machine, spec(ledger, "c", pool="10.67.0.0/27"))


def test_a_container_whose_network_went_starts_on_the_one_that_is_made_again(
    machine: Any, ledger: str, stub_image: str
) -> None:
    name = ensure_network(machine, spec(ledger))
    container = make_on(machine, stub_image, name)
    assert remove_network(machine, machine.networks.get(name).id)
    with pytest.raises(docker.errors.NotFound) as failure:
        container.start()
    assert networks.says_no_network(failure.value)
    assert ensure_network(machine, spec(ledger)) == name
    container.start()
    container.reload()
    assert container.attrs["NetworkSettings"]["Networks"][name]["IPAddress"]


def test_a_network_is_not_removed_under_a_running_container_nor_under_a_strangers(
    machine: Any, ledger: str, stub_image: str
) -> None:
    name = ensure_network(machine, spec(ledger))
    network = machine.networks.get(name)
    container = make_on(machine, stub_image, name)
    container.start()
    assert not remove_network(machine, network.id)
    container.remove(force=True)
    assert remove_network(machine, network.id)
    assert remove_network(machine, network.id)


def test_the_hubs_container_is_on_the_network_under_its_names_and_leaves_with_it(
    machine: Any, ledger: str, stub_image: str
) -> None:
    hub = machine.containers.run(stub_image, ["sleep", "60"], name="the-hub", detach=True)
    name = ensure_network(machine, spec(ledger, members=("the-hub",)))
    assert ensure_network(machine, spec(ledger, members=("the-hub",))) == name
    user = make_on(machine, stub_image, name)
    user.start()
    found, _ = user.exec_run(["getent", "hosts", "the-hub"])
    assert found == 0
    hub.reload()
    assert set(hub.attrs["NetworkSettings"]["Networks"]) == {"bridge", name}
    network = machine.networks.get(name)
    assert not remove_network(machine, network.id)
    found, _ = user.exec_run(["getent", "hosts", "the-hub"])
    assert found == 0, "a refused removal leaves the Hub where it is"
    user.remove(force=True)
    assert remove_network(machine, network.id)
    hub.reload()
    assert set(hub.attrs["NetworkSettings"]["Networks"]) == {"bridge"}


def test_a_process_on_the_machine_is_in_no_container(machine: Any) -> None:
    assert networks.own_container(machine) is None
    assert Path("/proc/self/mountinfo").exists()


def test_a_process_in_a_container_finds_its_own(
    machine: Any, ledger: str, stub_image: str, tmp_path: Path
) -> None:
    container = machine.containers.run(stub_image, ["sleep", "60"], detach=True)
    _, text = container.exec_run(["cat", "/proc/self/mountinfo"])
    (tmp_path / "mountinfo").write_bytes(text)
    assert networks.own_container(machine, tmp_path / "mountinfo") == container.id
