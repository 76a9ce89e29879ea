"""The listener in its real process, through the real binding, against the fake library."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jupyterhub_gpuspawner.discovery import alarms

MODULE = "jupyterhub_gpuspawner.discovery.nvml_events"
GIB = 1024**3
GPUS = (
    f"gpu|uuid=GPU-0|name=NVIDIA A100|total={GIB}|mig=1",
    f"mig|gpu=0|uuid=MIG-a|name=m|total={GIB}",
    f"gpu|uuid=GPU-1|name=Tesla T4|total={GIB}|ecc=-1",
    f"gpu|uuid=GPU-2|name=old|total={GIB}|events=0",
)
XID, DOUBLE_BIT = 8, 2


@pytest.fixture
def listener(scenario: Callable[..., None]) -> Iterator[Callable[..., Any]]:
    """``listener(*lines)`` starts it; what is written to the scenario later reaches it."""
    running = []

    def start(*lines: str, wait: int = 5000) -> Any:
        scenario(*lines)
        program = f"import {MODULE} as listener; listener.WAIT = {wait}; listener.main()"
        child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        running.append(child)
        return child

    yield start
    for child in running:
        child.kill()
        child.wait()
        child.stdout.close()


def next_line(child: Any) -> dict[str, Any]:
    return dict(json.loads(child.stdout.readline()))


def now_says(*lines: str) -> None:
    """The driver says something else from now on, all at once."""
    path = Path(os.environ["FAKE_NVML_SCENARIO"])
    draft = path.with_suffix(".draft")
    draft.write_text("".join(f"{line}\n" for line in lines))
    draft.rename(path)


def test_what_the_driver_reports_is_told_by_the_name_of_the_gpu(listener):
    before = f"event|n=1|gpu=0|type={XID}|data=79"
    child = listener(*GPUS, before)
    # a GPU without ECC tells of XIDs all the same; one that tells of nothing is not listened to
    assert next_line(child) == {"listening": ["GPU-0", "GPU-1"]}
    events = [
        f"event|n=2|gpu=1|type={XID}|data=62",
        f"event|n=3|gpu=2|type={XID}|data=62",
        f"event|n=4|gpu=1|type={DOUBLE_BIT}|data=0",
        f"event|n=5|gpu=0|type={DOUBLE_BIT}|data=0",
        f"event|n=6|gpu=-1|type={XID}|data=79",
    ]
    now_says(*GPUS, before, *events)
    # what happened before, and what nobody asked to hear of, is not told
    assert [next_line(child) for _ in range(3)] == [
        {"gpu": "GPU-1", "kind": "xid", "code": 62},
        {"gpu": "GPU-0", "kind": "ecc", "code": 0},
        {"gpu": None, "kind": "xid", "code": 79},
    ]


def test_a_wait_that_ends_without_an_event_is_no_event(listener):
    child = listener(*GPUS, wait=0)
    next_line(child)
    now_says(*GPUS, f"event|n=1|gpu=0|type={XID}|data=79")
    assert next_line(child)["code"] == 79


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        (("fail|call=nvmlEventSetWait_v2|code=15",), 15),
        (("fail|call=nvmlEventSetCreate|code=3",), 3),
        (("init|code=9",), 9),
    ],
)
def test_a_listener_that_can_not_listen_says_so_and_ends(listener, lines, code):
    child = listener(*GPUS, *lines)
    last = [json.loads(line) for line in child.stdout][-1]
    assert last == {"error": code}
    assert child.wait() == 0
    assert alarms.read(json.dumps(last)) is None


def test_a_listener_dies_with_the_one_that_started_it(scenario):
    scenario(*GPUS)
    program = (
        "import subprocess, sys; "
        f"child = subprocess.Popen([sys.executable, '-m', '{MODULE}'], stdout=subprocess.PIPE); "
        "child.stdout.readline(); print(child.pid, flush=True)"
    )
    out = subprocess.run(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True
    )
    stat = Path(f"/proc/{int(out.stdout)}/stat")
    deadline = time.monotonic() + 30
    while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline, "the listener lives on"
        time.sleep(0.02)
