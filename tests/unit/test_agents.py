"""Reports of node agents: signed, numbered, fresh; and what they change about a node."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from jupyterhub_gpuspawner import agent
from jupyterhub_gpuspawner.discovery import agent_report, swarm
from jupyterhub_gpuspawner.discovery.agent_report import Message, combined, decode, encode, sign
from jupyterhub_gpuspawner.discovery.base import Process, Report, Usage
from jupyterhub_gpuspawner.errors import ConfigError, DiscoveryError, RefusedError, RequestError
from jupyterhub_gpuspawner.scheduler.models import Device, DeviceStatus, Health, Node
from jupyterhub_gpuspawner.service.agents import Agents
from tests.unit.swarm_fakes import node

KEY = "k" * 32
GPU = "GPU-1"
LISTED = swarm.report(node(2, gpus=(("GPU0", GPU),)), "node2")


def told(usage: Usage | None = None, **status) -> Report:
    device = Device(
        id=GPU,
        node="x",
        model="NVIDIA H100",
        memory=2**36,
        capability=(9, 0),
        bonds=(("GPU-2", 3),),
    )
    return Report(
        node=Node(name="x", memory=1, cpus=1.0, boot_id="boot"),
        devices=((device, DeviceStatus(**status)),),
        usage={GPU: usage or Usage(memory_used=0, utilisation=0.5)},
        notes=("a note",),
    )


def message(seq: int = 1, **more) -> Message:
    values = {"node": "n2", "seq": seq, "sent_at": 1000.0, "age": 2.0, "report": told(), **more}
    return Message(**values)


class Site:
    def __init__(self, key: str = KEY) -> None:
        self.now = 1000.0
        self.news = 0
        self.agents = Agents(key, 30.0, lambda: self.now)
        self.agents.on_news = self.heard

    def heard(self) -> None:
        self.news += 1

    def hear(self, what: Message, key: str = KEY) -> None:
        body = encode(what)
        self.agents.hear(body, sign(body, key))


def test_a_report_arrives_as_it_was_sent():
    processes = (Process(pid=7, memory=None, container="c1"), Process(pid=8, memory=5))
    sent = message(report=told(Usage(memory_used=None, processes=processes), health=Health.BAD))
    assert decode(encode(sent)) == sent
    nothing = message(report=None, error="no driver")
    assert decode(encode(nothing)) == nothing


@pytest.mark.parametrize(
    "change",
    [
        {"seq": "x"},
        {"age": -1},
        {"sent_at": float("inf")},
        {"seq": float("inf")},
        {"node": 5},
        {"report": []},
        {"report": {"node": {}}},
    ],
)
def test_a_broken_report_is_an_error_in_one_line(change):
    body = json.dumps({**json.loads(encode(message())), **change}).encode()
    with pytest.raises(RequestError, match="the agent's report is broken"):
        decode(body)


def test_only_the_agents_key_is_heard():
    site = Site()
    with pytest.raises(RefusedError):
        site.hear(message(), "other" * 10)
    with pytest.raises(RefusedError):
        Site(key="").hear(message(), "")
    assert site.agents.latest("n2") is None
    body = encode(message())
    with pytest.raises(RefusedError):
        site.agents.hear(body + b" ", sign(body, KEY))


def test_a_report_counts_once_and_not_when_it_is_old():
    site = Site()
    site.hear(message(5))
    for seq in (5, 4):
        with pytest.raises(RequestError, match=f"report {seq} came after 5"):
            site.hear(message(seq))
    site.hear(message(6))
    site.hear(message(1, node="n3"))
    site.now += agent_report.FRESH + 1
    with pytest.raises(RequestError, match="clock is -121 s off"):
        site.hear(message(7))


def test_a_node_without_a_report_for_a_while_is_silent():
    site = Site()
    assert site.agents.latest("n2") is None
    site.hear(message())
    site.now += 30
    assert site.agents.latest("n2").taken_at == 998.0
    site.now += 1
    assert site.agents.latest("n2") is None


def test_what_is_new_is_looked_at_at_once():
    site = Site()
    site.hear(message(1))
    assert site.news == 1
    site.hear(message(2, report=told(Usage(memory_used=1000, utilisation=0.9))))
    assert site.news == 1
    site.hear(message(3, report=told(health=Health.BAD)))
    site.hear(message(4, report=None, error="hangs"))
    site.hear(message(5, report=None, error="hangs"))
    assert site.news == 3
    site.now += 31
    site.hear(message(6, report=None, error="hangs", sent_at=site.now))
    assert site.news == 4


def test_the_node_lists_what_may_be_given_out_and_its_agent_measures_it():
    found = combined(LISTED, told(), frozenset())
    ((device, status),) = found.devices
    assert (device.node, device.model, device.capability) == ("node2", "NVIDIA H100", (9, 0))
    assert status == DeviceStatus()
    assert (found.node.name, found.node.boot_id) == ("node2", "boot")
    assert found.node.memory == LISTED.node.memory
    assert found.usage[GPU].utilisation == 0.5


def test_a_gpu_that_only_one_of_the_two_knows_is_not_given_out():
    unseen = combined(LISTED, replace(told(), devices=()), frozenset())
    ((_, status),) = unseen.devices
    assert status.health is Health.SUSPECT
    assert "agent does not see it" in status.note
    unlisted = combined(replace(LISTED, devices=()), told(), frozenset())
    assert unlisted.devices == ()
    assert "GPU-1 is there, but not in node-generic-resources" in unlisted.notes


def test_processes_in_our_servers_are_not_foreign_whatever_the_agent_thinks():
    use = Usage(memory_used=9, processes=(Process(pid=7, container="c1"), Process(pid=8)))
    said = told(use, foreign=True, note="slow; in use by 2 foreign process(es), PID 7, 8")
    ((_, status),) = combined(LISTED, said, frozenset({"c1"})).devices
    assert (status.foreign, status.note) == (True, "slow; in use by 1 foreign process(es), PID 8")
    mine = told(replace(use, processes=use.processes[:1]), foreign=True, note="in use by 1 process")
    found = combined(LISTED, mine, frozenset({"c1"}))
    assert found.devices[0][1] == DeviceStatus()
    assert not found.usage[GPU].processes[0].foreign


def test_gpus_that_the_agent_can_not_read_are_suspect():
    ((_, status),) = agent_report.doubted(LISTED, "no driver").devices
    assert (status.health, status.note) == (Health.SUSPECT, "its source can't be read: no driver")


class Broken:
    name = "broken"

    def discover(self) -> Report:
        raise DiscoveryError("no driver")


def test_an_agent_numbers_its_reports_by_the_clock_and_tells_what_it_can_not_read():
    sent: list[Message] = []
    clock = iter([1000.0, 1000.0, 900.0])

    def send(body: bytes, signature: str) -> None:
        assert agent_report.genuine(body, signature, KEY)
        sent.append(decode(body))
        if len(sent) == 2:
            raise OSError("nobody there")

    one = agent.Agent(Broken(), send, node_id="n2", key=KEY, clock=lambda: next(clock))
    assert [one.step(), one.step(), one.step()] == [True, False, True]
    assert [each.seq for each in sent] == [1_000_000, 1_000_001, 1_000_002]
    assert {each.error for each in sent} == {"no driver"}


def test_an_agent_that_is_told_too_little_says_what_is_missing(tmp_path):
    with pytest.raises(ConfigError, match="GPUS_NODE_ID, GPUS_NODE_NAME is not set"):
        agent.options_from({"GPUS_SCHEDULER_URL": "http://hub:8750"})
    key = tmp_path / "key"
    key.write_text("short\n")
    with pytest.raises(ConfigError, match="at least 32 characters"):
        agent.read_key(str(key))
    key.write_text(KEY + "\n")
    assert agent.read_key(str(key)) == KEY
