"""A server's life through a real Hub: start, devices, limits, stop, death, refusal."""

from __future__ import annotations

import pytest

from deploy.quickstart.trial import wait_for
from jupyterhub_gpuspawner.engine import labels

from .conftest import container_of, containers_of, facts, is_ready, line_up, server_of, start


def test_two_users_get_different_gpus_as_the_engine_injected_them(hub, somebody, docker_client):
    alice, bob = somebody("alice"), somebody("bob")
    start(alice)
    start(bob)
    first = facts(hub, alice, docker_client)["gpus"]
    second = facts(hub, bob, docker_client)["gpus"]
    assert len(first) == len(second) == 1
    assert not set(first) & set(second)
    assert hub.busy() == {*first, *second}


def test_a_server_without_gpu_sees_none_and_can_not_ask_for_more(hub, somebody, docker_client):
    carol = somebody("carol")
    start(carol, "cpu")
    seen = facts(hub, carol, docker_client)
    assert seen["gpus"] == []
    assert seen["env"]["NVIDIA_VISIBLE_DEVICES"] == "void"
    assert not hub.busy()


def test_the_next_one_waits_sees_the_place_and_is_granted(hub, somebody, docker_client):
    alice, bob, carol = somebody("alice"), somebody("bob"), somebody("carol")
    start(alice, "gpu2")
    first, bobs = line_up(bob, "gpu")
    second, carols = line_up(carol, "gpu")
    assert "position 1" in first
    assert "position 2" in second
    alice.stop()
    assert is_ready(bobs)
    assert is_ready(carols)
    assert len(facts(hub, carol, docker_client)["gpus"]) == 1


def test_a_stop_frees_the_gpus_and_leaves_no_container(hub, somebody, docker_client):
    alice = somebody("alice")
    start(alice, "gpu2")
    assert len(hub.busy()) == 2
    alice.stop()
    wait_for("free GPUs", 60, lambda: not hub.busy())
    assert containers_of(docker_client, alice) == []


def test_the_kernel_has_the_limits_of_the_profile(hub, somebody, docker_client):
    alice = somebody("alice")
    start(alice, "cpu")
    host = container_of(docker_client, alice).attrs["HostConfig"]
    assert host["Memory"] == host["MemorySwap"] == 64 * 2**20
    assert host["CpuQuota"] == host["CpuPeriod"] == 100_000
    assert host["PidsLimit"] == 4096
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]


def test_a_server_waits_while_the_machines_memory_is_promised_to_others(hub, somebody):
    alice, bob = somebody("alice"), somebody("bob")
    start(alice, "half")
    line, events = line_up(bob, "half")
    assert "position 1" in line
    assert "memory" in line
    alice.stop()
    assert is_ready(events)


def test_a_server_that_dies_at_once_says_why_and_gives_the_gpu_back(hub, somebody, docker_client):
    alice = somebody("alice")
    answer = alice.ask({"profile": "dies"})
    page = answer.text
    if answer.status_code == 200 and "progress" in page:
        with pytest.raises(Exception, match="exit code 3") as failure:
            alice.wait(limit=30)
        page = str(failure.value)
    assert "exit code 3" in page
    assert "dies at once" in page
    wait_for("free GPUs", 60, lambda: not hub.busy())
    assert containers_of(docker_client, alice) == []


def test_a_server_that_ends_later_is_noticed_and_explained(hub, somebody, docker_client):
    alice = somebody("alice")
    start(alice, "brief")
    wait_for("the end", 60, lambda: server_of(alice) is None)
    wait_for("free GPUs", 60, lambda: not hub.busy())
    assert containers_of(docker_client, alice) == []
    form = alice.form()
    assert "exit code 7" in form
    assert "ends as told" in form


