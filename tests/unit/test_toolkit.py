"""NVIDIA's container toolkit on a Swarm's node: which way it names GPUs, and when it is refused."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest

from jupyterhub_gpuspawner import agent
from jupyterhub_gpuspawner.discovery import swarm
from jupyterhub_gpuspawner.discovery.agent_report import Message, decode, encode, sign
from jupyterhub_gpuspawner.discovery.base import Report
from jupyterhub_gpuspawner.discovery.toolkit import (
    CONFIG,
    FIX,
    PROGRAM,
    Looker,
    Toolkit,
    Verdict,
    Way,
    checked,
    ignores_resources,
    judge,
    settings_of,
    version_in,
)
from jupyterhub_gpuspawner.errors import RequestError
from jupyterhub_gpuspawner.scheduler.models import Health
from jupyterhub_gpuspawner.service.agents import Agents
from jupyterhub_gpuspawner.service.swarm_reconciler import SwarmReconciler
from jupyterhub_gpuspawner.service.swarm_view import SwarmSeen
from tests.unit.swarm_fakes import node

#: as the packages write it: what stands behind # is the default
SHIPPED = """
#accept-nvidia-visible-devices-as-volume-mounts = false
#accept-nvidia-visible-devices-envvar-when-unprivileged = true
disable-require = false
supported-driver-capabilities = "compat32,compute,display,graphics,ngx,utility,video"
#swarm-resource = "DOCKER_RESOURCE_GPU"

[nvidia-container-cli]
environment = []
load-kmods = true

