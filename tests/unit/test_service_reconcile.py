"""What reconcile plans, as a table; and what its shell does with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jupyterhub_gpuspawner.engine import labels
from jupyterhub_gpuspawner.engine.observe import Observation
from jupyterhub_gpuspawner.errors import EngineConflict, EngineUnknown
from jupyterhub_gpuspawner.scheduler.decisions import LeaseStored, Noted
from jupyterhub_gpuspawner.scheduler.events import ContainerRunning, StopWanted
from jupyterhub_gpuspawner.scheduler.models import (
    Claim,
    GPURequest,
    Lease,
    LeaseState,
    Reason,
    ServerKey,
    Target,
)
from jupyterhub_gpuspawner.service import reconciler, runtime
from jupyterhub_gpuspawner.service.engine_view import Seen
from jupyterhub_gpuspawner.service.reconcile import (
    Adopt,
    Confirm,
    Graces,
    Remove,
    Step,
    Tell,
    View,
    Warn,
    plan,
)
from tests.unit.scheduler_world import World as Site
from tests.unit.service_world import LEDGER, World

# real sockets, files or processes
pytestmark = pytest.mark.slow

NOW = 10_000.0
C1, C2 = "1" * 64, "2" * 64
GRACES = Graces(created=120.0, exited=30.0, start=600.0)


def lease(state: LeaseState = LeaseState.RUNNING, **fields: Any) -> Lease:
    gone = state is LeaseState.STOPPING
    known: dict[str, Any] = {
        "container_id": None if state is LeaseState.RESERVED else C1,
        "target": Target.GONE if gone else Target.RUN,
        "reason": Reason.STOPPED if gone else None,
        "moved_at": NOW - 10,
    }
    return Lease(
        id="L1",
        key=ServerKey(hub="hub", user="alice"),
        request=GPURequest(count=1),
        node="n1",
        claims=(Claim(device="G0", atom=0, lease_id="L1"),),
        state=state,
        **{**known, **fields},
    )


def seen(state: str = "running", container_id: str = C1, **fields: Any) -> Observation:
    identity = labels.Identity(ledger=LEDGER, lease="L1", user="alice", devices=("G0",))
    known: dict[str, Any] = {
        "labels": labels.server_labels(identity),
        "exit_code": None,
        "oom": False,
        "started": state != "created",
        "created_at": NOW - 1000,
        "device_ids": ("G0",),
        "injected": ("G0",),
    }
    return Observation(container_id=container_id, name="c", state=state, **{**known, **fields})


def others(container: Observation) -> Observation:
    return replace(container, labels={**container.labels, labels.LEDGER: "b" * 32})


STOP = Remove(container_id=C1, lease="L1", why="stop wanted (stopped)")
OOM = StopWanted(lease_id="L1", reason=Reason.OUT_OF_MEMORY, note="stopped: out of memory")
EXIT = StopWanted(lease_id="L1", reason=Reason.EXITED, note="ended with exit code 3")
LATE = StopWanted(
    lease_id="L1",
    reason=Reason.START_TIMEOUT,
    note="the container was not started in time",
)
RESERVED, STARTING = LeaseState.RESERVED, LeaseState.STARTING
RUNNING, STOPPING = LeaseState.RUNNING, LeaseState.STOPPING

#: (what it is about, the lease, the containers, the steps)
TABLE: list[tuple[str, Lease | None, tuple[Observation, ...], list[Step]]] = [
    ("agreement", lease(), (seen(),), []),
    ("paused is running", lease(), (seen("paused"),), []),
    ("restarting is running", lease(), (seen("restarting"),), []),
    ("not made yet", lease(RESERVED), (), []),
    ("made, not bound yet", lease(RESERVED), (seen("created"),), []),
    ("bound, not started yet", lease(STARTING), (seen("created"),), []),
    (
        "starting and running",
        lease(STARTING),
        (seen(),),
        [Tell(event=ContainerRunning(lease_id="L1"))],
    ),
    ("not listed proves nothing", lease(), (), [Confirm(lease="L1", container_id=C1)]),
    ("not listed while starting", lease(STARTING), (), [Confirm(lease="L1", container_id=C1)]),
    ("being removed", lease(STOPPING), (seen("removing"),), []),
    ("shall go and runs", lease(STOPPING), (seen(),), [STOP]),
    ("shall go and has ended", lease(STOPPING), (seen("exited"),), [STOP]),
    ("shall go and never ran", lease(STOPPING), (seen("created"),), [STOP]),
    ("ended just now: the Hub reads it", lease(), (seen("exited", exit_code=3),), []),
    (
        "never started in time",
        lease(STARTING, moved_at=NOW - 601),
        (seen("created"),),
        [Tell(event=LATE), Remove(container_id=C1, lease="L1", why=LATE.note)],
    ),
    (
        "other devices than leased: said, not killed",
        lease(),
        (seen(injected=("G0", "G1")),),
        [
            Warn(
                container_id=C1,
                subject="alice",
                text=f"container {C1[:12]} has devices G0, G1, its lease G0",
            )
        ],
    ),
    ("running and unknown", None, (seen(),), [Adopt(container=seen())]),
    ("paused and unknown", None, (seen("paused"),), [Adopt(container=seen("paused"))]),
    (
        "a second container of a lease runs",
        lease(),
        (seen(), seen(container_id=C2)),
        [Adopt(container=seen(container_id=C2))],
    ),
    ("another ledger's is never touched", None, (others(seen()), others(seen("created"))), []),
    ("made just now, lease over", None, (seen("created", created_at=NOW - 60),), []),
    (
        "made long ago, lease over",
        None,
        (seen("created"),),
        [Remove(container_id=C1, lease=None, why="never started, and no lease knows it")],
    ),
    (
        "made for a lease that has another",
        lease(),
        (seen(), seen("created", container_id=C2)),
        [Remove(container_id=C2, lease=None, why="never started, and no lease knows it")],
    ),
]


@pytest.mark.parametrize(
    ("of", "containers", "steps"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_the_plan_is(
    of: Lease | None, containers: tuple[Observation, ...], steps: list[Step]
) -> None:
    leases = {of.id: of} if of is not None else {}
    view = View(now=NOW, ledger=LEDGER, leases=leases, seen=containers, graces=GRACES)
    assert plan(view) == steps


@pytest.mark.parametrize(("oom", "event"), [(False, EXIT), (True, OOM)])
def test_an_end_that_nobody_took_care_of_is_stored_before_the_container_goes(
    oom: bool, event: StopWanted
) -> None:
    view = View(
        now=NOW,
        ledger=LEDGER,
        leases={"L1": lease()},
        seen=(seen("exited", exit_code=3, oom=oom),),
        ended_since={C1: NOW - 30},
        graces=GRACES,
    )
    assert plan(view) == [
        Tell(event=event),
        Remove(container_id=C1, lease="L1", why=event.note),
    ]


def test_a_stop_that_the_hub_does_is_left_to_it() -> None:
    view = View(
        now=NOW,
        ledger=LEDGER,
        leases={"L1": lease(STOPPING)},
        seen=(seen(),),
        hub_stops=frozenset({"L1"}),
    )
    assert plan(view) == []


@pytest.mark.parametrize("state", list(LeaseState))
@pytest.mark.parametrize("container", ["created", "running", "paused", "exited", "dead"])
def test_a_running_container_is_removed_only_for_a_lease_that_shall_go(
    state: LeaseState, container: str
) -> None:
    if state is LeaseState.RELEASED:
        return
    of = lease(state, moved_at=0.0)
    found = seen(container, exit_code=0)
    view = View(now=NOW, ledger=LEDGER, leases={"L1": of}, seen=(found,), ended_since={C1: 0.0})
    removes = any(isinstance(step, Remove) for step in plan(view))
    if found.live:
        assert removes == (state is LeaseState.STOPPING)


# -- the shell ---------------------------------------------------------------------------


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(runtime, "TICK", 0.01)
    monkeypatch.setattr(reconciler, "RETRY", 0.005)
    monkeypatch.setattr(reconciler, "GATHER", 0.001)
    return World(tmp_path)


def nudge(world: World) -> None:
    assert world.desk.reconciler is not None
    world.desk.reconciler.nudge()


def site_with(state: LeaseState | None) -> Site:
    """A lease in this state, and its container's id on record from STARTING on."""
    site = Site("G0")
    order = [None, RESERVED, STARTING, RUNNING, STOPPING]
    steps = [
        lambda: site.ask("alice", id="L1"),
        lambda: site.bind("L1", C1),
        lambda: site.running("L1"),
        lambda: site.stop("L1"),
    ]
    for step in steps[: order.index(state)]:
        step()
    return site


