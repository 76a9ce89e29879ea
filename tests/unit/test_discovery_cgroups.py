"""container_ids: every shape of /proc/<pid>/cgroup that engines make."""

import pytest

from jupyterhub_gpuspawner.discovery.cgroups import container_ids

A = "a1" * 32
B = "b2" * 32


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        (f"4:memory:/docker/{A}\n1:name=systemd:/docker/{A}\n", (A,)),
        (f"1:name=systemd:/system.slice/docker-{A}.scope\n", (A,)),
        (f"0::/docker/{A}\n", (A,)),
        (f"0::/system.slice/docker-{A}.scope\n", (A,)),
        (f"0::/system.slice/docker-{A}.scope/init\n", (A,)),
        (f"0::/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{A}.scope\n", (A,)),
        (f"0::/../{A}\n", (A,)),
        (f"0::/../../docker-{A}.scope\n", (A,)),
        (f"0::/docker/{A} (deleted)\n", (A,)),
        (f"0::/docker-{A}.scope (deleted)\n", (A,)),
        (f"0::/my-parent.slice/{A}\n", (A,)),
        (f"5:devices:/docker/{A}/docker/{B}\n", (A, B)),
        (f"0::/kubepods.slice/kubepods-pod1.slice/cri-containerd-{A}.scope\n", (A,)),
        (f"0::/machine.slice/libpod-{A}.scope/container\n", (A,)),
        (f"4:memory:/weird:name/{A}\n", (A,)),
        ("0::/\n", ()),
        ("0::/user.slice/user-1000.slice/session-3.scope\n", ()),
        ("0::/system.slice/docker.service\n", ()),
        (f"0::/docker/{A[:12]}\n", ()),
        (f"0::/docker/{A.upper()}\n", ()),
        (f"0::/docker/{A}0\n", ()),
        (f"{A}\n", ()),
        ("", ()),
    ],
)
def test_the_containers_of_a_process_are_read_from_its_cgroup_paths(text, ids):
    assert container_ids(text) == ids