[nvidia-container-runtime]
mode = "auto"
# not ours, though it looks like it
accept-nvidia-visible-devices-as-volume-mounts = true
"""
MOUNTS = "accept-nvidia-visible-devices-as-volume-mounts = true\n"
RESOURCES = "swarm-resource = 'DOCKER_RESOURCE_GPU0, DOCKER_RESOURCE_GPU1' # ours\n"
NO_VARIABLES = "accept-nvidia-visible-devices-envvar-when-unprivileged = false\n"
KINDS = ("GPU0", "GPU1")
KEY = "k" * 32


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", Toolkit()),
        (SHIPPED, Toolkit()),
        (MOUNTS + SHIPPED, Toolkit(mounts=True)),
        (NO_VARIABLES, Toolkit(variables=False)),
        (RESOURCES, Toolkit(resources=("DOCKER_RESOURCE_GPU0", "DOCKER_RESOURCE_GPU1"))),
        ('swarm-resource=""\n', Toolkit()),
        ("  accept-nvidia-visible-devices-as-volume-mounts=true", Toolkit(mounts=True)),
        ("this is no TOML at all\n= = =\n", Toolkit()),
    ],
)
def test_a_configuration_is_read_as_the_toolkit_reads_it(text: str, found: Toolkit) -> None:
    assert settings_of(text) == found


@pytest.mark.parametrize(
    ("version", "ignores"),
    [
        ("1.13.5", False),
        ("1.17.8", False),
        ("1.17.9-1", False),
        ("1.18.0-rc.3", True),
        ("1.18.0", True),
        ("1.18.2", True),
        ("1.19.0-rc.1", True),
        ("1.19.0~rc.1", True),
        ("1.19.0-rc.2", False),
        ("1.19.0", False),
        ("1.19.1", False),
        ("1.20.0-rc.1", False),
        ("2.0.0", False),
        ("of today", True),
    ],
)
def test_versions_that_ignore_swarm_resource_are_known(version: str, ignores: bool) -> None:
    assert ignores_resources(version) is ignores


@pytest.mark.parametrize(
    ("version", "config", "way", "words"),
    [
        ("1.17.8", MOUNTS, Way.MOUNTS, "past the Hub"),
        ("1.18.0", MOUNTS + NO_VARIABLES, Way.MOUNTS, "no container gets one by a variable"),
        ("1.19.0", MOUNTS + RESOURCES, Way.MOUNTS, "the leased GPUs alone"),
        ("1.17.8", RESOURCES, Way.RESOURCE, "a container that is started past the Hub"),
        ("1.19.0-rc.2", RESOURCES, Way.RESOURCE, "what Swarm assigned"),
        ("1.18.1", RESOURCES, Way.NONE, "1.18.1 takes no notice of swarm-resource"),
        ("1.18.1", SHIPPED, Way.NONE, "1.18.1 takes no notice of swarm-resource"),
        ("1.17.8", SHIPPED, Way.NONE, "set up neither for"),
        ("1.17.8", RESOURCES + NO_VARIABLES, Way.NONE, "does not count"),
        (
            "1.17.8",
            "swarm-resource = 'DOCKER_RESOURCE_GPU0'",
            Way.NONE,
            "DOCKER_RESOURCE_GPU1",
        ),
        ("", MOUNTS, Way.NONE, "not installed"),
    ],
)
def test_a_node_gives_out_gpus_only_where_its_toolkit_names_them_exactly(
    version: str, config: str, way: Way, words: str
) -> None:
    settings = settings_of(config)
    toolkit = Toolkit(
        version=version,
        mounts=settings.mounts,
        variables=settings.variables,
        resources=settings.resources,
    )
    found = judge(toolkit, KINDS)
    assert found.way is way and found.version == version
    assert words in (found.trouble if way is Way.NONE else found.enforces)
    assert bool(found.trouble) != bool(found.enforces)
    assert (FIX in found.trouble) == (way is Way.NONE)


def test_what_can_not_be_looked_at_is_refused() -> None:
    assert "no answer" in judge(Toolkit(mounts=True, error="no answer"), KINDS).trouble


def test_a_refused_toolkit_keeps_all_gpus_of_its_node_back_and_says_why() -> None:
    report = swarm.report(node(2, gpus=(("GPU0", "GPU-1"), ("GPU1", "GPU-2"))), "node2")
    bad = Verdict(way=Way.NONE, trouble="too old")
    for _, status in checked(report, bad).devices:
        assert (status.health, status.note) == (Health.SUSPECT, "too old")
    for fine in (None, Verdict(way=Way.MOUNTS, enforces="all")):
        assert checked(report, fine) == report
    broken = node(2, gpus=(("GPU0", "GPU-1"),), labels={swarm.MEMORY_LABEL: "plenty"})
    ((_, status),) = checked(swarm.report(broken, "node2"), bad).devices
    assert "plenty" in status.note and status.note.endswith("; too old")


def plant(root: Path, config: str | None = MOUNTS, program: bool = True) -> None:
    for name, text in ((CONFIG, config), (PROGRAM, "" if program else None)):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is not None:
            path.write_text(text)


def test_the_look_at_a_machine_is_repeated_when_something_has_changed(tmp_path: Path) -> None:
    asked = []

    def says(program: Path) -> str:
        asked.append(program)
        return "1.17.8"

    looker = Looker(tmp_path, says)
    assert looker.look() == Toolkit()
    plant(tmp_path)
    assert looker.look() == looker.look() == Toolkit(version="1.17.8", mounts=True)
    assert asked == [tmp_path / PROGRAM]
    (tmp_path / CONFIG).write_text(MOUNTS + NO_VARIABLES)
    assert looker.look() == Toolkit(version="1.17.8", mounts=True, variables=False)
    (tmp_path / PROGRAM).unlink()
    assert looker.look().error == f"no {PROGRAM}"
    (tmp_path / CONFIG).unlink()
    assert looker.look() == Toolkit()


def test_what_goes_wrong_with_the_look_is_told(tmp_path: Path) -> None:
    def broken(program: Path) -> str:
        raise OSError("exec format\nerror")

    plant(tmp_path)
    assert Looker(tmp_path, broken).look().error == "nvidia-ctk: exec format error"
    (tmp_path / CONFIG).write_bytes(b"\xff")
    assert "decode" in Looker(tmp_path, broken).look().error
    with pytest.raises(ValueError, match="it says 'nothing'"):
        version_in("nothing")
    assert version_in("NVIDIA Container Toolkit CLI version 1.19.0-rc.1\ncommit: x") == (
        "1.19.0-rc.1"
    )


def test_a_toolkit_is_a_part_of_a_report_and_an_older_agent_has_none() -> None:
    toolkit = Toolkit(version="1.18.0", resources=("DOCKER_RESOURCE_GPU0",), error="x")
    sent = Message(node="n2", seq=1, sent_at=1.0, age=0.0, toolkit=toolkit)
    assert decode(encode(sent)) == sent
    older = encode(sent).replace(b',"toolkit":', b',"something":')
    assert decode(older).toolkit is None
    for bad in ({**asdict(toolkit), "version": 5}, {**asdict(toolkit), "resources": [None]}, 7):
        body = encode(Message(node="n2", seq=1, sent_at=1.0, age=0.0))
        with pytest.raises(RequestError, match="broken"):
            decode(json.dumps({**json.loads(body), "toolkit": bad}).encode())


def options(root: str, simulate: int = 0) -> agent.Options:
    return agent.Options(
        scheduler="http://x", node_id="n", node_name="n", host_root=root, simulate=simulate
    )


def test_an_agent_looks_where_it_is_told_and_a_simulation_needs_no_toolkit(tmp_path: Path) -> None:
    assert agent.toolkit_of(options(""))() is None
    assert agent.toolkit_of(options(str(tmp_path)))() == Toolkit()
    simulated = agent.toolkit_of(options(str(tmp_path), 2))
    assert simulated() is None
    plant(tmp_path, program=False)
    assert simulated() == Toolkit(mounts=True, error=f"no {PROGRAM}")
    environment = {"GPUS_SCHEDULER_URL": "u", "GPUS_NODE_ID": "i", "GPUS_NODE_NAME": "n"}
    assert agent.options_from({**environment, "GPUS_HOST_ROOT": "/host"}).host_root == "/host"
    assert os.sep not in agent.options_from(environment).host_root


def test_the_scheduler_judges_by_the_kinds_of_the_node_and_remembers_for_doctor() -> None:
    now = 1000.0
    looks = SwarmReconciler.__new__(SwarmReconciler)
    looks._clock, looks._containers = (lambda: now), {}
    looks.agents = Agents(KEY, 30.0, lambda: now)
    real, simulated = ("GPU0", "GPU-1"), ("GPU0", "SIMULATED-node3-0")
    nodes = {"node2": node(2, gpus=(real,)), "node3": node(3, gpus=(simulated,)), "node4": node(4)}
    listed = {name: swarm.report(one, name) for name, one in nodes.items()}

    def heard(toolkit: Toolkit | None, seq: int) -> dict[str, Report]:
        body = encode(
            Message(
                node="n2", seq=seq, sent_at=now, age=0.0, report=listed["node2"], toolkit=toolkit
            )
        )
        looks.agents.hear(body, sign(body, KEY))
        reports, _ = looks._heard(dict(listed), nodes, SwarmSeen(ours=(), others=()))
        return reports

    assert looks._heard(dict(listed), nodes, SwarmSeen(ours=(), others=()))[0].keys() == {"node4"}
    # a simulated GPU needs no toolkit, a real one whose toolkit nobody has seen is not refused
    assert looks.agents.verdicts == {"node2": None}
    fine = Toolkit(version="1.19.0", resources=("DOCKER_RESOURCE_GPU0",))
    for toolkit, seq, health in (
        (None, 1, Health.OK),
        (fine, 2, Health.OK),
        (Toolkit(version="1.18.0", resources=fine.resources), 3, Health.SUSPECT),
    ):
        ((_, status),) = heard(toolkit, seq)["node2"].devices
        assert status.health is health
    verdict = looks.agents.verdicts["node2"]
    assert verdict is not None and verdict.way is Way.NONE and "1.18.0" in verdict.trouble
