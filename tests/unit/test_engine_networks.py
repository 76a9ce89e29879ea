"""A user's network is found or made once, and goes only when nobody uses it."""

from __future__ import annotations

from ipaddress import IPv4Network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import docker.errors
import pytest

from jupyterhub_gpuspawner.engine import labels
from jupyterhub_gpuspawner.engine.networks import (
    MEMBER,
    NetworkSpec,
    bridge_name,
    ensure_network,
    host_routes,
    join_where,
    list_networks,
    network_name,
    own_container,
    remove_network,
    says_no_network,
)
from jupyterhub_gpuspawner.engine.subnets import Route
from jupyterhub_gpuspawner.errors import EngineConflict, EngineError
from tests.unit.hub_fakes import answered

# takes JupyterHub to import
pytestmark = pytest.mark.slow

SPEC = NetworkSpec(
    ledger="l1", owner="o1", user="alice", ranges=(IPv4Network("10.0.0.0/27"),), prefix=28
)
NAME = network_name("alice", "l1", "o1")


def refused(status: int, words: str) -> docker.errors.APIError:
    kind = docker.errors.NotFound if status == 404 else docker.errors.APIError
    return kind(str(status), answered(status), words)


class Engine:
    """Networks with Docker's rules: names, bridges and subnets are unique; users hold them."""

    base_url = "http+docker://localhost"

    def __init__(self) -> None:
        self.nets: dict[str, dict[str, Any]] = {}
        self.boxes: dict[str, dict[str, Any]] = {}
        #: subnets that the engine refuses although its list does not have them
        self.hidden: list[str] = []
        self.before_create: Any = None

    @property
    def client(self) -> Any:
        return SimpleNamespace(api=self)

    def networks(self, filters: Any = None) -> list[dict[str, Any]]:
        wanted = [text.partition("=")[::2] for text in (filters or {}).get("label", ())]
        fit = (n for n in self.nets.values() if all(n["Labels"].get(k) == v for k, v in wanted))
        return [dict(n) for n in fit]

    def create_network(
        self, name: str, *, driver: str, ipam: Any, labels: Any, options: Any, check_duplicate: bool
    ) -> dict[str, Any]:
        if self.before_create is not None:
            act, self.before_create = self.before_create, None
            act()
        if check_duplicate and any(n["Name"] == name for n in self.nets.values()):
            raise refused(409, f"network with name {name} already exists")
        subnet = IPv4Network(ipam["Config"][0]["Subnet"])
        there = [n["IPAM"]["Config"][0]["Subnet"] for n in self.nets.values() if n["IPAM"]]
        if any(subnet.overlaps(IPv4Network(one)) for one in [*there, *self.hidden]):
            raise refused(403, "Pool overlaps with other one on this address space")
        bridge = options["com.docker.network.bridge.name"]
        if any(
            n["Options"].get("com.docker.network.bridge.name") == bridge for n in self.nets.values()
        ):
            raise refused(403, "cannot create network: networks have same bridge name")
        key = f"id-{name}"
        self.nets[key] = {
            "Id": key,
            "Name": name,
            "Driver": driver,
            "IPAM": ipam,
            "Labels": dict(labels),
            "Options": dict(options),
            "Created": f"2026-01-01T00:00:{len(self.nets):02d}Z",
        }
        return {"Id": key}

    def foreign(self, name: str, **fields: Any) -> None:
        self.nets[f"id-{name}"] = {
            "Id": f"id-{name}", "Name": name, "IPAM": {}, "Labels": {}, "Options": {}, **fields
        }  # fmt: skip

    def box(self, key: str, *there: str, mode: str = "bridge", **fields: Any) -> None:
        self.boxes[key] = {
            "Id": key,
            "Name": f"/{fields.get('name', key)}",
            "HostConfig": {"NetworkMode": mode},
            "Labels": fields.get("labels", {}),
            "NetworkSettings": {"Networks": {n: {"Aliases": [f"alias-{key}"]} for n in there}},
        }

    def _net(self, which: str) -> dict[str, Any]:
        for net in self.nets.values():
            if which in (net["Id"], net["Name"]):
                return net
        raise refused(404, f"network {which} not found")

    def inspect_network(self, which: str) -> dict[str, Any]:
        net = self._net(which)
        on = {
            k: {} for k, b in self.boxes.items() if net["Name"] in b["NetworkSettings"]["Networks"]
        }
        return {**net, "Containers": on}

    def remove_network(self, which: str) -> None:
        net = self.inspect_network(which)
        if net["Containers"]:
            raise refused(403, f"network {net['Name']} id {net['Id']} has active endpoints")
        del self.nets[net["Id"]]

    def inspect_container(self, which: str) -> dict[str, Any]:
        if which not in self.boxes:
            raise refused(404, f"No such container: {which}")
        return self.boxes[which]

    def containers(self, all: bool, filters: Any) -> list[dict[str, Any]]:
        wanted = [text.partition("=")[::2] for text in filters["label"]]
        fit = self.boxes.values()
        return [b for b in fit if [b["Labels"].get(k) for k, _ in wanted] == [v for _, v in wanted]]

    def connect_container_to_network(self, which: str, network: str, aliases: Any) -> None:
        there = self.boxes[which]["NetworkSettings"]["Networks"]
        if self._net(network)["Name"] in there:
            raise refused(403, f"endpoint with name {which} already exists in network {network}")
        there[self._net(network)["Name"]] = {"Aliases": list(aliases)}

    def disconnect_container_from_network(self, which: str, network: str, force: bool) -> None:
        del self.boxes[which]["NetworkSettings"]["Networks"][self._net(network)["Name"]]