def test_a_server_above_its_memory_limit_is_killed_and_told_why(hub, somebody, docker_client):
    alice = somebody("alice")
    start(alice)
    assert alice.visit("eat?200").status_code != 200
    wait_for("the end", 60, lambda: server_of(alice) is None)
    wait_for("free GPUs", 60, lambda: not hub.busy())
    assert "out of memory, limit 64 MiB" in alice.form()


def test_a_process_killed_for_memory_in_a_server_that_lives_on_is_told(
    hub, somebody, docker_client
):
    alice = somebody("alice")
    start(alice)
    hungry = "x = bytearray(200 << 20)"
    killed, _ = container_of(docker_client, alice).exec_run(["python3", "-c", hungry])
    assert killed == 137
    told = "A process was killed: out of memory, limit 64 MiB"
    wait_for("the page", 60, lambda: told in alice.page("/services/gpus/"))
    assert server_of(alice)["ready"]


def test_a_container_removed_behind_the_hubs_back_frees_its_gpu(hub, somebody, docker_client):
    alice = somebody("alice")
    start(alice)
    container_of(docker_client, alice).remove(force=True)
    wait_for("free GPUs", 60, lambda: not hub.busy())
    wait_for("the end", 60, lambda: server_of(alice) is None)


def test_a_foreign_container_of_the_same_name_is_never_touched(
    hub, somebody, docker_client, run_container, stub_image
):
    alice = somebody("alice")
    start(alice, "cpu")
    name = container_of(docker_client, alice).name
    alice.stop()
    foreign = run_container(stub_image, name=name)
    answer = alice.ask({"profile": "gpu"})
    text = answer.text
    if answer.status_code == 200 and "progress" in text:
        with pytest.raises(Exception, match="has your server's name") as failure:
            alice.wait(limit=30)
        text = str(failure.value)
    assert "server&#39;s name" in text or "server's name" in text
    foreign.reload()
    assert foreign.status == "running"
    wait_for("free GPUs", 60, lambda: not hub.busy())


def test_a_home_outlives_its_server_and_belongs_to_its_owner(hub, somebody, docker_client):
    alice = somebody("alice")
    start(alice, "cpu")
    container_of(docker_client, alice).exec_run(["touch", "/home/jovyan/mine"])
    alice.stop()
    start(alice, "cpu")
    assert "mine" in facts(hub, alice, docker_client)["home"]


def test_a_user_created_again_does_not_get_the_old_home(hub, somebody, docker_client):
    admin = hub.person("admin", admin=True)
    name = "reborn"
    first = hub.person(name)
    start(first, "cpu")
    container_of(docker_client, first).exec_run(["touch", "/home/jovyan/secret"])
    first.stop()
    assert admin.api("DELETE", f"/users/{name}").status_code == 204
    second = hub.person(name)
    start(second, "cpu")
    assert "secret" not in facts(hub, second, docker_client)["home"]
    second.stop()


def test_named_servers_have_containers_and_leases_of_their_own(hub, somebody, docker_client):
    alice = somebody("alice")
    start(alice)
    start(alice, server="train")
    first = facts(hub, alice, docker_client)["gpus"]
    second = facts(hub, alice, docker_client, "train")["gpus"]
    assert len({*first, *second}) == 2


def test_labels_say_whose_container_it_is(hub, somebody, docker_client):
    alice = somebody("alice")
    start(alice)
    have = container_of(docker_client, alice).labels
    assert have[labels.USER] == have[labels.HUB_USERNAME] == alice.name
    assert have[labels.LEDGER] == hub.summary()["ledger"]
    assert have[labels.DEVICES] in hub.busy()
    assert not any("token" in value.lower() for value in have.values())


@pytest.mark.parametrize(
    "prefix", ["Ünï cödé", "UPPER.case", "a" * 200, "<b>bold</b>".replace("/", "")]
)
def test_any_user_name_gets_a_server(hub, somebody, docker_client, prefix):
    person = somebody(prefix)
    start(person, "cpu")
    found = container_of(docker_client, person)
    assert len(found.name) <= 63
