"""A server's life on a real Swarm: placement, devices, limits, home, end, refusal."""

from __future__ import annotations

import io

import pytest

from deploy.quickstart.trial import wait_for
from jupyterhub_gpuspawner.engine import labels
from tests.hub.conftest import is_ready, line_up, server_of, start
from tests.swarm.hubs import FOLDER, LOPSIDED, assert_quiet
from tests.testbed.images import stub_tag

MIB = 2**20


def failure_of(person, profile):
    """Ask for a profile that can't start; what the person reads."""
    answer = person.ask({"profile": profile})
    if answer.status_code == 200 and "progress" in answer.text:
        with pytest.raises(Exception) as failure:
            person.wait(limit=60)
        return str(failure.value)
    return answer.text


def test_two_users_get_other_gpus_on_other_nodes_and_the_third_waits(hub, somebody, auditor):
    alice, bob, carol = somebody("alice"), somebody("bob"), somebody("carol")
    start(alice, "gpu2")
    start(bob, "gpu2")
    first, second = hub.facts(alice)["gpus"], hub.facts(bob)["gpus"]
    assert set(first) == set(hub.node_of(alice).device_ids)
    assert set(second) == set(hub.node_of(bob).device_ids)
    assert hub.node_of(alice).node != hub.node_of(bob).node
    line, events = line_up(carol, "gpu")
    assert "position 1" in line
    alice.stop()
    assert is_ready(events)
    assert set(hub.facts(carol)["gpus"]) < set(first)
    assert_quiet(auditor, {bob.name, carol.name})


def test_swarm_itself_holds_the_device_for_the_task(hub, somebody, auditor):
    alice = somebody("alice")
    start(alice, "gpu")
    (device,) = hub.facts(alice)["gpus"]
    assigned = hub.task_of(alice)["GenericResources"]
    assert [item["NamedResourceSpec"]["Value"] for item in assigned] == [device]
    spec = hub.service_of(alice)["Spec"]["TaskTemplate"]
    assert spec["RestartPolicy"]["Condition"] == "none"
    assert spec["Placement"]["Constraints"] == [f"node.id=={hub.task_of(alice)['NodeID']}"]


def test_a_server_without_gpu_sees_none(hub, somebody, auditor):
    alice = somebody("alice")
    start(alice, "cpu")
    facts = hub.facts(alice)
    assert facts["gpus"] == []
    assert facts["visible"] == "void"
    assert not hub.busy()


def test_the_kernel_has_the_limits_and_as_much_is_reserved(hub, somebody, auditor):
    alice = somebody("alice")
    start(alice, "cpu")
    container = hub.container_of(alice)
    config = container.attrs["HostConfig"]
    assert config["Memory"] == 64 * MIB
    assert config["NanoCpus"] == 250_000_000
    assert config["PidsLimit"] == 4096
    assert config["CapDrop"] == ["ALL"]
    assert config["Init"] is True
    resources = hub.service_of(alice)["Spec"]["TaskTemplate"]["Resources"]
    assert resources["Reservations"] == {"NanoCPUs": 250_000_000, "MemoryBytes": 64 * MIB}
    with hub.swarm.client(hub.node_of(alice)) as client:
        code, text = client.containers.get(container.id).exec_run("df -B1 /dev/shm")
    assert code == 0
    assert str(32 * MIB) in text.decode()


def test_the_container_says_whose_it_is(hub, somebody, auditor):
    alice = somebody("alice")
    start(alice, "gpu")
    have = hub.container_of(alice).labels
    assert have[labels.USER] == alice.name
    assert have[labels.DEVICES] in hub.busy()


def test_a_home_outlives_its_server(hub, somebody, auditor):
    alice = somebody("alice")
    start(alice, "cpu")
    node, container = hub.node_of(alice), hub.container_of(alice)
    with hub.swarm.client(node) as client:
        client.containers.get(container.id).exec_run("touch /home/jovyan/mine")
    alice.stop()
    start(alice, "cpu")
    assert hub.node_of(alice).node == node.node
    assert "mine" in hub.facts(alice)["home"]


