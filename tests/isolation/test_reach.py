"""What a user's server reaches: its user's other servers and the Hub's API, and nobody else's.

Each "can't" has its "can": the same probe reaches the same place where it may, so that no test
passes because a service was not there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from deploy.quickstart.trial import TrialHub, wait_for
from jupyterhub_gpuspawner.engine import labels
from tests import howto
from tests.isolation.conftest import hub_api, port_of
from tests.isolation.surroundings import (
    BEYOND,
    DATABASE,
    DOCKER_TCP,
    INTERNET,
    MACHINE,
    METADATA,
    ON_THE_MACHINE,
    SHUT,
    WEB,
    both,
    firewall,
    listening,
    probe,
    serve,
)

#: a port that users open in their servers
OPENED = 9000
#: what the image of the tests has in its place; any answer will do
CURL = """curl() {
  python3 -c 'import http.client as c, sys; h = c.HTTPConnection(sys.argv[1][:-1], timeout=20)
h.request("GET", "/"); print(h.getresponse().status)' "$1"
}"""


@pytest.fixture(scope="module")
def alice(server: Callable[..., Any]) -> Any:
    container, _ = server("alice")
    serve(container, "alice", OPENED)
    return container


@pytest.fixture(scope="module")
def train(server: Callable[..., Any], alice: Any) -> Any:
    """Alice's second server."""
    container, _ = server("alice", "train")
    serve(container, "train", OPENED)
    return container


@pytest.fixture(scope="module")
def bob(server: Callable[..., Any]) -> Any:
    container, _ = server("bob")
    serve(container, "bob", OPENED)
    return container


@pytest.fixture
def open_machine(alone: Any, site: TrialHub) -> Iterator[None]:
    """The firewall is down; it is up again afterwards."""
    firewall("down")
    yield
    firewall("up", "--hub", hub_api(alone, site))


def network_of(container: Any) -> tuple[str, dict[str, Any]]:
    container.reload()
    ((name, endpoint),) = container.attrs["NetworkSettings"]["Networks"].items()
    return name, endpoint


def address_of(container: Any) -> str:
    return str(network_of(container)[1]["IPAddress"])


def test_a_users_servers_reach_each_other_by_name_and_address(alice: Any, train: Any) -> None:
    assert network_of(alice)[0] == network_of(train)[0]
    places = [
        *both("server-train", OPENED),
        *both(train.name, OPENED),
        *both(address_of(train), OPENED),
    ]
    assert set(probe(alice, places).values()) == {"train"}
    assert set(probe(train, both("server", OPENED)).values()) == {"alice"}
    assert set(probe(alice, ["tcp:server-train:8888"]).values()) == {"open"}
    (command,) = howto.blocks("several-servers", __file__)
    code, output = alice.exec_run(["bash", "-euc", f"{CURL}\n{command}"])
    assert code == 0, output


def test_no_port_of_another_users_server_is_reached(alice: Any, bob: Any) -> None:
    open_ports = listening(bob)
    assert {"tcp:8888", f"tcp:{OPENED}", f"udp:{OPENED}"} <= set(open_ports)
    host = address_of(bob)
    places = [one.replace(":", f":{host}:") for one in open_ports]
    assert set(probe(alice, places).values()) <= SHUT
    # all of it is there: for bob himself
    assert not set(probe(bob, places).values()) & SHUT


def test_nor_without_our_firewall_rules_for_docker_keeps_networks_apart(
    alice: Any, bob: Any, open_machine: None
) -> None:
    places = both(address_of(bob), OPENED)
    assert set(probe(alice, places).values()) <= SHUT
    assert set(probe(bob, places).values()) == {"bob"}


def test_nobody_elses_server_has_a_name(alice: Any, train: Any, bob: Any) -> None:
    places = [*both(bob.name, OPENED), *both("server-train", OPENED)]
    assert set(probe(alice, places[:2]).values()) == {"no such name"}
    assert set(probe(bob, places[2:]).values()) == {"no such name"}
    # "server" is everybody's own
    assert set(probe(alice, both("server", OPENED)).values()) == {"alice"}
    assert set(probe(bob, both("server", OPENED)).values()) == {"bob"}


def test_the_hubs_api_is_reached_at_the_address_that_servers_are_given(
    alice: Any, alone: Any, site: TrialHub
) -> None:
    code, output = alice.exec_run(
        [
            "python3",
            "-c",
            "import os, urllib.request as u; url = os.environ['JUPYTERHUB_API_URL']; "
            "print(url); print(u.urlopen(url, timeout=5).read().decode())",
        ]
    )
    assert code == 0, output
    url, answer = output.decode().splitlines()
    assert urlsplit(url).netloc == hub_api(alone, site)
    assert "version" in answer


def test_a_users_server_answers_through_the_proxy(
    server: Callable[..., Any], alice: Any, train: Any
) -> None:
    _, person = server("alice")
    assert person.visit("api").status_code == 200
    assert person.visit("api", "train").status_code == 200


def machine_addresses(alice: Any, bob: Any, alone: Any) -> list[str]:
    """The machine's, as containers may try them: bridges of theirs, of others, and the uplink."""
    gateways = {str(network_of(one)[1]["Gateway"]) for one in (alice, bob)}
    assert len(gateways) == 2
    return [alone.gateway, MACHINE, *sorted(gateways)]


