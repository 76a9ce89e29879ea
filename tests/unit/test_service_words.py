"""Log lines and sentences: one for each event, and no name breaks a line."""

from __future__ import annotations

from dataclasses import replace

from jupyterhub_gpuspawner.scheduler.decisions import EntryStored, LeaseStored, Noted
from jupyterhub_gpuspawner.scheduler.models import (
    Claim,
    EntryState,
    GPURequest,
    Lease,
    LeaseState,
    QueueEntry,
    Reason,
    ServerKey,
    Target,
)
from jupyterhub_gpuspawner.service.words import REASONS, Announcer, safe, waiting

KEY = ServerKey(hub="hub", user="alice", server="train")
ENTRY = QueueEntry(id="L1", key=KEY, request=GPURequest(count=2), submitted_at=100.0)
LEASE = Lease(
    id="L1",
    key=KEY,
    request=GPURequest(count=2),
    node="node-3",
    claims=tuple(Claim(device=f"G{n}", atom=0, lease_id="L1") for n in range(2)),
    granted_at=141.0,
)


def test_a_warning_and_its_withdrawal_are_a_line_each() -> None:
    announcer = Announcer()
    running = replace(LEASE, state=LeaseState.RUNNING, container_id="c")
    warned = replace(running, warned=True, stop_at=50_700.0)
    over = replace(running, state=LeaseState.RELEASED, target=Target.GONE, released_at=7341.0)
    decisions = [running, warned, warned, running, running, over]
    lines = list(announcer.lines([LeaseStored(lease=lease) for lease in decisions]))
    assert lines[1:3] == [
        "alice/train: past its length, and others wait: will be stopped at 14:05 UTC",
        "alice/train: the warning is withdrawn",
    ]
    assert len(lines) == 4


def test_a_life_is_one_line_for_each_event() -> None:
    announcer = Announcer()
    running = replace(LEASE, state=LeaseState.RUNNING, container_id="c")
    stopping = replace(
        running, state=LeaseState.STOPPING, target=Target.GONE, reason=Reason.OUT_OF_MEMORY
    )
    decisions = [
        EntryStored(entry=ENTRY),
        EntryStored(entry=replace(ENTRY, boot_id="b2")),
        LeaseStored(lease=LEASE),
        EntryStored(entry=replace(ENTRY, state=EntryState.GRANTED, lease_id="L1")),
        LeaseStored(lease=replace(LEASE, boot_id="b2")),
        LeaseStored(lease=running),
        LeaseStored(lease=replace(running, uncertain=True)),
        LeaseStored(lease=stopping),
        LeaseStored(lease=replace(stopping, state=LeaseState.RELEASED, released_at=7341.0)),
        Noted(kind="adopted", text="a fact", subject="bob"),
    ]
    assert list(announcer.lines(decisions)) == [
        "alice/train: asks for 2 GPUs",
        "alice/train: granted 2 GPUs on node-3 after 41 s",
        "alice/train: runs with 2 GPUs on node-3",
        "alice/train: stops (out_of_memory)",
        "alice/train: gave back 2 GPUs on node-3 after 2 h (out_of_memory)",
        "bob: a fact",
    ]


def test_a_cancel_is_said() -> None:
    announcer = Announcer()
    cancelled = replace(ENTRY, state=EntryState.CANCELLED)
    assert list(announcer.lines([EntryStored(entry=ENTRY), EntryStored(entry=cancelled)])) == [
        "alice/train: asks for 2 GPUs",
        "alice/train: request cancelled",
    ]


def test_no_name_makes_a_second_line() -> None:
    assert safe("eve\nroot: granted 8 GPUs\x1b[2J\u202e") == (
        "eve\\nroot: granted 8 GPUs\\x1b[2J\\u202e"
    )
    assert safe("Ünïcode 名") == "Ünïcode 名"


def test_who_waits_hears_how_many_are_ahead() -> None:
    text = REASONS[Reason.WAITING_FOR_DEVICES]
    assert waiting(Reason.WAITING_FOR_DEVICES, 0) == text
    assert waiting(Reason.WAITING_FOR_DEVICES, 1) == f"{text} 1 request is ahead of yours."
    assert waiting(Reason.WAITING_FOR_DEVICES, 2) == f"{text} 2 requests are ahead of yours."


def test_who_waits_for_a_simulated_gpu_reads_so() -> None:
    text = waiting(Reason.WAITING_FOR_DEVICES, 0, simulated=True)
    assert text == "All suitable SIMULATED GPUs are in use."


def test_every_reason_that_a_waiting_user_can_meet_has_a_sentence() -> None:
    only_for_refusals = {
        Reason.ABOVE_USER_LIMIT,
        Reason.ABOVE_GROUP_LIMIT,
        Reason.ABOVE_USER_BUDGET,
        Reason.ABOVE_GROUP_BUDGET,
        Reason.QUEUE_FULL,
    }
    assert set(Reason) - set(REASONS) <= only_for_refusals
    assert all(text.endswith(".") for text in REASONS.values())