def test_a_home_of_one_node_ties_its_user_to_that_node(hub, somebody, manager, swarm, auditor):
    alice, tied = somebody("alice"), somebody("tied")
    start(alice, "gpu2")
    start(tied, "gpu")
    node = hub.node_of(tied)
    with swarm.client(node) as client:
        client.containers.get(hub.container_of(tied).id).exec_run("touch /home/jovyan/mine")
    assert hub.node_of(alice).node < node.node  # where it would start, were it free to
    alice.stop()
    tied.stop()
    wait_for("free GPUs", 10, lambda: not hub.busy())
    availability(manager, node, "pause")
    try:
        wait_for("pause", 30, lambda: hub.nodes()[node.node]["reason"] == "node_cordoned")
        _, events = line_up(tied, "gpu")
    finally:
        availability(manager, node, "active")
    said = list(events)
    assert said[-1].get("ready"), said
    assert hub.node_of(tied).node == node.node
    assert "mine" in hub.facts(tied)["home"]
    where = manager.configs.list(filters={"label": labels.VOLUME})
    assert {one.attrs["Spec"]["Labels"][labels.NODE] for one in where} == {node.node}


def test_secrets_configs_and_mounts_of_a_profile_are_in_the_server(hub, somebody, manager, auditor):
    user = somebody("mounts")
    secret = manager.secrets.create(name="gpus-test-secret", data=b"sesame")
    manager.configs.create(name="gpus-test-config", data=b" welcome\n")
    try:
        start(user, "mounts")
        with hub.swarm.client(hub.node_of(user)) as client:
            container = client.containers.get(hub.container_of(user).id)
            names = {one["Destination"]: one.get("Name") for one in container.attrs["Mounts"]}
            read = (
                "cat /run/secrets/key /etc/greeting; df -B1 --output=size /dev/shm /scratch /fast"
            )
            code, text = container.exec_run(["sh", "-c", read])
    finally:
        user.stop()
        secret.remove()
    assert code == 0, text
    sizes = [str(size * MIB) for size in (3, 4, 8)]
    assert text.decode().split() == ["sesame", "welcome", "1B-blocks", *sizes]
    # per profile, and of each user's own
    assert names["/tools"].startswith("tools-mounts-")
    assert names["/tools"].endswith(user.name.partition("-")[2])


def test_a_stop_frees_the_gpus_once_the_node_has_no_process_any_more(hub, somebody, auditor):
    alice = somebody("alice")
    start(alice, "gpu2")
    node = hub.node_of(alice)
    alice.stop()
    wait_for("free GPUs", 10, lambda: not hub.busy())
    assert hub.service_of(alice) is None
    assert all(one.status != "running" for one in hub.containers_on(node, alice))


def test_a_rejected_task_fails_with_swarms_own_words(hub, somebody, auditor):
    text = failure_of(somebody("alice"), "noimage")
    assert "rejected" in text
    assert "No such image: gpuspawner-test/not-there:latest" in text
    wait_for("free GPUs", 10, lambda: not hub.busy())


def test_an_image_that_one_node_lacks_is_looked_for_on_another(hub, somebody, swarm, auditor):
    alice = somebody("alice")
    first, second = swarm.workers
    with swarm.client(second) as client:
        client.images.get(stub_tag()).tag(LOPSIDED)
        try:
            said = start(alice, "lopsided")
        finally:
            client.images.remove(LOPSIDED, force=True)
    assert f"{first.node} lacks what your server needs; another machine is tried" in said
    assert hub.node_of(alice).node == second.node
    wait_for("one lease", 10, lambda: len(hub.busy()) == 1)
    assert set(hub.facts(alice)["gpus"]) == hub.busy()


def test_an_image_that_names_gpus_in_swarms_variables_gets_none_by_that(
    hub, somebody, swarm, auditor
):
    alice = somebody("alice")
    for node in swarm.workers:
        wanted = [f"DOCKER_RESOURCE_GPU{k}={id}" for k, id in enumerate(node.device_ids)]
        text = "\n".join([f"FROM {stub_tag()}", *(f"ENV {one}" for one in wanted)])
        with swarm.client(node) as client:
            image, _ = client.images.build(fileobj=io.BytesIO(text.encode()), tag=LOPSIDED)
        assert set(wanted) <= set(image.attrs["Config"]["Env"])
    try:
        start(alice, "lopsided")
        (leased,) = hub.facts(alice)["gpus"]
        env = hub.container_of(alice).attrs["Config"]["Env"]
        alice.stop()
    finally:
        for node in swarm.workers:
            with swarm.client(node) as client:
                client.images.remove(LOPSIDED, force=True)
    found = dict(one.split("=", 1) for one in env if one.startswith("DOCKER_RESOURCE_"))
    assert sorted(found.values()) == ["", leased]