def act(site: Site, there: dict[str, Observation], step: Step) -> None:
    """What the reconciler does, with an engine that does at once what it is told."""
    if isinstance(step, Tell):
        site.do(step.event)
    elif isinstance(step, Adopt):
        site.find("alice", step.container.container_id, "G0", lease="L1")
    elif isinstance(step, Remove):
        del there[step.container_id]
        if step.lease is not None:
            site.gone(step.lease, step.container_id)
    elif isinstance(step, Confirm) and step.container_id not in there:
        site.gone(step.lease, step.container_id)


@pytest.mark.parametrize("graces", [Graces(), Graces(created=-1.0, exited=-1.0, start=-1.0)])
@pytest.mark.parametrize("container", ["", "created", "running", "paused", "exited"])
@pytest.mark.parametrize("state", [None, RESERVED, STARTING, RUNNING, STOPPING])
def test_after_what_one_comparison_does_the_next_one_finds_nothing_to_do(
    state: LeaseState | None, container: str, graces: Graces
) -> None:
    site = site_with(state)
    there = {C1: seen(container, created_at=site.now)} if container else {}

    def steps() -> list[Step]:
        leases = dict(site.state.tables.leases)
        view = {"now": site.now, "ledger": LEDGER, "leases": leases, "graces": graces}
        return plan(View(seen=tuple(there.values()), **view))  # type: ignore[arg-type]

    for step in steps():
        act(site, there, step)
    # where a broken S2 is found it is said, each time, and nothing is done
    assert not [step for step in steps() if not isinstance(step, Warn)], "L3"


