"""From sources and engine to one report: what makes a device not free."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from jupyterhub_gpuspawner.discovery.base import Report, Usage
from jupyterhub_gpuspawner.discovery.engine import Plan
from jupyterhub_gpuspawner.engine import labels
from jupyterhub_gpuspawner.errors import DiscoveryError
from jupyterhub_gpuspawner.scheduler.models import (
    Claim,
    Device,
    DeviceStatus,
    GPURequest,
    Health,
    Injection,
    Lease,
    Node,
    ServerKey,
)
from jupyterhub_gpuspawner.service import inventory, reconciler, runtime
from jupyterhub_gpuspawner.service.inventory import foreign_use, merged, occupied
from tests.unit.service_world import World
from tests.unit.test_service_reconcile import C1, C2, seen

# real sockets, files or processes
pytestmark = pytest.mark.slow

GIB = 2**30
G0 = Device(id="GPU-0", node="n1", index=0, memory=8 * GIB)
G1 = Device(id="GPU-1", node="n1", index=1, memory=8 * GIB)
MIG = Device(id="MIG-0", node="n1", index=2, parent="GPU-2")
HOLDS_G0 = Lease(
    id="L1",
    key=ServerKey(hub="hub", user="alice"),
    request=GPURequest(count=1),
    node="n1",
    claims=(Claim(device="GPU-0", atom=0, lease_id="L1"),),
    container_id=C1,
)
ALL_GOOD = Plan(injections={"GPU-0": Injection.CDI, "GPU-1": Injection.CDI}, problems={})


@pytest.mark.parametrize(
    ("container", "used"),
    [
        (seen(injected=("GPU-0",)), set()),
        (seen(injected=("GPU-0", "GPU-1")), {"GPU-1"}),
        (seen(container_id=C2, injected=("GPU-0",)), {"GPU-0"}),
        (seen("exited", container_id=C2, injected=("GPU-0",)), set()),
        (seen("paused", container_id=C2, injected=("GPU-0",)), {"GPU-0"}),
        (seen(container_id=C2, injected=("*",)), {"GPU-0", "GPU-1", "MIG-0"}),
        (seen(container_id=C2, injected=("/dev/nvidia1",)), {"GPU-1"}),
        (seen(container_id=C2, injected=("GPU-2",)), {"MIG-0"}),
        (seen(container_id=C2, injected=()), set()),
        # dcgm-exporter, as its admin has labelled it
        (seen(container_id=C2, injected=("*",), labels={labels.KIND: "observer"}), set()),
    ],
)
def test_a_device_is_used_by_who_runs_with_it_and_does_not_hold_it(
    container: Any, used: set[str]
) -> None:
    assert set(foreign_use([container], [HOLDS_G0], [G0, G1, MIG])) == used


def test_the_word_all_does_not_mean_simulated_devices() -> None:
    simulated = Device(id="SIMULATED-n1-0", node="n1", simulated=True)
    assert foreign_use([seen(container_id=C2, injected=("*",))], [], [simulated]) == {}


def report(*devices: Device, **usage: Usage) -> Report:
    return Report(
        node=Node(name="n1"),
        devices=tuple((device, DeviceStatus()) for device in devices),
        usage={name.replace("_", "-"): value for name, value in usage.items()},
    )


@pytest.mark.parametrize(
    ("usage", "held", "foreign"),
    [
        (Usage(memory_used=0), False, False),
        (Usage(memory_used=100 * 2**20), False, False),
        (Usage(memory_used=2 * GIB), False, True),
        (Usage(memory_used=None), False, True),
        (Usage(memory_used=0, processes=None), False, True),
        (Usage(memory_used=2 * GIB), True, False),
    ],
)
def test_a_free_device_that_is_not_seen_empty_is_in_use(
    usage: Usage, held: bool, foreign: bool
) -> None:
    found = report(G0, GPU_0=usage)
    ((_, status),) = merged(found, ALL_GOOD, {}, {"GPU-0"} if held else set())
    assert status.foreign is foreign
    assert bool(status.note) is foreign
    assert ("GPU-0" in occupied(found)) is (usage.empty() is not True)


def test_a_device_that_nobody_measures_is_believed() -> None:
    ((_, status),) = merged(report(G0), ALL_GOOD, {}, set())
    assert status == DeviceStatus()
    assert occupied(report(G0)) == frozenset()


def test_a_device_that_the_engine_can_not_inject_is_not_given_out() -> None:
    how = Plan(injections={}, problems={"GPU-0": "no CDI spec names it"})
    ((_, status),) = merged(report(G0), how, {}, set())
    assert (status.health, status.note) == (Health.SUSPECT, "no CDI spec names it")


class Broken:
    """A source that fails while it is told to."""

    name = "broken"

    def __init__(self, source: Any) -> None:
        self.source = source
        self.error: DiscoveryError | None = None

    def discover(self) -> Report:
        if self.error is not None:
            raise self.error
        answer: Report = self.source.discover()
        return answer


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(runtime, "TICK", 0.01)
    monkeypatch.setattr(reconciler, "RETRY", 0.005)
    return World(tmp_path)


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> list[Broken]:
    made: list[Broken] = []
    real = runtime.make_sources

    def make(*arguments: Any) -> inventory.Sources:
        sources = real(*arguments)
        made.append(Broken(sources.source))
        return inventory.Sources(source=made[-1], simulated=None)

    monkeypatch.setattr(runtime, "make_sources", make)
    return made


async def test_a_source_that_fails_stops_grants_of_devices_but_nothing_else(
    world: World, broken: list[Broken]
) -> None:
    async with world.running():
        _, container = await world.run("alice", 1)
        broken[0].error = DiscoveryError("the driver does not answer")
        assert world.desk.reconciler is not None
        world.desk.reconciler.nudge()
        await world.until_states("busy", "unavailable")
        async with world.ask("bob", 1) as bob:
            assert (await bob.line())["event"] == "queued"
            # servers without GPU don't need the source, and nothing that runs is touched
            await world.grant("carol", 0)
            assert world.engine.containers[container].state == "running"
            leases = await world.desk.read(lambda state: list(state.tables.leases.values()))
            assert not any(lease.uncertain for lease in leases)
            broken[0].error = None
            world.desk.reconciler.nudge()
            await bob.until(event="granted")


async def test_a_source_that_fails_from_the_start_keeps_everybody_waiting_with_the_reason(
    world: World, broken: list[Broken], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Late(DiscoveryError):
        pass

    real = Broken.__init__

    def init(self: Broken, source: Any) -> None:
        real(self, source)
        self.error = Late("the driver does not answer")

    monkeypatch.setattr(Broken, "__init__", init)
    async with world.running(wait=False), world.ask("bob", 1) as bob:
        line = await bob.until(reason="node_not_ready")
        assert "the driver does not answer" in line["message"]
        broken[0].error = None
        await bob.until(event="granted")


async def test_a_look_that_hangs_is_given_up_and_not_started_twice(
    world: World, broken: list[Broken], monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    release = threading.Event()
    monkeypatch.setattr(inventory, "LIMIT", 0.02)
    async with world.running():
        monkeypatch.setattr(broken[0], "discover", lambda: release.wait(5))
        found = world.desk.inventory
        assert found is not None
        with pytest.raises(DiscoveryError, match="no answer"):
            await found.look({}, "1.41")
        with pytest.raises(DiscoveryError, match="still hangs"):
            await found.look({}, "1.41")
        release.set()
        await world.until(lambda: not found._busy)
        await asyncio.sleep(0)


async def test_a_cancel_that_comes_with_the_answer_is_not_lost(
    world: World, broken: list[Broken], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.running():
        found = world.desk.inventory
        assert found is not None
        looks = asyncio.ensure_future(found.look({}, "1.41"))
        monkeypatch.setattr(found, "_done", lambda future: looks.cancel())
        with pytest.raises(asyncio.CancelledError):
            await looks