@pytest.mark.parametrize("mount", ["folder", "volume"])
def test_a_mount_that_one_node_lacks_is_looked_for_on_another(hub, somebody, swarm, auditor, mount):
    alice, boss = somebody(mount), hub.person("admin", admin=True)
    if mount == "folder":
        boss.api("POST", "/groups/folder")
        added = boss.api("POST", "/groups/folder/users", json={"users": [alice.name]})
        assert added.status_code == 200, added.text
    probe = somebody("probe")
    start(probe, "gpu")
    first = hub.node_of(probe)  # where the next one of the same kind is tried first
    probe.stop()
    (second,) = (node for node in swarm.workers if node.node != first.node)
    made = second.folder / FOLDER.removeprefix("/")
    made.mkdir()
    try:
        said = start(alice, "gpu")
        assert hub.node_of(alice).node == second.node
        alice.stop()
    finally:
        made.rmdir()
    assert f"{first.node} lacks what your server needs; another machine is tried" in said


def test_a_server_that_dies_at_once_says_why(hub, somebody, auditor):
    text = failure_of(somebody("alice"), "dies")
    assert "exit code 3" in text
    assert "dies at once" in text
    wait_for("free GPUs", 10, lambda: not hub.busy())


def test_a_server_that_ends_later_is_noticed_and_explained(hub, somebody, auditor):
    alice = somebody("alice")
    start(alice, "brief")
    wait_for("the end", 30, lambda: server_of(alice) is None)
    wait_for("free GPUs", 10, lambda: not hub.busy())
    assert hub.service_of(alice) is None
    assert "exit code 7" in alice.form()


def test_a_task_above_its_memory_limit_is_killed_and_gives_its_gpu_back(hub, somebody, auditor):
    alice = somebody("alice")
    start(alice, "gpu")
    assert alice.visit("eat?500").status_code != 200
    wait_for("the end", 30, lambda: server_of(alice) is None)
    wait_for("free GPUs", 10, lambda: not hub.busy())
    assert "exit code 137" in alice.form()


def test_a_service_removed_behind_the_hubs_back_frees_its_gpu(hub, somebody, manager, auditor):
    alice = somebody("alice")
    start(alice, "gpu")
    manager.api.remove_service(hub.service_of(alice)["ID"])
    wait_for("free GPUs", 30, lambda: not hub.busy())
    wait_for("the end", 30, lambda: server_of(alice) is None)


def test_a_gpu_in_a_service_of_somebody_else_is_not_given_out(hub, somebody, manager, auditor):
    node = hub.swarm.workers[0]
    kind = {"DiscreteResourceSpec": {"Kind": "GPU0", "Value": 1}}
    task = {
        "ContainerSpec": {"Image": stub_tag(), "Command": ["sleep", "1000"], "Init": True},
        "Resources": {"Reservations": {"GenericResources": [kind]}},
        "Placement": {"Constraints": [f"node.hostname=={node.node}"]},
    }
    service = manager.api.create_service(task, name="foreign")["ID"]
    try:
        device = node.device_ids[0]
        wait_for("its use", 30, lambda: hub.leases()[device]["reason"] == "device_foreign")
    finally:
        manager.api.remove_service(service)
    wait_for("its end", 30, lambda: hub.leases()[device]["state"] == "free")


def test_a_drained_node_gets_no_server_and_keeps_those_that_it_has(hub, somebody, manager, auditor):
    alice, bob = somebody("alice"), somebody("bob")
    start(alice, "gpu")
    node = hub.node_of(alice)
    auditor.protect(alice.name)
    availability(manager, node, "drain")
    try:
        wait_for("drain", 30, lambda: hub.nodes()[node.node]["reason"] == "node_cordoned")
        start(bob, "gpu")
        assert hub.node_of(bob).node != node.node
        assert hub.facts(alice)["gpus"]
    finally:
        availability(manager, node, "active")
    wait_for("open", 30, lambda: hub.nodes()[node.node]["reason"] is None)
    auditor.release(alice.name)


def availability(manager, node, word):
    (info,) = manager.api.nodes(filters={"name": node.node})
    spec = {**info["Spec"], "Availability": word}
    manager.api.update_node(info["ID"], info["Version"]["Index"], spec)