async def test_a_removal_behind_our_back_frees_the_devices_with_the_reason(world: World) -> None:
    async with world.running():
        lease_, container = await world.run("alice", 2)
        del world.engine.containers[container]
        world.events.send("destroy", container)
        await world.until_states("free", "free")
        last = [d.lease for d in world.ledger.decisions() if isinstance(d, LeaseStored)][-1]
        assert (last.id, last.reason) == (lease_["id"], Reason.VANISHED)


async def test_an_engine_that_does_not_answer_frees_nothing_and_grants_nothing(
    world: World,
) -> None:
    async with world.running():
        await world.run("alice", 1)
        world.engine.containers.clear()  # gone, but nobody can say so
        world.engine.down = EngineUnknown("no answer from Docker")
        nudge(world)
        await world.until(lambda: world.desk.status().reason is Reason.ENGINE_UNAVAILABLE)
        await world.until_states("busy", "unavailable")
        async with world.ask("bob") as bob:
            line = await bob.until(reason="engine_unavailable")
            assert line["position"] == 1
            state = await world.desk.read(lambda state: next(iter(state.tables.leases.values())))
            assert state.uncertain
            world.engine.down = None
            await bob.until(event="granted")
        await world.until(lambda: world.desk.status().reason is None)
        assert (await world.states()).count("free") == 1


async def test_a_short_silence_changes_nothing(world: World) -> None:
    async with world.running():
        await world.run("alice", 1)
        rows = len(world.ledger.rows)
        looks = world.engine.looks
        world.engine.down = EngineUnknown("a hiccup")
        nudge(world)
        await world.until(lambda: world.desk.metrics.engine_errors._value.get() >= 1)
        world.engine.down = None
        await world.until(lambda: world.engine.looks > looks)
        assert len(world.ledger.rows) <= rows + 2


