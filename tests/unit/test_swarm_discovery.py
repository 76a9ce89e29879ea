"""Nodes and GPUs as a Swarm's manager lists them."""

from __future__ import annotations

import pytest

from jupyterhub_gpuspawner.discovery import swarm
from jupyterhub_gpuspawner.scheduler.models import Admin, Health, Injection, Mode
from jupyterhub_gpuspawner.swarm_nodes import kinds_of, named
from tests.unit.swarm_fakes import node

GPU = "GPU-5f1b0000-0000-0000-0000-000000000001"


def test_a_named_resource_is_a_device_of_its_node():
    found = swarm.report(node(2, gpus=(("GPU3", GPU),)), "node2")
    ((device, status),) = found.devices
    assert (device.id, device.node, device.index) == (GPU, "node2", 3)
    assert (device.simulated, device.mode, status.health) == (False, Mode.EXCLUSIVE, Health.OK)
    assert (found.node.memory, found.node.cpus) == (2**34, 4.0)
    assert swarm.injection(device) is Injection.NVIDIA


def test_labels_of_the_node_say_what_its_gpus_are():
    labels = {swarm.MODEL_LABEL: "NVIDIA A100", swarm.MEMORY_LABEL: "80G"}
    ((device, _),) = swarm.report(node(2, gpus=(("GPU0", GPU),), labels=labels), "node2").devices
    assert (device.model, device.memory) == ("NVIDIA A100", 80 * 2**30)


def test_a_label_that_can_not_be_read_keeps_the_gpu_back():
    broken = node(2, gpus=(("GPU0", GPU),), labels={swarm.MEMORY_LABEL: "plenty"})
    ((_, status),) = swarm.report(broken, "node2").devices
    assert status.health is Health.SUSPECT
    assert "plenty" in status.note


@pytest.mark.parametrize(
    "gpus",
    [
        (("NVIDIA_GPU", "GPU-a"), ("NVIDIA_GPU", "GPU-b")),
        (("NVIDIA-GPU", "GPU-a"),),
    ],
)
def test_a_kind_that_does_not_name_one_device_is_not_used(gpus):
    info = node(2, gpus=gpus)
    assert kinds_of(info) == {}
    for _, status in swarm.report(info, "node2").devices:
        assert status.health is Health.SUSPECT
        assert "one kind per GPU" in status.note


def test_other_resources_are_no_gpus():
    info = node(2, gpus=(("FPGA0", "fpga-1"), ("GPU0", "SIMULATED-node2-0"), ("GPU1", "MIG-1")))
    found = [device for device, _ in swarm.report(info, "node2").devices]
    assert [(d.id, d.simulated, d.mode) for d in found] == [
        ("SIMULATED-node2-0", True, Mode.EXCLUSIVE),
        ("MIG-1", False, Mode.MIG),
    ]
    assert swarm.injection(found[0]) is Injection.BIND


def test_of_a_node_that_joined_again_only_the_new_membership_counts():
    old = node(2, state="down", hostname="gpu-1")
    new = node(3, hostname="gpu-1", CreatedAt="2026-02-01T00:00:00Z")
    assert named([old, new]) == [(new, "gpu-1")]


def test_two_machines_of_one_name_are_told_apart():
    twins = [node(2, hostname="gpu"), node(3, hostname="gpu"), node(4)]
    assert [name for _, name in named(twins)] == ["gpu-n2", "gpu-n3", "node4"]


@pytest.mark.parametrize(
    "word,admin",
    [("active", Admin.OPEN), ("pause", Admin.CORDONED), ("drain", Admin.DRAINING)],
)
def test_the_availability_is_the_admins_word(word, admin):
    assert swarm.admin(node(2, availability=word)) is admin