def test_no_other_port_of_the_machine_is_reached(
    alice: Any, bob: Any, alone: Any, site: TrialHub
) -> None:
    addresses = machine_addresses(alice, bob, alone)
    private = ("GPUS_PORT", "GPUS_PROXY_API_PORT", "GPUS_SERVICE_PORT")
    ports = [DOCKER_TCP, DATABASE, 22, *(port_of(site, name) for name in private)]
    places = [place for address in addresses for place in both(address, *ports)]
    hub = int(hub_api(alone, site).rpartition(":")[2])
    places += [f"tcp:{address}:{hub}" for address in addresses if address != alone.gateway]
    places.append(f"udp:{alone.gateway}:{hub}")
    reached = {place: seen for place, seen in probe(alice, places).items() if seen not in SHUT}
    assert reached == {}
    assert set(probe(alice, [f"tcp:{hub_api(alone, site)}"]).values()) == {"open"}


def test_without_the_rules_the_machines_services_are_reached(
    alice: Any, bob: Any, alone: Any, open_machine: None
) -> None:
    places = [
        place
        for address in machine_addresses(alice, bob, alone)
        for place in both(address, DOCKER_TCP, DATABASE)
    ]
    assert set(probe(alice, places).values()) == {ON_THE_MACHINE}


def test_the_proxys_api_is_not_reached_even_without_the_rules(
    alice: Any, bob: Any, alone: Any, site: TrialHub, open_machine: None
) -> None:
    port = port_of(site, "GPUS_PROXY_API_PORT")
    places = [f"tcp:{one}:{port}" for one in machine_addresses(alice, bob, alone)]
    assert set(probe(alice, places).values()) == {"refused"}
    # it is there: on loopback
    import requests

    with requests.Session() as web:
        web.trust_env = False
        assert web.get(f"http://127.0.0.1:{port}/api/routes", timeout=5).status_code == 403


def test_the_clouds_metadata_service_is_not_reached(alice: Any) -> None:
    assert set(probe(alice, both(METADATA, WEB)).values()) <= SHUT


def test_without_the_rules_the_clouds_metadata_service_is_reached(
    alice: Any, open_machine: None
) -> None:
    assert set(probe(alice, both(METADATA, WEB)).values()) == {BEYOND}


def test_the_internet_is_reached_unless_that_is_forbidden(
    alice: Any, train: Any, alone: Any, site: TrialHub
) -> None:
    outside = both(INTERNET, WEB)
    assert set(probe(alice, outside).values()) == {BEYOND}
    hub = hub_api(alone, site)
    try:
        firewall("up", "--hub", hub, "--no-internet")
        assert set(probe(alice, outside).values()) <= SHUT
        assert set(probe(alice, [f"tcp:{hub}"]).values()) == {"open"}
        assert set(probe(alice, both("server-train", OPENED)).values()) == {"train"}
        firewall("up", "--hub", hub, "--no-internet", "--allow", f"{INTERNET}:{WEB}")
        assert set(probe(alice, outside).values()) == {BEYOND}
        firewall("up", "--hub", hub, "--deny", "203.0.113.0/24")
        assert set(probe(alice, outside).values()) <= SHUT
    finally:
        firewall("up", "--hub", hub)


def test_the_firewall_tells_whether_its_rules_are_in_place(alone: Any, site: TrialHub) -> None:
    hub = hub_api(alone, site)
    assert firewall("status", "--hub", hub).stdout == "in place\n"
    assert firewall("status", check=False).returncode == 3
    firewall("down")
    firewall("down")
    gone = firewall("status", "--hub", hub, check=False)
    assert (gone.returncode, gone.stdout.split(":")[0]) == (1, "no rules")
    firewall("up", "--hub", hub)
    firewall("up", "--hub", hub)
    assert firewall("status", "--hub", hub).returncode == 0


def test_one_place_more_is_open_until_it_is_closed(alone: Any, alice: Any) -> None:
    place, other = f"{alone.gateway}:{DATABASE}", f"{alone.gateway}:{DOCKER_TCP}"

    def seen(*command: str) -> tuple[str, str]:
        firewall(*command)
        found = probe(alice, [f"tcp:{place}", f"tcp:{other}"])
        return found[f"tcp:{place}"], found[f"tcp:{other}"]

    shut = seen("close", place)
    assert set(shut) <= SHUT
    # twice, as two who need it may say it
    assert seen("open", place) == seen("open", place) == (ON_THE_MACHINE, shut[1])
    assert seen("close", place) == shut


def test_the_docker_socket_is_in_no_server(alice: Any) -> None:
    code, output = alice.exec_run(
        ["sh", "-c", "find / -xdev -name '*.sock' 2>/dev/null; cat /proc/self/mountinfo"]
    )
    assert code in (0, 1)
    assert b"docker.sock" not in output
    assert b"/etc/hostname" in output, "the mounts were read"


def test_the_network_goes_with_the_users_last_server(
    site: TrialHub, server: Callable[..., Any], machine: Any
) -> None:
    container, walter = server("walter")
    name, _ = network_of(container)
    chosen = {"label": f"{labels.USER}=walter"}
    assert [net.name for net in machine.networks.list(filters=chosen)] == [name]
    walter.stop()
    wait_for("no network", 60, lambda: not machine.networks.list(filters=chosen))
    others = {"label": f"{labels.KIND}=network"}
    assert len(machine.networks.list(filters=others)) >= 2