def no_routes(client: Any) -> tuple[Route, ...]:
    return ()


def ensure(engine: Engine, spec: NetworkSpec = SPEC, routes: Any = no_routes) -> str:
    return ensure_network(engine.client, spec, routes)


def subnet_of(engine: Engine, name: str) -> str:
    return str(engine._net(name)["IPAM"]["Config"][0]["Subnet"])


def other(user: str, **fields: Any) -> NetworkSpec:
    values = {"ledger": "l1", "owner": f"owner of {user}", "ranges": SPEC.ranges, "prefix": 28}
    return NetworkSpec(user=user, **{**values, **fields})


def test_a_network_is_made_once_and_found_again() -> None:
    engine = Engine()
    assert ensure(engine) == ensure(engine) == NAME
    (net,) = engine.nets.values()
    assert net["Labels"] == labels.network_labels(ledger="l1", user="alice", owner="o1")
    assert net["Options"] == {"com.docker.network.bridge.name": bridge_name("l1", "o1")}


def test_a_renamed_user_keeps_the_network() -> None:
    engine = Engine()
    ensure(engine)
    renamed = NetworkSpec(ledger="l1", owner="o1", user="bob", ranges=SPEC.ranges, prefix=28)
    assert ensure(engine, renamed) == NAME


def test_the_bridges_name_fits_the_kernel_and_differs_by_owner_and_ledger() -> None:
    names = {bridge_name(ledger, owner) for ledger in "ab" for owner in "xy"}
    assert len(names) == 4
    assert all(name.startswith("gpus") and len(name) == 15 for name in names)


def test_two_users_get_subnets_that_do_not_overlap_until_the_pool_is_exhausted() -> None:
    engine = Engine()
    first, second = (subnet_of(engine, ensure(engine, other(user))) for user in ("a", "b"))
    assert not IPv4Network(first).overlaps(IPv4Network(second))
    with pytest.raises(EngineError, match=r"no free /28 is left .*10\.0\.0\.0/27.*uses 2 subnets"):
        ensure(engine, other("c"))


def test_a_subnet_of_a_route_of_the_machine_is_left_alone() -> None:
    engine = Engine()
    route = Route(subnet=IPv4Network("10.0.0.0/28"), interface="tun0")
    assert subnet_of(engine, ensure(engine, routes=lambda client: (route,))) == "10.0.0.16/28"


def test_a_route_across_the_whole_pool_is_named_in_one_line() -> None:
    route = Route(subnet=IPv4Network("10.0.0.0/8"), interface="tun0")
    with pytest.raises(EngineError, match=r"lies in 10\.0\.0\.0/8 of tun0") as failure:
        ensure(Engine(), routes=lambda client: (route,))
    assert "\n" not in str(failure.value)
    assert "10.0" not in failure.value.user_message


def test_a_subnet_that_somebody_takes_in_the_same_moment_leads_to_the_next() -> None:
    engine = Engine()
    wanted = subnet_of(engine, ensure(engine))
    engine.nets.clear()
    engine.before_create = lambda: engine.foreign("other", IPAM={"Config": [{"Subnet": wanted}]})
    assert subnet_of(engine, ensure(engine)) != wanted


def test_a_subnet_that_the_engine_alone_knows_to_be_taken_is_not_tried_twice() -> None:
    engine = Engine()
    ensure(engine)
    engine.hidden = [subnet_of(engine, NAME)]
    engine.nets.clear()
    assert subnet_of(engine, ensure(engine)) not in engine.hidden
    engine.nets.clear()
    engine.hidden = ["10.0.0.0/27"]
    with pytest.raises(EngineError, match="no free /28"):
        ensure(engine)


def test_two_starts_of_one_user_at_once_share_the_network() -> None:
    engine = Engine()
    engine.before_create = lambda: ensure(engine)
    assert ensure(engine) == NAME
    assert len(engine.nets) == 1


def test_a_foreign_network_of_the_same_name_is_refused_and_left_as_it_is() -> None:
    engine = Engine()
    engine.foreign(NAME)
    with pytest.raises(EngineConflict, match="not ours"):
        ensure(engine)
    assert engine.nets[f"id-{NAME}"]["Labels"] == {}


def test_a_network_of_another_ledger_is_not_taken() -> None:
    engine = Engine()
    ensure(engine, other("alice", ledger="l2", owner="o1"))
    assert ensure(engine) == NAME
    assert len(engine.nets) == 2