async def test_an_engine_of_another_ledger_is_logged_once_and_not_at_each_look(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.engine.down = EngineConflict("belongs to ledger b", "Belongs to another installation.")
    async with world.running(wait=False):
        errors = world.desk.metrics.engine_errors._value
        await world.until(lambda: errors.get() >= 3)
    said = [record for record in caplog.records if "belongs to ledger b" in record.getMessage()]
    assert len(said) == 1


async def test_an_engine_of_another_ledger_grants_nothing(world: World) -> None:
    world.engine.down = EngineConflict("belongs to ledger b", "Belongs to another installation.")
    async with world.running(wait=False), world.ask("alice") as alice:
        line = await alice.until(reason="engine_not_ours")
        assert line["message"] == "Belongs to another installation."
        world.engine.down = None
        await alice.until(event="granted")


async def test_a_running_container_of_a_lost_lease_is_adopted_and_its_devices_held(
    world: World,
) -> None:
    container = world.engine.create("old-lease", "alice", devices=["SIMULATED-n1-1"])
    world.engine.start(container)
    async with world.running():
        assert await world.states() == ["free", "busy"]
        assert container in world.engine.containers
        notes = [d for d in world.ledger.decisions() if isinstance(d, Noted)]
        assert [note.kind for note in notes] == ["adopted"]
        status, _ = await world.post("leases/old-lease/stopping", {"reason": "stopped"})
        assert status == 200
        del world.engine.containers[container]
        assert await world.post("leases/old-lease/ended", {}) == (200, {"released": True})
        assert await world.states() == ["free", "free"]


async def test_no_grant_comes_before_the_first_comparison(world: World) -> None:
    container = world.engine.create("old-lease", "alice", devices=["SIMULATED-n1-0"])
    world.engine.start(container)
    world.engine.down = EngineUnknown("not up yet")
    async with world.running(wait=False), world.ask("bob") as bob:
        await bob.until(event="queued")
        world.engine.down = None
        line = await bob.until(event="granted")
        assert line["lease"]["devices"][0]["id"] == "SIMULATED-n1-1"


async def test_a_replaced_server_is_stopped_and_the_new_one_gets_its_devices(
    world: World,
) -> None:
    async with world.running():
        lease_, container = await world.run("alice", 2)
        async with world.ask("alice", 2) as again:
            line = await again.until(event="granted")
        assert line["lease"]["id"] != lease_["id"]
        assert world.engine.removed == [container]


async def test_said_to_have_ended_while_it_runs_stops_nothing(world: World) -> None:
    async with world.running():
        lease_, container = await world.run("alice")
        assert await world.post(f"leases/{lease_['id']}/ended", {}) == (200, {"released": False})
        assert world.engine.containers[container].state == "running"
        assert await world.states() == ["busy", "free"]


async def test_said_to_have_ended_and_ended_is_removed_and_freed_with_the_reason(
    world: World,
) -> None:
    async with world.running():
        lease_, container = await world.run("alice")
        world.engine.die(container, 137, oom=True)
        body = {"reason": "exited", "note": "limit 8 GiB", "exit_code": 137, "oom": True}
        assert await world.post(f"leases/{lease_['id']}/ended", body) == (200, {"released": True})
        last = [d.lease for d in world.ledger.decisions() if isinstance(d, LeaseStored)][-1]
        assert (last.reason, last.note) == (Reason.OUT_OF_MEMORY, "limit 8 GiB")
        assert world.engine.removed == [container]


async def test_an_end_without_proof_frees_nothing(world: World) -> None:
    async with world.running():
        lease_, _ = await world.run("alice")
        world.engine.containers.clear()
        world.engine.down = EngineUnknown("no answer from Docker")
        body = {"reason": "stopped"}
        path = f"leases/{lease_['id']}/ended"
        assert await world.post(path, body) == (200, {"released": False})
        world.engine.down = None
        await world.until_states("free", "free")


async def test_a_stop_announced_by_the_hub_and_not_done_is_done_after_its_grace(
    world: World,
) -> None:
    async with world.running():
        lease_, container = await world.run("alice")
        await world.post(f"leases/{lease_['id']}/stopping", {"reason": "stopped"})
        nudge(world)
        looks = world.engine.looks
        await world.until(lambda: world.engine.looks > looks)
        assert container in world.engine.containers
        world.clock.now += world.options.stop_grace + reconciler.HUB_STOP_EXTRA + 1
        nudge(world)
        await world.until_states("free", "free")
        assert world.engine.removed == [container]


async def test_an_end_that_the_hub_never_reads_is_cleared_after_its_grace(world: World) -> None:
    async with world.running():
        _, container = await world.run("alice")
        world.engine.die(container, 3)
        world.events.send("die", container)
        reconciler_ = world.desk.reconciler
        assert reconciler_ is not None
        await world.until(lambda: container in reconciler_._ended_since)
        assert await world.states() == ["busy", "free"]
        world.clock.now += world.options.exited_grace + 1
        nudge(world)
        await world.until_states("free", "free")


async def test_a_container_that_no_lease_wants_is_removed_after_its_grace(world: World) -> None:
    async with world.running():
        old = world.engine.create("over", created_at=world.clock.now - 1000)
        new = world.engine.create("over", created_at=world.clock.now)
        nudge(world)
        await world.until(lambda: old not in world.engine.containers)
        assert new in world.engine.containers


async def test_a_stop_that_hangs_quarantines_the_device(world: World) -> None:
    async with world.running():
        lease_, container = await world.run("alice")
        world.engine.stuck.add(container)
        actor = world.desk.actor
        assert actor is not None
        await actor.post(StopWanted(lease_id=lease_["id"]))
        await world.until(lambda: world.desk.metrics.engine_errors._value.get() >= 1)
        world.clock.now += world.options.hung_stop + 1
        nudge(world)
        await world.until(lambda: any("can't be stopped" in row for row in world.ledger.rows))
        assert (await world.states())[1] == "free"
        response = await world.fetch("api/internal/summary")
        assert b"device_quarantined" in response.body


async def test_other_devices_than_leased_are_said_once_and_nothing_is_stopped(
    world: World,
) -> None:
    async with world.running():
        _, container = await world.run("alice", 1)
        world.engine.change(container, injected=("SIMULATED-n1-0", "SIMULATED-n1-1"))
        nudge(world)
        await world.until_states("busy", "unavailable")
        nudge(world)
        looks = world.engine.looks
        await world.until(lambda: world.engine.looks > looks)
        notes = [d for d in world.ledger.decisions() if isinstance(d, Noted)]
        assert [note.kind for note in notes] == ["devices_differ"]
        assert container in world.engine.containers


async def test_a_foreign_container_keeps_its_device_from_being_granted(world: World) -> None:
    stranger = seen(container_id=C2, labels={}, injected=("SIMULATED-n1-0",))
    world.engine.others = (stranger,)
    async with world.running():
        assert await world.states() == ["unavailable", "free"]
        assert (await world.grant("alice"))["devices"][0]["id"] == "SIMULATED-n1-1"
        world.engine.others = ()
        nudge(world)
        await world.until_states("free", "busy")


async def test_a_stop_that_the_hub_gave_up_is_done_by_the_scheduler_at_once(world: World) -> None:
    async with world.running():
        lease_, container = await world.run("alice", 1)
        await world.post(f"leases/{lease_['id']}/stopping", {"reason": "stopped"})
        looks = world.engine.looks
        nudge(world)
        await world.until(lambda: world.engine.looks > looks)
        assert world.engine.removed == []  # the Hub's own stop has its time
        world.engine.down = EngineUnknown("no answer")
        status, answer = await world.post(f"leases/{lease_['id']}/ended", {"reason": "stopped"})
        assert (status, answer) == (200, {"released": False})
        world.engine.down = None
        await world.until_states("free", "free")
        assert world.engine.removed == [container]


async def test_a_container_that_a_list_leaves_out_is_not_taken_for_gone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.running():
        _, container = await world.run("alice", 1)
        asked: list[str] = []
        look_at = world.engine.look_at

        async def look() -> Seen:
            world.engine.looks += 1
            return Seen(ours=(), others=())

        async def by_id(container_id: str) -> Observation | None:
            asked.append(container_id)
            return await look_at(container_id)

        monkeypatch.setattr(world.engine, "look", look)
        monkeypatch.setattr(world.engine, "look_at", by_id)
        for _ in range(2):  # when the second look begins, the first has had its consequences
            looks = world.engine.looks
            nudge(world)
            await world.until(lambda looks=looks: world.engine.looks > looks)
        assert container in asked
        assert (await world.states()).count("busy") == 1


async def test_a_removal_that_leaves_the_container_there_frees_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def later(container_id: str) -> None:
        """Docker has accepted it, and is not done."""

    async with world.running():
        lease_, container = await world.run("alice", 1)
        world.engine.die(container)
        monkeypatch.setattr(world.engine, "remove", later)
        path = f"leases/{lease_['id']}/ended"
        assert await world.post(path, {"reason": "stopped"}) == (200, {"released": False})
        assert (await world.states()).count("busy") == 1


async def test_a_stray_that_starts_in_the_last_moment_is_not_removed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.running():
        container = world.engine.create("nobody-s", created_at=0.0)
        seen_before = world.engine.containers[container]
        world.engine.start(container)

        async def look() -> Seen:
            world.engine.looks += 1
            return Seen(ours=(seen_before,), others=())

        tried: list[str] = []
        discard = world.engine.discard

        async def try_to(container_id: str) -> None:
            tried.append(container_id)
            await discard(container_id)

        monkeypatch.setattr(world.engine, "look", look)
        monkeypatch.setattr(world.engine, "discard", try_to)
        nudge(world)
        await world.until(lambda: tried)
        assert world.engine.containers[container].state == "running"
        assert world.engine.removed == []