def test_the_default_bridges_packet_size_is_taken_over() -> None:
    engine = Engine()
    engine.foreign("bridge", Options={"com.docker.network.driver.mtu": "1400"})
    assert engine._net(ensure(engine))["Options"]["com.docker.network.driver.mtu"] == "1400"


def test_the_hubs_container_joins_with_its_names_and_only_once() -> None:
    engine = Engine()
    engine.box("hub1", "site_default", name="hub")
    spec = other("alice", members=("hub1",))
    name = ensure(engine, spec)
    assert ensure(engine, spec) == name
    there = engine.boxes["hub1"]["NetworkSettings"]["Networks"][name]["Aliases"]
    assert there == sorted(["alias-hub1", "hub", MEMBER])


def test_a_container_on_the_machines_network_is_not_joined() -> None:
    engine = Engine()
    engine.box("hub1", mode="host")
    ensure(engine, other("alice", members=("hub1",)))
    assert engine.boxes["hub1"]["NetworkSettings"]["Networks"] == {}


def test_a_member_that_is_not_there_is_said() -> None:
    with pytest.raises(EngineError, match="no container 'proxy'"):
        ensure(Engine(), other("alice", members=("proxy",)))


def test_a_new_hub_container_joins_the_network_of_a_server_that_runs() -> None:
    engine = Engine()
    name = ensure(engine)
    engine.foreign("theirs")
    engine.box("server", name, "theirs")
    engine.box("hub2")
    join_where(engine.client, "server", ["hub2"])
    assert list(engine.boxes["hub2"]["NetworkSettings"]["Networks"]) == [name]


def test_a_network_with_a_container_that_was_only_created_counts_as_used() -> None:
    engine = Engine()
    used, unused = ensure(engine), ensure(engine, other("bob"))
    identity = labels.Identity(ledger="l1", lease="x", user="alice")
    engine.box("server", used, labels=labels.server_labels(identity))
    found = {net.name: (net.used, net.user) for net in list_networks(engine.client, "l1")}
    assert found == {used: (True, "alice"), unused: (False, "bob")}
    assert list_networks(engine.client, "l2") == ()


def test_an_unused_network_goes_and_its_members_leave_it() -> None:
    engine = Engine()
    engine.box("hub1", "site_default")
    name = ensure(engine, other("alice", members=("hub1",)))
    assert remove_network(engine.client, f"id-{name}")
    assert engine.nets == {}
    assert list(engine.boxes["hub1"]["NetworkSettings"]["Networks"]) == ["site_default"]
    assert remove_network(engine.client, f"id-{name}")


def test_a_network_that_somebody_else_is_on_stays() -> None:
    engine = Engine()
    engine.box("hub1")
    name = ensure(engine, other("alice", members=("hub1",)))
    engine.box("database", name)
    assert not remove_network(engine.client, f"id-{name}")
    assert name in engine.boxes["hub1"]["NetworkSettings"]["Networks"]


def test_a_server_that_starts_in_the_same_moment_keeps_the_network_with_its_members() -> None:
    engine = Engine()
    engine.box("hub1")
    name = ensure(engine, other("alice", members=("hub1",)))
    leave = engine.disconnect_container_from_network

    def leave_then_start(which: str, network: str, force: bool) -> None:
        leave(which, network, force)
        engine.box("server", name)

    engine.disconnect_container_from_network = leave_then_start  # type: ignore[method-assign]
    assert not remove_network(engine.client, f"id-{name}")
    assert name in engine.boxes["hub1"]["NetworkSettings"]["Networks"]


def test_routes_of_this_machine_say_nothing_about_an_engine_elsewhere() -> None:
    far = SimpleNamespace(api=SimpleNamespace(base_url="https://gpu7:2376"))
    assert host_routes(far) == ()


MOUNTS = """\
31 1 8:1 / / rw - ext4 /dev/sda1 rw
77 31 8:1 /var/lib/docker/containers/{other}/mounts/shm /var/lib/docker/x rw - tmpfs shm rw
"""
OWN = "99 80 8:1 /var/lib/docker/containers/{own}/hostname /etc/hostname rw - ext4 /dev/sda1 rw\n"


def test_the_hubs_own_container_is_found_by_the_files_that_docker_binds(tmp_path: Path) -> None:
    engine, own, mounts = Engine(), "a" * 64, tmp_path / "mountinfo"
    mounts.write_text(MOUNTS.format(other="b" * 64))
    assert own_container(engine.client, mounts) is None
    mounts.write_text((MOUNTS + OWN).format(other="b" * 64, own=own))
    assert own_container(engine.client, mounts) is None, "a container of another engine"
    engine.box(own)
    assert own_container(engine.client, mounts) == own
    assert own_container(engine.client, tmp_path / "nothing") is None


def test_only_a_missing_network_is_told_apart_from_a_missing_container() -> None:
    assert says_no_network(refused(404, "network user-net-x not found"))
    assert not says_no_network(refused(404, "No such container: abc"))
    assert not says_no_network(refused(500, "network x not found"))
